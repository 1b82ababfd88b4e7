"""The heads that policies share: their samples, densities, entropies and divergences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rtune.policies.heads import Normal, categorical, fine_uniform, normal

LOGITS = np.random.default_rng(0).normal(size=(3, 7)) * 2


def shares_of(logits: np.ndarray) -> np.ndarray:
  """Probabilities in float64."""
  odds = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
  return odds / odds.sum(axis=-1, keepdims=True)


def test_categorical_samples_follow_their_log_probability():
  number = 200_000
  draw = jax.jit(lambda key: categorical.sample(key, jnp.asarray(LOGITS, jnp.float32), number))
  values = np.asarray(draw(jax.random.key(0)))
  assert values.shape == (number, 3)
  for place, expected in enumerate(shares_of(LOGITS)):
    counts = np.bincount(values[:, place], minlength=7)
    assert stats.chisquare(counts, expected * number).pvalue > 1e-3


@pytest.mark.parametrize("common_first", [pytest.param(True, marks=pytest.mark.slow), False])
def test_rare_values_are_drawn_as_often_as_they_are_likely(common_first):
  """20,000 values of 4e-8: with Gumbel noise of 24 bits none of them was ever drawn."""
  rare, common = np.full(20_000, np.log(4e-8)), np.full(10, np.log((1 - 8e-4) / 10))
  logits = np.concatenate([common, rare] if common_first else [rare, common])
  draw = jax.jit(lambda key: categorical.sample(key, jnp.asarray(logits, jnp.float32), 2000))
  values = np.concatenate([draw(jax.random.key(seed)) for seed in range(50)])
  seen = values[logits[values] < -10]
  due = 100_000 * 8e-4
  assert abs(len(seen) - due) < 4 * np.sqrt(due)
  assert len(set(seen.tolist())) > 0.9 * len(seen)


def test_impossible_values_are_never_drawn_and_a_sure_one_always():
  logits = jnp.array([-jnp.inf, 0.0, -jnp.inf, 1.0, -jnp.inf])
  values = np.asarray(categorical.sample(jax.random.key(0), logits, 5000))
  assert set(values.tolist()) == {1, 3}
  sure = categorical.sample(jax.random.key(0), jnp.array([-100.0, 50.0, -100.0]), 1000)
  assert (np.asarray(sure) == 1).all()


def test_numbers_drawn_are_fine_and_below_one():
  values = np.asarray(fine_uniform(jax.random.key(0), (1_000_000,)))
  assert values.min() >= 0 and values.max() < 1
  small = values[values < 2.0**-12]
  assert (small * 2.0**23 % 1 > 0).mean() > 0.5  # not multiples of 2**-23
  assert stats.kstest(values, "uniform").pvalue > 1e-3


def test_categorical_closed_forms():
  p, q = shares_of(LOGITS), shares_of(LOGITS[::-1])
  logits = jnp.asarray(LOGITS, jnp.float32)
  np.testing.assert_allclose(categorical.entropy(logits), -(p * np.log(p)).sum(-1), rtol=1e-5)
  expected = (p * np.log(p / q)).sum(-1)
  np.testing.assert_allclose(categorical.kl(logits, logits[::-1]), expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(categorical.mode(logits), LOGITS.argmax(-1))
  taken = np.array([1, 6, 0])
  expected = np.log(p[np.arange(3), taken])
  np.testing.assert_allclose(categorical.log_prob(logits, jnp.asarray(taken)), expected, rtol=1e-5)


def test_normal_closed_forms():
  at = Normal(jnp.array([0.3, -2.0]), jnp.array([0.5, 2.0]))
  other = Normal(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.7]))
  exact = stats.norm([0.3, -2.0], [0.5, 2.0])
  values = jnp.array([0.1, 3.0])
  np.testing.assert_allclose(normal.log_prob(at, values), exact.logpdf(values), rtol=1e-5)
  np.testing.assert_allclose(normal.entropy(at), exact.entropy(), rtol=1e-5)
  np.testing.assert_array_equal(normal.mode(at), at.mean)
  draws = np.asarray(normal.sample(jax.random.key(0), at, 200_000), np.float64)
  np.testing.assert_allclose(draws.mean(0), [0.3, -2.0], atol=0.02)
  np.testing.assert_allclose(draws.std(0), [0.5, 2.0], rtol=0.01)
  ratio = exact.logpdf(draws) - stats.norm([0.0, 1.0], [1.0, 0.7]).logpdf(draws)
  np.testing.assert_allclose(normal.kl(at, other), ratio.mean(0), rtol=0.02)
