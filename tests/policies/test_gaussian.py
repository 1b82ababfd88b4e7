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
# How the scale is had: learned as one number, said of each pixel, as it was set.
KINDS = ("learned", "by_pixel", "fixed")


def settings_of(kind: str):
  if kind == "fixed":
    return {"likelihood": "laplace"}
  return {"by_pixel": kind == "by_pixel"}


def tiny(kind: str, **changes):
  given = {"network": POINTWISE, "block": 2, "width": 4, "scale": 0.3} | changes
  policy = gaussian(Image(4, 4, 1), **settings_of(kind), **given)
  inputs = inputs_of(4, 4)
  return policy, random_params(policy, inputs), inputs


def target(inputs):
  return 1 - inputs["image"]


def judge(actions, inputs):
  """Minus the squared error of each block."""
  apart = (actions["image"] - target(inputs)[:, None])[..., 0] ** 2
  batch, samples = apart.shape[:2]
  return -apart.reshape(batch, samples, 2, 2, 2, 2).sum((3, 5)).reshape(batch, samples, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_follow_their_score(kind):
  policy, params, inputs = tiny(kind)
  sampled = jax.jit(policy.sample, static_argnums=3)(params, inputs, jax.random.key(5), 4000)
  scored = jax.jit(policy.score)(params, inputs, sampled.actions)
  mean, scale = (np.asarray(x, np.float64) for x in scored.outputs["drawn"])
  assert len(np.unique(scale.round(4))) == (32 if kind == "by_pixel" else 1)
  noise = (np.asarray(sampled.actions["image"]) - mean) / scale
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


@pytest.mark.parametrize(
  ("samples", "kind"), [(4, "by_pixel"), (8, "by_pixel"), (8, "learned"), (8, "fixed")]
)
def test_compiled_samples_are_those_of_plain_operations(samples, kind):
  mirrored = {"antithetic": True} if kind == "fixed" else {}
  policy = gaussian(Image(12, 10, 3), network=POINTWISE, width=4, **settings_of(kind), **mirrored)
  inputs = inputs_of(12, 10, channels=3)
  params = random_params(policy, inputs)
  assert_compiled_as_plain(policy, params, inputs, samples)


@pytest.mark.parametrize("kind", KINDS)
def test_best_is_the_mode(kind):
  policy, params, inputs = tiny(kind)
  best = policy.best(params, inputs)["image"]

  def density(picture):
    return policy.score(params, inputs, {"image": picture[:, None]}).log_prob.sum()

  np.testing.assert_allclose(jax.jit(jax.grad(density))(best), 0, atol=1e-5)
  sampled = policy.sample(params, inputs, jax.random.key(1), 100)
  assert np.all(density(best) / 2 > sampled.log_prob.sum(-1).mean(1))


@pytest.fixture(scope="module")
def measured():
  """By kind of scale: gradients of many steps, and minus that of the expected reward over T."""
  found = {}
  for kind in KINDS:
    policy, params, inputs = tiny(kind)

    def expected(params, policy=policy, inputs=inputs):
      given = {"image": target(inputs)[:, None]}
      mean, scale = policy.score(params, inputs, given).outputs["drawn"]
      apart = mean[:, 0] - target(inputs)
      return -(jnp.sum(apart**2) + jnp.sum(scale**2)) / (2 * 4)

    rows = gradients(policy, params, inputs, judge)
    found[kind] = rows, -flat(jax.jit(jax.grad(expected))(params))
  return found


@pytest.mark.parametrize("advantage", ADVANTAGES)
@pytest.mark.parametrize("of", ["whole", "credit"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_expected_reward(measured, kind, of, advantage):
  rows, exact = measured[kind]
  shrink = 1 - 1 / 4 if advantage == "group_mean" else 1
  # Without a baseline the rewards' own level is noise.
  assert_mean(rows[of, advantage], shrink * exact, 0.2 if advantage == "none" else 0.08)


def test_imitation_is_least_squares_and_the_scale_becomes_that_of_the_errors():
  policy, params, inputs = tiny("learned")
  clean = target(inputs)
  network = resolve(f"{TOY}:pointwise")(1)

  def imitation(params):
    return losses.imitation(policy.score(params, inputs, clean[:, None]))

  def squares(params):
    found = network.apply(params["restorer"], inputs["image"], inputs["sigma"]).image
    return jnp.mean((found - clean) ** 2)

  scale = policy.score(params, inputs, clean[:, None]).outputs["drawn"].scale.ravel()[0]
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


def test_imitation_may_be_least_absolutes():
  """L1 of each pixel, with the entropy and KL of Laplace; the scale of samples stays as it is."""
  policy, params, inputs = tiny("fixed")
  clean = target(inputs)
  assert list(params) == ["restorer"]
  scored = policy.score(params, inputs, clean[:, None])
  mean = policy.best(params, inputs)["image"]
  want = stats.laplace.logpdf(clean, loc=mean).reshape(2, 1, 16)
  np.testing.assert_allclose(scored.log_prob, want, rtol=1e-5)
  np.testing.assert_allclose(policy.entropy(scored), 1 + np.log(2), rtol=1e-6)
  other = policy.score(random_params(policy, inputs, seed=1), inputs, clean[:, None])
  apart = np.abs(np.asarray(scored.outputs["imitated"].mean - other.outputs["imitated"].mean))
  want = (np.exp(-apart) + apart - 1).reshape(2, 1, 16)
  np.testing.assert_allclose(policy.divergence(scored, other), want, rtol=1e-4, atol=1e-6)
  assert policy.describe(scored) == {}


@pytest.mark.parametrize("samples", [4, 5])
def test_samples_in_mirrored_pairs(samples):
  policy, params, inputs = tiny("fixed", antithetic=True)
  drawn = policy.sample(params, inputs, jax.random.key(3), samples).actions["image"]
  noise = np.asarray(drawn - policy.best(params, inputs)["image"][:, None])
  np.testing.assert_allclose(noise[:, :4:2], -noise[:, 1:4:2], atol=1e-6)
  assert np.abs(noise[:, 0] - noise[:, 2]).min() > 0
  assert np.abs(noise).std() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_and_divergence(kind):
  policy, params, inputs = tiny(kind)
  other = random_params(policy, inputs, seed=1)
  actions = policy.sample(params, inputs, jax.random.key(5), 3).actions
  scored, reference = (policy.score(p, inputs, actions) for p in (params, other))
  (m, s), (n, r) = (
    [np.broadcast_to(np.asarray(x, np.float64), (2, 1, 4, 4, 1)) for x in one.outputs["drawn"]]
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
  policy = gaussian(Image(0, 0, 3), network=RDUNET, block=8, by_pixel=True, width=4)
  inputs = inputs_of(11, 17, channels=3)
  params = jit_once(policy.init)(jax.random.key(0), inputs)
  sampled = jit_once(lambda *given: policy.sample(*given, 2))(params, inputs, jax.random.key(0))
  assert sampled.actions["image"].shape == (2, 2, 11, 17, 3)
  assert sampled.log_prob.shape == (2, 2, 2 * 3)
  values = jnp.ones((1, 1, 11, 17))
  np.testing.assert_array_equal(by_block(values, 8)[0, 0], [64, 64, 8, 24, 24, 3])
  np.testing.assert_array_equal(by_block(values, 1), np.ones((1, 1, 11 * 17)))


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ({"block": 0}, "args.block is 0; it must be at least 1"),
    ({"scale": 0.001}, "args.scale is 0.001; it must be above 0.002"),
    ({"likelihood": "laplace", "by_pixel": True}, "set config.policy.args.likelihood='normal'"),
    ({"likelihood": "l1"}, "must be one of ('normal', 'laplace')"),
    ({"network": {"fn": "rtune.models.unet:unet"}}, "must return a Restorer of"),
  ],
)
def test_settings_that_cannot_be(args, message):
  with pytest.raises(UsageError) as error:
    gaussian(Image(8, 8, 1), **args)
  assert message in str(error.value)
