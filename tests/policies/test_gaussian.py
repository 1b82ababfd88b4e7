"""Normal pixels: what is sampled, its score, its gradients, and what imitation is.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  T: blocks
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rtune.config.names import resolve
from rtune.devices.compiling import jit_once
from rtune.errors import UsageError
from rtune.policies.gaussian import gaussian
from rtune.policies.pictures import by_block
from rtune.policies.space import Image
from rtune.training import losses

pytestmark = pytest.mark.usefixtures("quick_compiles")

TOY = pathlib.Path(__file__).with_name("picture_toy.py")
ADVANTAGES, assert_compiled_as_plain, assert_mean, flat, gradients, inputs_of, random_params = (
  resolve(f"{TOY}:{name}")
  for name in (
    *("ADVANTAGES", "assert_compiled_as_plain", "assert_mean", "flat", "gradients", "inputs_of"),
    "random_params",
  )
)
POINTWISE = {"fn": f"{TOY}:pointwise"}
RDUNET = {"fn": "rtune.models.rdunet:rdunet", "args": {"filters": 2, "blocks": 1}}
KINDS = (False, True)  # whether the scale is said of each pixel


def tiny(by_pixel: bool, **changes):
  given = {"network": POINTWISE, "block": 2, "width": 4, "scale": 0.3} | changes
  policy = gaussian(Image(4, 4, 1), by_pixel=by_pixel, **given)
  inputs = inputs_of(4, 4)
  return policy, random_params(policy, inputs), inputs


def target(inputs):
  return 1 - inputs["image"]


def judge(actions, inputs):
  """Minus the squared error of each block."""
  apart = (actions - target(inputs)[:, None])[..., 0] ** 2
  batch, samples = apart.shape[:2]
  return -apart.reshape(batch, samples, 2, 2, 2, 2).sum((3, 5)).reshape(batch, samples, 4)


@pytest.mark.parametrize("by_pixel", KINDS)
def test_samples_follow_their_score(by_pixel):
  policy, params, inputs = tiny(by_pixel)
  sampled = jax.jit(policy.sample, static_argnums=3)(params, inputs, jax.random.key(5), 4000)
  scored = jax.jit(policy.score)(params, inputs, sampled.actions)
  mean, scale = (np.asarray(x, np.float64) for x in scored.outputs)
  assert len(np.unique(scale.round(4))) == (32 if by_pixel else 1)
  noise = (np.asarray(sampled.actions) - mean) / scale
  rows = noise.reshape(-1, 16)
  assert np.all(np.abs(rows.mean(0)) < 5 / np.sqrt(len(rows)))
  covariance = rows.T @ rows / len(rows)
  assert np.all(np.abs(covariance - np.eye(16)) < 5 * np.sqrt((1 + np.eye(16)) / len(rows)))
  assert stats.kstest(rows.ravel(), "norm").pvalue > 1e-4
  want = (stats.norm.logpdf(noise) - np.log(scale)).reshape(2, 4000, 2, 2, 2, 2).sum((3, 5))
  np.testing.assert_allclose(sampled.log_prob, want.reshape(2, 4000, 4), atol=1e-3)
  np.testing.assert_allclose(scored.log_prob, sampled.log_prob, atol=1e-4)
  described = policy.describe(scored)["pixel_scale"]
  np.testing.assert_allclose(described[:, :1], scale.mean((2, 3, 4)), rtol=1e-5)


@pytest.mark.parametrize(("samples", "by_pixel"), [(4, True), (8, True), (8, False)])
def test_compiled_samples_are_those_of_plain_operations(samples, by_pixel):
  policy = gaussian(Image(12, 10, 3), network=POINTWISE, by_pixel=by_pixel, width=4)
  inputs = inputs_of(12, 10, channels=3)
  params = random_params(policy, inputs)
  assert_compiled_as_plain(policy, params, inputs, samples)


@pytest.mark.parametrize("by_pixel", KINDS)
def test_best_is_the_mode(by_pixel):
  policy, params, inputs = tiny(by_pixel)
  best = policy.best(params, inputs)

  def density(picture):
    return policy.score(params, inputs, picture[:, None]).log_prob.sum()

  np.testing.assert_allclose(jax.jit(jax.grad(density))(best), 0, atol=1e-5)
  sampled = policy.sample(params, inputs, jax.random.key(1), 100)
  assert np.all(density(best) / 2 > sampled.log_prob.sum(-1).mean(1))


@pytest.fixture(scope="module")
def measured():
  """By kind of scale: gradients of many steps, and minus that of the expected reward over T."""
  found = {}
  for by_pixel in KINDS:
    policy, params, inputs = tiny(by_pixel)

    def expected(params, policy=policy, inputs=inputs):
      mean, scale = policy.score(params, inputs, target(inputs)[:, None]).outputs
      apart = mean[:, 0] - target(inputs)
      return -(jnp.sum(apart**2) + jnp.sum(scale**2)) / (2 * 4)

    rows = gradients(policy, params, inputs, judge)
    found[by_pixel] = rows, -flat(jax.jit(jax.grad(expected))(params))
  return found


@pytest.mark.parametrize("advantage", ADVANTAGES)
@pytest.mark.parametrize("kind", ["whole", "credit"])
@pytest.mark.parametrize("by_pixel", KINDS)
def test_gradient_of_the_expected_reward(measured, by_pixel, kind, advantage):
  rows, exact = measured[by_pixel]
  shrink = 1 - 1 / 4 if advantage == "group_mean" else 1
  # Without a baseline the rewards' own level is noise.
  assert_mean(rows[kind, advantage], shrink * exact, 0.2 if advantage == "none" else 0.08)


def test_imitation_is_least_squares_and_the_scale_becomes_that_of_the_errors():
  policy, params, inputs = tiny(False)
  clean = target(inputs)
  network = resolve(f"{TOY}:pointwise")(1)

  def imitation(params):
    return losses.imitation(policy.score(params, inputs, clean[:, None]))

  def squares(params):
    found = network.apply(params["restorer"], inputs["image"], inputs["sigma"]).image
    return jnp.mean((found - clean) ** 2)

  scale = policy.score(params, inputs, clean[:, None]).outputs.scale.ravel()[0]
  found, want = jax.grad(imitation)(params), jax.grad(squares)(params)
  pixels = 4  # of a block, which is one decision
  np.testing.assert_allclose(
    flat(found["restorer"]), flat(want["restorer"]) * pixels / (2 * scale**2), rtol=1e-4
  )
  error = jnp.sqrt(squares(params))
  right = params | {"log_scale": jnp.log(error - 0.002)[None]}
  np.testing.assert_allclose(jax.grad(imitation)(right)["log_scale"], 0, atol=1e-4)
  want = -stats.norm.logpdf(0, scale=error) + 0.5
  np.testing.assert_allclose(imitation(right), pixels * want, rtol=1e-5)


@pytest.mark.parametrize("by_pixel", KINDS)
def test_entropy_and_divergence(by_pixel):
  policy, params, inputs = tiny(by_pixel)
  other = random_params(policy, inputs, seed=1)
  actions = policy.sample(params, inputs, jax.random.key(5), 3).actions
  scored, reference = (policy.score(p, inputs, actions) for p in (params, other))
  (m, s), (n, r) = (
    [np.broadcast_to(np.asarray(x, np.float64), (2, 1, 4, 4, 1)) for x in one.outputs]
    for one in (scored, reference)
  )
  entropy = stats.norm.entropy(scale=s)
  kl = np.log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - 0.5
  for found, want in (
    (policy.entropy(scored), entropy),
    (policy.divergence(scored, reference), kl),
  ):
    want = want.reshape(2, 1, 2, 2, 2, 2).sum((3, 5)).reshape(2, 1, 4)
    np.testing.assert_allclose(found, np.broadcast_to(want, (2, 3, 4)), rtol=1e-4, atol=1e-4)


def test_pictures_of_any_size_have_blocks_that_reach_beyond_them():
  policy = gaussian(Image(0, 0, 3), network=RDUNET, by_pixel=True, width=4)
  inputs = inputs_of(11, 17, channels=3)
  params = jit_once(policy.init)(jax.random.key(0), inputs)
  sampled = jit_once(lambda *given: policy.sample(*given, 2))(params, inputs, jax.random.key(0))
  assert sampled.actions.shape == (2, 2, 11, 17, 3)
  assert sampled.log_prob.shape == (2, 2, 2 * 3)
  values = jnp.ones((1, 1, 11, 17))
  np.testing.assert_array_equal(by_block(values, 8)[0, 0], [64, 64, 8, 24, 24, 3])
  np.testing.assert_array_equal(by_block(values, 1), np.ones((1, 1, 11 * 17)))


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ({"block": 0}, "args.block is 0; it must be at least 1"),
    ({"scale": 0.001}, "args.scale is 0.001; it must be above 0.002"),
    ({"network": {"fn": "rtune.models.unet:unet"}}, "must return a Restorer of"),
  ],
)
def test_settings_that_cannot_be(args, message):
  with pytest.raises(UsageError) as error:
    gaussian(Image(8, 8, 1), **args)
  assert message in str(error.value)
