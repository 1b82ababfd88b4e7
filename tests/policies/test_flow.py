"""Pictures from a flow: samples, their exact density, gradients, and what imitation is.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  T: blocks
"""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rtune.config.names import resolve
from rtune.devices.compiling import jit_once
from rtune.errors import UsageError
from rtune.models.srflow import srflow
from rtune.policies.flow import flow
from rtune.policies.space import Image
from rtune.training import losses

pytestmark = pytest.mark.usefixtures("quick_compiles")

TOY = pathlib.Path(__file__).with_name("picture_toy.py")
ADVANTAGES, assert_compiled_as_plain, flat, gradients, inputs_of, random_params = (
  resolve(f"{TOY}:{name}")
  for name in (
    *("ADVANTAGES", "assert_compiled_as_plain", "flat", "gradients", "inputs_of"),
    "random_params",
  )
)
SMALL = {"filters": 2, "blocks": 1, "growth": 2, "hidden": 3, "transitions": 1}
ONE_LEVEL = SMALL | {"levels": 1, "steps": 1, "splits": 0}
TWO_LEVELS = SMALL | {"levels": 2, "steps": 1}
SRFLOW = "rtune.models.srflow:srflow"
TEMPERATURE = 0.7


def made(sizes, low=(2, 2), number=2, seed=0, **changes):
  """A policy with a flow for x2 of gray pictures, random parameters, and inputs."""
  given = {"temperature": TEMPERATURE, "block": 2 ** sizes["levels"]} | changes
  policy = flow(Image(0, 0, 1), network={"fn": SRFLOW, "args": sizes}, **given)
  inputs = inputs_of(*low, number=number)
  return policy, random_params(policy, inputs, scale=0.15, seed=seed), inputs


def by_block_alone(params):
  """Blocks do not see each other: of what steps see of a sample, the middle pixel is kept."""

  def kept(path, leaf):
    names = [part.key for part in path]
    if "coupling" not in names or leaf.shape[1:3] != (3, 3):
      return leaf
    return leaf * jnp.zeros((1, 3, 3, 1, 1)).at[:, 1, 1].set(1)

  return jax.tree_util.tree_map_with_path(kept, params)


@pytest.fixture(scope="module")
def small():
  policy, params, inputs = made(TWO_LEVELS, low=(4, 6))
  sampled = jax.jit(policy.sample, static_argnums=3)(params, inputs, jax.random.key(3), 3)
  return policy, params, inputs, sampled, jax.jit(policy.score)


def test_score_of_samples_is_their_log_prob(small):
  _, params, inputs, sampled, score = small
  scored = score(params, inputs, sampled.actions)
  assert sampled.actions["image"].shape == (2, 3, 8, 12, 1)
  assert sampled.log_prob.shape == scored.mask.shape == (2, 3, 2 * 3)
  np.testing.assert_allclose(scored.log_prob, sampled.log_prob, atol=1e-3)


def test_scores_by_block_sum_to_the_whole(small):
  _, params, inputs, sampled, score = small
  whole, *_ = made(TWO_LEVELS, block=0)
  found = jax.jit(whole.score)(params, inputs, sampled.actions)
  assert found.log_prob.shape == (2, 3, 1)
  want = score(params, inputs, sampled.actions).log_prob.sum(-1)
  np.testing.assert_allclose(found.log_prob[..., 0], want, rtol=1e-5)


def test_samples_follow_their_score():
  """E[q / p] is 1 for every density q where p is the density of what is drawn; four pixels."""
  policy, params, inputs = made(ONE_LEVEL, low=(1, 1))
  number = 40_000
  sampled = jax.jit(policy.sample, static_argnums=3)(params, inputs, jax.random.key(5), number)
  scored = jax.jit(policy.score)(params, inputs, sampled.actions)
  for picture, log_prob in zip(sampled.actions["image"], scored.log_prob, strict=True):
    rows = np.asarray(picture, np.float64).reshape(number, 4)
    near = stats.multivariate_normal(rows.mean(0), 0.6 * np.cov(rows.T))
    ratio = np.exp(near.logpdf(rows) - np.asarray(log_prob, np.float64)[:, 0])
    error = ratio.std() / np.sqrt(number)
    assert error < 0.02, "other densities would pass"
    assert abs(ratio.mean() - 1) < 4 * error


@pytest.mark.parametrize("samples", [4, 8])
def test_compiled_samples_are_those_of_plain_operations(samples):
  policy, params, inputs = made(ONE_LEVEL)
  assert_compiled_as_plain(policy, params, inputs, samples, precision=1e-3)


def test_best_is_the_picture_of_latents_of_zero_whatever_its_size(small):
  policy, params, inputs, _, score = small
  restore = jax.jit(policy.best)
  best = restore(params, inputs)["image"]
  network = srflow(1, **TWO_LEVELS)
  seen = network.see(params, inputs["image"])
  latents = jit_once(network.encode)(params, seen, best[:, None])
  assert all(np.abs(z).max() < 1e-5 for z in latents.z)
  odd = inputs_of(3, 5)
  assert restore(params, odd)["image"].shape == (2, 6, 10, 1)
  # Where scales do not depend on the sample, it is the mode.
  steady = jax.tree_util.tree_map_with_path(
    lambda path, x: x if "injector" in str(path) or "last" not in str(path) else 0 * x, params
  )
  best = restore(steady, inputs)

  def density(picture):
    return score(steady, inputs, {"image": picture[:, None]}).log_prob.sum()

  np.testing.assert_allclose(jax.grad(density)(best["image"]), 0, atol=1e-3)


# ---- Gradients


def credit_of(actions, inputs):
  """Minus the squared error of each pixel to a target, and what is even less smooth, by block."""
  picture, low = actions["image"][..., 0], inputs["image"][..., 0]
  wanted = jnp.repeat(jnp.repeat(1 - low, 2, axis=1), 2, axis=2)
  earned = -((picture - wanted[:, None]) ** 2) + 0.3 * jnp.cos(9 * picture)
  batch, samples, height, width = picture.shape
  parts = earned.reshape(batch, samples, height // 2, 2, width // 2, 2)
  return parts.sum((3, 5)).reshape(batch, samples, -1)


@pytest.fixture(scope="module")
def measured():
  """REINFORCE of many steps, and the gradient of the same expectation through the samples."""
  policy, params, inputs = made(ONE_LEVEL)
  params = by_block_alone(params)

  def expected(params, key):
    sampled = policy.sample(params, inputs, key, 500)
    return -jnp.mean(credit_of(sampled.actions, inputs))

  one = jax.grad(expected)
  keys = jax.random.split(jax.random.key(9), 20)
  through = jax.jit(lambda params: jax.lax.map(lambda key: one(params, key), keys))(params)
  through = np.stack([flat(jax.tree.map(lambda x, i=i: x[i], through)) for i in range(20)])
  rows = gradients(policy, params, inputs, credit_of, copies=32)
  # What makes blocks see each other is not tuned here: its gradient has no closed credit.
  alone = flat(jax.tree.map(lambda x: x != 0, by_block_alone(jax.tree.map(jnp.ones_like, params))))
  return {kind: x[:, alone > 0] for kind, x in rows.items()}, through[:, alone > 0]


@pytest.mark.slow
@pytest.mark.parametrize("advantage", ADVANTAGES)
@pytest.mark.parametrize("kind", ["whole", "credit"])
def test_gradient_of_the_expected_reward(measured, kind, advantage):
  """Each number, and the length along the gradient through samples, within standard errors."""
  rows, through = measured[0][kind, advantage].astype(np.float64), measured[1].astype(np.float64)
  want = through.mean(0) * (1 - 1 / 4 if advantage == "group_mean" else 1)
  error = np.sqrt(sum(x.var(axis=0, ddof=1) / len(x) for x in (rows, through)))
  assert np.all(np.abs(rows.mean(0) - want) <= 5 * error + 1e-6)
  length = rows @ want / (want @ want)
  length_error = length.std(ddof=1) / np.sqrt(len(length))
  assert abs(length.mean() - 1) <= 4 * length_error + 0.02
  assert length_error < (0.25 if advantage == "none" else 0.1)


def test_kl_and_entropy_have_the_gradient_of_their_expectation():
  """Against the gradient through samples, whose log-densities move with them."""
  policy, params, inputs = made(ONE_LEVEL, number=1)
  other = random_params(policy, inputs, scale=0.15, seed=1)

  def value(params, key, estimated):
    drawn = policy.sample(params, inputs, key, 200)
    actions = jax.lax.stop_gradient(drawn.actions) if estimated else drawn.actions
    scored, reference = (policy.score(p, inputs, actions) for p in (params, other))
    if estimated:
      return losses.kl(scored, policy, reference) + 0.5 * losses.entropy(scored, policy)
    return jnp.mean(1.5 * scored.log_prob - reference.log_prob)

  @jax.jit
  def many(keys):
    both = (jax.value_and_grad(functools.partial(value, estimated=kind)) for kind in (True, False))
    found, want = (jax.lax.map(functools.partial(one, params), keys) for one in both)
    return jax.tree.map(lambda x: x.reshape(len(keys), -1), (found, want))

  found, want = (
    np.concatenate([np.asarray(x, np.float64) for x in jax.tree.leaves(one)], axis=1)
    for one in many(jax.random.split(jax.random.key(0), 40))
  )
  error = np.sqrt(sum(x.var(axis=0, ddof=1) / len(x) for x in (found, want)))
  assert np.all(np.abs(found.mean(0) - want.mean(0)) <= 5 * error + 1e-6)
  direction = want[:, 1:].mean(0)
  length = found[:, 1:] @ direction / (direction @ direction)
  assert abs(length.mean() - 1) < 4 * length.std() / np.sqrt(40) + 0.02
  assert length.std() / np.sqrt(40) < 0.05


# ---- Imitation


def test_imitation_is_minus_the_density_at_temperature_1(small):
  policy, params, inputs, sampled, score = small
  clean = sampled.actions["image"][:, :1]
  scored = score(params, inputs, clean)
  network = srflow(1, **TWO_LEVELS)
  latents = jit_once(network.encode)(params, network.see(params, inputs["image"]), clean)
  nats = sum(stats.norm.logpdf(z).sum((1, 2, 3, 4)) for z in latents.z)
  nats = nats + sum(np.asarray(x).sum((1, 2, 3)) for x in latents.log_det)
  np.testing.assert_allclose(scored.log_prob.sum((1, 2)), nats, rtol=1e-5)
  bits = -nats / (96 * math.log(2)) + math.log2(255)
  np.testing.assert_allclose(policy.describe(scored)["bits_per_dim"][:, 0], bits, rtol=1e-5)
  described = policy.describe(score(params, inputs, {"image": clean}))
  cooler = sum(stats.norm.logpdf(z, scale=TEMPERATURE).sum((1, 2, 3, 4)) for z in latents.z)
  cooler = cooler + sum(np.asarray(x).sum((1, 2, 3)) for x in latents.log_det)
  want = -cooler / (96 * math.log(2)) + math.log2(255)
  np.testing.assert_allclose(described["sample_bits_per_dim"][:, 0], want, rtol=1e-5)

  def imitation(params):
    return losses.imitation(policy.score(params, inputs, clean))

  def plain(params):
    latents = network.encode(params, network.see(params, inputs["image"]), clean)
    squares = sum(jnp.sum(z**2) for z in latents.z)
    return (0.5 * squares - sum(jnp.sum(x) for x in latents.log_det)) / (2 * 6)

  found, want = (flat(jax.jit(jax.grad(loss))(params)) for loss in (imitation, plain))
  np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-3)


def test_pictures_are_dequantized_where_a_key_is_given(small):
  _, params, inputs, sampled, score = small
  picture = sampled.actions["image"][:, :1]
  plain = score(params, inputs, picture).log_prob
  keyed = [score(params, inputs, picture, jax.random.key(k)).log_prob for k in (0, 1)]
  assert np.abs(keyed[0] - keyed[1]).max() > 1e-4 and np.abs(keyed[0] - plain).max() > 1e-4
  drawn = {"image": picture}
  np.testing.assert_array_equal(
    score(params, inputs, drawn).log_prob, score(params, inputs, drawn, jax.random.key(0)).log_prob
  )
  exact, *_ = made(TWO_LEVELS, dequantize=False)
  unmoved = jax.jit(exact.score)(params, inputs, picture, jax.random.key(0)).log_prob
  np.testing.assert_allclose(unmoved, plain, rtol=1e-6)


def test_settings_that_cannot_be():
  with pytest.raises(UsageError, match=r"args\.block is 6; it must be a multiple of 4"):
    made(TWO_LEVELS, block=6)
  with pytest.raises(UsageError, match=r"args\.temperature is 0\.0; it must be above 0"):
    made(TWO_LEVELS, temperature=0.0)
  policy, params, _ = made(TWO_LEVELS)
  with pytest.raises(UsageError, match=r"pictures of 6 x 4 pixels: .* multiples of 4"):
    jax.eval_shape(lambda: policy.sample(params, inputs_of(3, 2), jax.random.key(0), 2))
  with pytest.raises(UsageError, match="must return a Flow"):
    flow(Image(8, 8, 1), network={"fn": "rtune.models.rdunet:rdunet"})


def test_first_parameters_restore_the_enlarged_picture():
  """Without a statistic of any batch: the flow starts near bicubic enlargement."""
  policy, _, inputs = made(TWO_LEVELS, low=(4, 6))
  params = jit_once(policy.init)(jax.random.key(0), inputs)
  best = jax.jit(policy.best)(params, inputs)["image"]
  want = jax.image.resize(inputs["image"], (2, 8, 12, 1), "cubic")
  np.testing.assert_allclose(best, want, atol=1e-5)
