"""The hyperbolic tangent of normal numbers, against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from rtune.policies.heads import Normal
from rtune.policies.squashed import log_slope, tanh_normal

pytestmark = pytest.mark.usefixtures("quick_compiles")

CASES = [(0.0, 0.3), (0.7, 1.0), (-2.0, 0.5), (0.3, 2.0)]


def at(mean, scale):
  return Normal(jnp.float32(mean), jnp.float32(scale))


@pytest.mark.parametrize(("mean", "scale"), CASES)
def test_densities_integrate_to_one_between_minus_one_and_one(mean, scale):
  inner = np.linspace(max(mean - 6 * scale, -8), min(mean + 6 * scale, 8), 2001)
  values = np.exp(np.asarray(tanh_normal.log_prob(at(mean, scale), jnp.float32(inner)), np.float64))
  within = stats.norm.cdf((inner[-1] - mean) / scale) - stats.norm.cdf((inner[0] - mean) / scale)
  assert integrate.trapezoid(values, np.tanh(inner)) == pytest.approx(within, abs=2e-3)


@pytest.mark.parametrize(("mean", "scale"), CASES)
def test_entropy_is_that_of_the_squashed_number(mean, scale):
  nodes = np.linspace(-10, 10, 20001)
  weight = stats.norm.pdf(nodes)
  values = mean + scale * nodes
  slope = np.log(4) - 2 * np.logaddexp(values, -values)  # 1 / cosh(u) ** 2
  want = stats.norm.entropy(scale=scale) + integrate.trapezoid(weight * slope, nodes)
  assert float(tanh_normal.entropy(at(mean, scale))) == pytest.approx(want, abs=2e-3)


def test_the_slope_is_finite_far_out():
  found = log_slope(jnp.array([-50.0, 0.0, 50.0]))
  np.testing.assert_allclose(found, [2 * np.log(2) - 100, 0, 2 * np.log(2) - 100], atol=1e-4)


def test_divergence_and_samples_are_those_of_the_normal_numbers():
  one, other = at(0.3, 0.7), at(-0.2, 1.1)
  want = np.log(1.1 / 0.7) + (0.7**2 + 0.5**2) / (2 * 1.1**2) - 0.5
  assert float(tanh_normal.kl(one, other)) == pytest.approx(want, rel=1e-5)
  drawn = np.asarray(tanh_normal.sample(jax.random.key(0), one, 20000), np.float64)
  assert stats.kstest((drawn - 0.3) / 0.7, "norm").pvalue > 1e-3
