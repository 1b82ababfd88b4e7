"""Gains of detail: what is sampled, its score, its gradients, and the picture that is made.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  T: blocks
  K: bands
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
from rtune.policies import detail, heads
from rtune.policies.gains import gains
from rtune.policies.laplace import laplace
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
SPACE = Image(4, 4, 1)
TINY = {"network": POINTWISE, "block": 2, "bands": 2, "between": "nearest", "width": 4}


def tiny(**changes):
  policy = gains(SPACE, **TINY | changes)
  inputs = inputs_of(4, 4)
  return policy, random_params(policy, inputs), inputs


def target(inputs):
  return 1 - inputs["image"]


def judge(actions, inputs):
  """Minus the squared error of each block."""
  apart = (actions["image"] - target(inputs)[:, None]) ** 2
  batch, samples = apart.shape[:2]
  return -apart.reshape(batch, samples, 2, 2, 2, 2).sum((3, 5)).reshape(batch, samples, 4)


def exact_gradients(policy, params, inputs):
  """Minus that of the expected reward over T: of the mean picture, and of the spread around it."""

  def expected(params):
    best = policy.best(params, inputs)
    scored = policy.score(params, inputs, jax.tree.map(lambda x: x[:, None], best))
    variance = scored.outputs["gains"].scale[:, 0] ** 2
    per_pixel = jnp.repeat(jnp.repeat(variance, 2, axis=1), 2, axis=2)
    change = policy_restored(params, inputs) - inputs["image"]
    bands = jnp.stack(detail.split(jax.lax.stop_gradient(change), 1), axis=-1)[:, :, :, 0]
    error = (best["image"] - target(inputs)) ** 2
    return -(error.sum() + jnp.sum(per_pixel * bands**2)) / len(variance)

  return jax.tree.map(lambda x: -x / 4, jax.jit(jax.grad(expected))(params))


def policy_restored(params, inputs):
  network = resolve(f"{TOY}:pointwise")(1)
  return network.apply(params["restorer"], inputs["image"], inputs["sigma"]).image


@pytest.mark.parametrize("antithetic", [False, True])
def test_samples_follow_their_score(antithetic):
  policy, params, inputs = tiny(antithetic=antithetic, learn_noise=True)
  number = 4001
  sampled = jax.jit(policy.sample, static_argnums=3)(params, inputs, jax.random.key(5), number)
  at = jax.jit(policy.score)(params, inputs, sampled.actions).outputs["gains"]
  noise = np.asarray((sampled.actions["gains"] - at.mean) / at.scale, np.float64)
  rows = np.concatenate([*noise.reshape(2, number, 8)])
  if antithetic:
    np.testing.assert_allclose(noise[:, 0:-1:2], -noise[:, 1::2], atol=1e-4)
    rows = np.concatenate([*noise[:, ::2].reshape(2, -1, 8)])
  else:
    assert np.all(np.abs(rows.mean(0)) < 5 / np.sqrt(len(rows)))
  covariance = rows.T @ rows / len(rows)
  assert np.all(np.abs(covariance - np.eye(8)) < 5 * np.sqrt((1 + np.eye(8)) / len(rows)))
  assert stats.kstest(rows.ravel(), "norm").pvalue > 1e-4
  want = stats.norm.logpdf(noise) - np.log(np.asarray(at.scale, np.float64))
  want = want.sum(-1).reshape(2, number, 4)
  np.testing.assert_allclose(sampled.log_prob, want, atol=1e-3)


def test_score_of_samples_is_their_log_prob():
  policy, params, inputs = tiny()
  sampled = jax.jit(policy.sample, static_argnums=3)(params, inputs, jax.random.key(5), 5)
  scored = jax.jit(policy.score)(params, inputs, sampled.actions)
  assert sampled.log_prob.shape == scored.mask.shape == (2, 5, 4)
  assert sampled.actions["gains"].shape == (2, 5, 2, 2, 2)
  assert sampled.actions["image"].shape == (2, 5, 4, 4, 1)
  np.testing.assert_allclose(scored.log_prob, sampled.log_prob, atol=1e-5)
  described = policy.describe(scored)
  assert set(described) == {"gain_0", "gain_1", "gain_noise"}
  np.testing.assert_allclose(described["gain_noise"], np.full((2, 5), 0.5), rtol=1e-6)


@pytest.mark.parametrize(("samples", "of"), [(4, "change"), (8, "change"), (4, "restored")])
def test_compiled_samples_are_those_of_plain_operations(samples, of):
  """Jax 0.10.2 on CPU gave some samples the pictures of others; see `detail.scaled`."""
  policy = gains(Image(12, 10, 3), network=POINTWISE, of=of, block=4, width=4)
  inputs = inputs_of(12, 10, channels=3)
  params = random_params(policy, inputs)
  assert_compiled_as_plain(policy, params, inputs, samples)


def test_best_is_the_mode_and_at_first_what_the_network_restores():
  policy, params, inputs = tiny()
  best = policy.best(params, inputs)
  draws = jax.tree.map(lambda x: x[:, None], best)

  def density(gains):
    return policy.score(params, inputs, draws | {"gains": gains}).log_prob.sum()

  np.testing.assert_allclose(jax.jit(jax.grad(density))(draws["gains"]), 0, atol=1e-5)
  assert np.abs(best["gains"] - 1).max() > 0.1
  sampled = policy.sample(params, inputs, jax.random.key(1), 100)
  assert np.all(density(draws["gains"]) / 2 > sampled.log_prob.sum(-1))
  first = params | {"head": jax.tree.map(jnp.zeros_like, params["head"])}
  begun = policy.best(first, inputs)
  np.testing.assert_array_equal(begun["gains"], np.ones((2, 2, 2, 2)))
  np.testing.assert_allclose(begun["image"], policy_restored(params, inputs), atol=1e-6)


@pytest.fixture(scope="module")
def measured():
  """By whether samples are mirrored: gradients of many steps, and what they should be."""
  found = {}
  for antithetic in (False, True):
    policy, params, inputs = tiny(antithetic=antithetic, learn_noise=True)
    rows = gradients(policy, params, inputs, judge)
    found[antithetic] = rows, exact_gradients(policy, params, inputs)
  return found


@pytest.mark.parametrize("advantage", ADVANTAGES)
@pytest.mark.parametrize("kind", ["whole", "credit"])
@pytest.mark.parametrize("antithetic", [False, True])
def test_gradient_of_the_expected_reward(measured, antithetic, kind, advantage):
  """Mirrored siblings stretch that of means and shrink that of the noise, as the docs say."""
  rows, exact = measured[antithetic]
  samples, all_samples = 4, 4 * 2 * 32
  means, noise = {
    "leave_one_out": (1 + 1 / (samples - 1), 1 - 1 / (samples - 1)),
    "paper": (1 + 1 / (samples - 1), 1 - 1 / (samples - 1)),
    "group_mean": (1, 1 - 2 / samples),
    "batch": (1 + 1 / (all_samples - 1), 1 - 1 / (all_samples - 1)),
  }.get(advantage, (1, 1))
  if not antithetic:
    means = noise = 1 - 1 / samples if advantage == "group_mean" else 1
  head = jax.tree.map(lambda x: means * x, exact["head"])
  want = exact | {"head": head, "log_noise": noise * exact["log_noise"]}
  # Without a baseline the rewards' own level is noise.
  assert_mean(rows[kind, advantage], flat(want), 0.2 if advantage == "none" else 0.08)


def test_tuning_leaves_a_frozen_restorer_and_imitation_leaves_the_head():
  for frozen in (True, False):
    policy, params, inputs = tiny(frozen=frozen)
    sampled = jax.jit(policy.sample, static_argnums=3)(params, inputs, jax.random.key(5), 4)
    clean = target(inputs)[:, None]

    def loss(params, actions, policy=policy, inputs=inputs):
      return jnp.sum(jnp.sin(policy.score(params, inputs, actions).log_prob))

    tuned, imitated = jax.jit(
      lambda params, *actions: [jax.grad(loss)(params, x) for x in actions]
    )(params, sampled.actions, clean)
    assert np.any(flat(tuned["restorer"])) != frozen
    assert all(np.any(flat(x)) for x in tuned["head"].values())
    assert np.any(flat(imitated["restorer"])) and not np.any(flat(imitated["head"]))


@pytest.mark.parametrize("likelihood", ["laplace", "normal"])
def test_imitation_has_the_gradient_of_the_plain_loss(likelihood):
  policy, params, inputs = tiny(likelihood=likelihood, spread=0.5)
  clean = target(inputs)

  def imitation(params):
    return losses.imitation(policy.score(params, inputs, clean[:, None]))

  def plain(params):
    apart = policy_restored(params, inputs) - clean
    return jnp.mean(jnp.abs(apart)) / 0.5 if likelihood == "laplace" else 2 * jnp.mean(apart**2)

  (value, found), (least, want) = (
    jax.value_and_grad(function)(params) for function in (imitation, plain)
  )
  np.testing.assert_allclose(flat(found), flat(want), atol=1e-6)
  law = stats.laplace if likelihood == "laplace" else stats.norm
  np.testing.assert_allclose(value, least - law.logpdf(0, scale=0.5), rtol=1e-5)


@pytest.mark.parametrize("likelihood", ["laplace", "normal"])
def test_entropy_and_divergence(likelihood):
  policy, params, inputs = tiny(likelihood=likelihood, learn_noise=True)
  other = random_params(policy, inputs, seed=1)
  sampled = policy.sample(params, inputs, jax.random.key(5), 3)
  scored, reference = (policy.score(p, inputs, sampled.actions) for p in (params, other))
  at, before = scored.outputs["gains"], reference.outputs["gains"]
  want = (heads.normal.entropy(at).sum(-1), heads.normal.kl(at, before).sum(-1))
  found = policy.entropy(scored), policy.divergence(scored, reference)
  for one, other_one in zip(found, want, strict=True):
    np.testing.assert_allclose(one, np.broadcast_to(other_one.reshape(2, 1, 4), (2, 3, 4)))
  scored, reference = (policy.score(p, inputs, target(inputs)[:, None]) for p in (params, other))
  assert policy.entropy(scored).shape == scored.mask.shape == (2, 1, 16)
  law = stats.laplace if likelihood == "laplace" else stats.norm
  np.testing.assert_allclose(policy.entropy(scored), law.entropy(), rtol=1e-6)
  assert np.all(np.asarray(policy.divergence(scored, reference)) >= 0)
  np.testing.assert_allclose(policy.divergence(scored, scored), 0, atol=1e-6)
  assert policy.describe(scored) == {}


def test_laplace_is_the_known_one():
  at, other = (heads.Normal(jnp.asarray(m), jnp.asarray(s)) for m, s in ((0.2, 0.5), (-0.3, 0.8)))
  values = jax.jit(laplace.sample, static_argnums=2)(jax.random.key(0), at, 20_000)
  law, before = stats.laplace(0.2, 0.5), stats.laplace(-0.3, 0.8)
  assert stats.kstest(np.asarray(values, np.float64), law.cdf).pvalue > 1e-4
  np.testing.assert_allclose(laplace.log_prob(at, values), law.logpdf(values), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(laplace.entropy(at), law.entropy(), rtol=1e-6)
  grid = np.linspace(-20, 20, 400_001)
  kl = np.trapezoid(law.pdf(grid) * (law.logpdf(grid) - before.logpdf(grid)), grid)
  np.testing.assert_allclose(laplace.kl(at, other), kl, rtol=1e-4)
  assert laplace.mode(at) == at.mean


def test_bands_sum_to_the_picture_and_a_constant_has_no_detail():
  picture = inputs_of(9, 13, channels=3)["image"]
  split = jax.jit(detail.split, static_argnums=1)
  bands = split(picture, 3)
  assert len(bands) == 4
  np.testing.assert_allclose(sum(bands), picture, atol=1e-6)
  *fine, rest = split(jnp.full((1, 9, 13, 1), 0.7), 3)
  np.testing.assert_allclose(jnp.stack(fine), 0, atol=1e-6)
  np.testing.assert_allclose(rest, 0.7, rtol=1e-6)


def test_gains_of_a_block_change_that_block_only_where_they_do_not_blend():
  policy, params, inputs = tiny()
  sampled = jax.jit(policy.sample, static_argnums=3)(params, inputs, jax.random.key(5), 2)
  network = resolve(f"{TOY}:pointwise")(1)
  found = network.apply(params["restorer"], inputs["image"], inputs["sigma"]).image
  bands = jnp.stack(detail.split(found - inputs["image"], 1), axis=-1)
  one = sampled.actions["gains"]
  other = one.at[:, :, 0, 1].add(1.0)
  for between, reached in (("nearest", 4), ("linear", 12)):
    before, after = (detail.scaled(found, bands, x, 2, between) for x in (one, other))
    moved = np.abs(after - before).max(axis=(0, 1, 4)) > 1e-6
    assert moved[:2, 2:].all() and moved.sum() <= reached
    assert (between == "nearest") == (moved.sum() == 4)


def test_pictures_of_any_size_and_super_resolution():
  policy = gains(Image(0, 0, 3), network=RDUNET, block=8, width=4)
  inputs = inputs_of(11, 3, channels=3)
  best = jit_once(policy.best)(jit_once(policy.init)(jax.random.key(0), inputs), inputs)
  assert best["gains"].shape == (2, 2, 1, 4)
  # An RDUNet gives a picture back at first, and gains of 1 leave it.
  np.testing.assert_allclose(best["image"], inputs["image"], atol=1e-6)
  policy = gains(Image(0, 0, 1), network=POINTWISE | {"args": {"scale": 2}}, width=4)
  inputs = inputs_of(5, 6)
  params = random_params(policy, inputs)
  sampled = jax.jit(policy.sample, static_argnums=3)(params, inputs, jax.random.key(0), 3)
  assert sampled.actions["image"].shape == (2, 3, 10, 12, 1)
  assert sampled.log_prob.shape == (2, 3, 4)


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ({"block": 0}, "args.block is 0; it must be at least 1"),
    ({"noise": 0.0}, "args.noise is 0.0; it must be above 0"),
    ({"of": "all"}, "args.of is 'all'; it must be one of ('change', 'restored')"),
    ({"likelihood": "l1"}, "args.likelihood is 'l1'"),
    ({"network": {"fn": "rtune.models.unet:unet"}}, "must return a Restorer of"),
  ],
)
def test_settings_that_cannot_be(args, message):
  with pytest.raises(UsageError) as error:
    gains(SPACE, **args)
  assert message in str(error.value)


def test_constant_gains_are_one_for_all_and_four_numbers_learn():
  policy, params, inputs = tiny(head="constant")
  gains_BHWK = np.asarray(policy.best(params, inputs)["gains"])
  np.testing.assert_array_equal(gains_BHWK, np.broadcast_to(gains_BHWK[:1, :1, :1], (2, 2, 2, 2)))
  # They are not what the same parameters give that see the blocks.
  other = np.asarray(tiny()[0].best(params, inputs)["gains"])
  assert np.ptp(other, axis=(0, 1, 2)).min() > 1e-3

  def loss(params):
    return jnp.mean((policy.best(params, inputs)["image"] - target(inputs)) ** 2)

  gradient = jax.tree.map(np.abs, jax.jit(jax.grad(loss))(params))
  assert gradient["head"]["out"]["bias"].min() > 0
  assert gradient["head"]["hidden"]["kernel"].max() == 0
  assert gradient["restorer"]["kernel"].max() == 0  # frozen
