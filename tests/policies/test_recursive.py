"""Passes of a recursive restorer: samples, their score, what is done to patches, imitation.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  K: passes
  R, Q: rows and columns of patches
  T: decisions
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
from rtune.models.patch_autoencoder import patch_autoencoder
from rtune.policies import patch_passes
from rtune.policies.recursive import recursive
from rtune.policies.space import Image

pytestmark = pytest.mark.usefixtures("quick_compiles")

TOY = pathlib.Path(__file__).with_name("picture_toy.py")
ADVANTAGES, assert_compiled_as_plain, assert_mean, flat, gradients, inputs_of, random_params = (
  resolve(f"{TOY}:{name}")
  for name in (
    *("ADVANTAGES", "assert_compiled_as_plain", "assert_mean", "flat", "gradients", "inputs_of"),
    "random_params",
  )
)
TINY = {
  "passes": 2,
  "reach": 1.0,
  "noise": 0.3,
  "side": 8,
  "overlap": 2,
  "latent": 3,
  "width": 5,
  "agent_width": 4,
}


def tiny(channels=1, height=13, width=10, **changes):
  policy = recursive(Image(height, width, channels), **TINY | changes)
  inputs = inputs_of(height, width, channels=channels)
  return policy, random_params(policy, inputs), inputs


def drawn(policy, params, inputs, samples=4, seed=5):
  return jit_once(lambda p, i, k: policy.sample(p, i, k, samples))(
    params, inputs, jax.random.key(seed)
  )


@pytest.mark.parametrize(
  "changes",
  [
    {},
    *(
      pytest.param(changes, marks=pytest.mark.slow)
      for changes in (
        {"learn_noise": True},
        {"acts_on": "multipliers"},
        {"done_at": 0.05, "noise": 2.0},
      )
    ),
  ],
  ids=str,
)
def test_score_of_samples_is_their_log_prob(changes):
  policy, params, inputs = tiny(**changes)
  sampled = drawn(policy, params, inputs)
  scored = jit_once(policy.score)(params, inputs, sampled.actions)
  assert sampled.log_prob.shape == scored.mask.shape == (2, 4, 2 * 2 * 2)
  assert sampled.actions["passes"].shape == (2, 4, 2, 13, 10, 1)
  np.testing.assert_allclose(scored.log_prob, sampled.log_prob, atol=2e-5)
  np.testing.assert_array_equal(sampled.actions["image"], sampled.actions["passes"][:, :, -1])
  assert set(policy.describe(scored)) == {"done", "choice_noise"}
  if "done_at" in changes:
    assert 0 < np.asarray(scored.mask).mean() < 1
    np.testing.assert_array_equal(np.asarray(sampled.log_prob)[scored.mask == 0], 0)


@pytest.mark.parametrize("samples", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_compiled_samples_are_those_of_plain_operations(samples):
  policy, params, inputs = tiny(height=8)
  assert_compiled_as_plain(policy, params, inputs, samples, precision=1e-4)


@pytest.mark.parametrize("antithetic", [False, True])
def test_samples_follow_their_score(antithetic):
  policy, params, inputs = tiny(antithetic=antithetic, learn_noise=True, done_at=2.0)
  sampled = drawn(policy, params, inputs, samples=501)
  at = jit_once(policy.score)(params, inputs, sampled.actions).outputs["choices"]
  choices = sampled.actions["choices"].reshape(at.mean.shape)
  noise = np.asarray((choices - at.mean) / at.scale, np.float64)
  assert stats.kstest(noise[:, ::2].ravel(), "norm").pvalue > 1e-4
  if antithetic:
    np.testing.assert_allclose(noise[:, 0:-1:2], -noise[:, 1::2], atol=1e-3)
  choices = np.asarray(choices, np.float64)
  slope = np.log(4) - 2 * np.logaddexp(choices, -choices)  # 1 / cosh(u) ** 2
  want = stats.norm.logpdf(noise) - np.log(np.asarray(at.scale, np.float64)) - slope
  want = want.sum(-1)
  found = np.asarray(sampled.log_prob)
  np.testing.assert_allclose(found, want, atol=0.02)


def test_at_first_the_agent_does_what_the_autoencoder_does():
  policy = recursive(Image(13, 10, 1), **TINY)
  inputs = inputs_of(13, 10)
  params = random_params(policy, inputs)
  params["actor"]["out"] = jax.tree.map(jnp.zeros_like, params["actor"]["out"])
  best = jit_once(policy.best)(params, inputs)
  setting = patch_passes.Setting(8, 2, 1.0, False, 0.9)
  model = patch_autoencoder(1, 64, latent=3, width=5)
  image = inputs["image"]
  for number in range(2):
    patches = patch_passes.patches_of(setting, image)
    latents = model.encode(params["autoencoder"], patches).mean
    made = model.decode(params["autoencoder"], model.transform(params["autoencoder"], latents))
    image = patch_passes.picture_of(setting, made, 13, 10)
    np.testing.assert_allclose(best["passes"][:, number], image, atol=1e-5)
  np.testing.assert_array_equal(best["choices"], np.zeros((2, 2, 2, 2, 2)))
  np.testing.assert_array_equal(best["numbers"][..., 0], np.ones((2, 2, 2, 2)))


def test_best_is_the_mode():
  policy, params, inputs = tiny()
  best = jit_once(policy.best)(params, inputs)
  scored = jit_once(policy.score)(params, inputs, jax.tree.map(lambda x: x[:, None], best))
  at = scored.outputs["choices"]
  np.testing.assert_allclose(best["choices"].reshape(at.mean.shape), at.mean, atol=1e-5)


def test_a_patch_that_is_done_stays_and_its_decisions_no_longer_count():
  """One patch alone, so that no neighbor blends into it."""
  policy, params, inputs = tiny(height=8, width=8, passes=3, noise=2.0, done_at=0.6)
  sampled = drawn(policy, params, inputs, samples=40)
  mask = np.asarray(jit_once(policy.score)(params, inputs, sampled.actions).mask)
  passes, numbers = (np.asarray(sampled.actions[name]) for name in ("passes", "numbers"))
  mix = numbers[:, :, :, 0, 0, 1]
  ended = np.maximum.accumulate(mix > 0.6, axis=2)
  np.testing.assert_array_equal(mask, np.concatenate([np.ones((2, 40, 1)), ~ended[:, :, :-1]], 2))
  assert 0.1 < ended.mean() < 0.9
  before = np.concatenate(
    [np.broadcast_to(inputs["image"][:, None, None], passes[:, :, :1].shape), passes[:, :, :-1]], 2
  )
  np.testing.assert_allclose(passes[ended], before[ended], atol=1e-6)
  assert np.abs(passes[~ended] - before[~ended]).max(axis=(1, 2, 3)).min() > 1e-3


def test_tuning_changes_the_agent_alone():
  policy, params, inputs = tiny()
  actions = drawn(policy, params, inputs).actions
  grads = jit_once(jax.grad(lambda p: policy.score(p, inputs, actions).log_prob.sum()))(params)
  assert not flat(grads["autoencoder"]).any()
  assert flat(grads["actor"]).any()


def test_the_published_multipliers_hardly_change_a_picture():
  policy, params, inputs = tiny(acts_on="multipliers", reach=0.001, noise=1.0)
  pictures = np.asarray(drawn(policy, params, inputs).actions["image"])
  best = np.asarray(jit_once(policy.best)(params, inputs)["image"])
  assert 0 < np.abs(pictures - best[:, None]).max() < 0.05


@pytest.mark.parametrize("changes", [{}, {"imitated_passes": 2}, {"groups": 4}], ids=str)
def test_imitation_has_gradients_for_all_but_the_agent(changes):
  policy, params, inputs = tiny(**changes)
  clean = 1 - inputs["image"][:, None]

  def loss(params):
    scored = policy.score(params, inputs, clean, jax.random.key(1))
    return -scored.log_prob.sum(), scored

  grads, scored = jit_once(jax.grad(loss, has_aux=True))(params)
  for name, leaf in grads["autoencoder"].items():
    assert flat(leaf).any(), name
  assert not flat(grads["actor"]).any()
  terms = policy.describe(scored)
  assert set(terms) >= {"reconstruction", "restoration", "latent_kl", "matching"}
  assert ("grouping" in terms) == ("groups" in changes)
  total = sum(np.asarray(scored.outputs["terms"][name]) for name in terms)
  np.testing.assert_allclose(scored.log_prob, total, rtol=1e-5)
  assert policy.entropy(scored).shape == scored.log_prob.shape


def test_groups_say_how_far_latents_are_from_clean_ones():
  policy, params, inputs = tiny(groups=4)
  actions = drawn(policy, params, inputs, samples=2).actions
  model = patch_autoencoder(1, 64, latent=3, width=5, groups=4)
  setting = patch_passes.Setting(8, 2, 1.0, False, 0.9)
  centers = np.asarray(params["autoencoder"]["centers"])[0]
  before = jnp.concatenate([inputs["image"][:, None], actions["passes"][:, 0]], axis=1)
  assert actions["distance"].shape == (2, 2, 3, 2, 2)
  for number in range(3):
    patches = patch_passes.patches_of(setting, before[:, number])
    latents = np.asarray(model.encode(params["autoencoder"], patches).mean)
    apart = ((latents - centers) ** 2).mean(-1)  # one channel stands where centers do
    np.testing.assert_allclose(actions["distance"][:, 0, number], apart.min(-1), rtol=1e-3)


def test_the_matching_of_latents_teaches_the_transform_alone():
  policy, params, inputs = tiny()
  clean = 1 - inputs["image"][:, None]

  def matching(params):
    return policy.score(params, inputs, clean).outputs["terms"]["matching"].sum()

  grads = jit_once(jax.grad(matching))(params)["autoencoder"]
  moved = {name for name, leaf in grads.items() if flat(leaf).any()}
  assert "transform_layers_2" in moved
  assert moved <= {f"transform_layers_{number}" for number in range(3)}


def test_color_is_turned_to_yuv_and_back():
  image = inputs_of(13, 10, channels=3)["image"]
  setting = patch_passes.Setting(8, 2, 1.0, False, 0.9)
  patches = patch_passes.patches_of(setting, image)
  np.testing.assert_allclose(patch_passes.picture_of(setting, patches, 13, 10), image, atol=2e-6)
  from skimage.color import rgb2yuv

  want = rgb2yuv(np.asarray(image, np.float64))[:, :8, :8]
  found = np.asarray(patches)[:, 0, 0].reshape(2, 3, 8, 8).transpose(0, 2, 3, 1)
  np.testing.assert_allclose(found, want, atol=1e-5)


def test_the_noise_estimate_is_the_deviation_of_white_noise():
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:256, :256]
  image = 0.2 + 0.001 * y + 0.001 * x + 0.1 * rng.standard_normal((256, 256))
  found = patch_passes.noise(jnp.asarray(image, jnp.float32).reshape(1, 1, 1, 1, -1), 256)
  assert float(found[0, 0, 0, 0]) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize(
  ("setting", "value", "message"),
  [
    ("passes", 0, "passes is 0; it must be at least 1"),
    ("overlap", 9, "overlap is 9; it must be at most half of config.policy.args.side, 16"),
    ("acts_on", "weights", "acts_on is 'weights'; it must be one of"),
    ("noise", 0.0, "noise is 0.0; it must be above 0"),
  ],
)
def test_wrong_settings_are_named(setting, value, message):
  with pytest.raises(UsageError, match=message):
    recursive(Image(16, 16, 1), **{setting: value})


@pytest.fixture(scope="module")
def measured():
  """Gradients of many steps, and of the expectation over choices, by quadrature: of one patch."""
  policy, params, inputs = tiny(
    height=8, width=8, passes=1, antithetic=False, learn_noise=True, done_at=1.0
  )
  control = policy.control
  nodes, weights = np.polynomial.hermite_e.hermegauss(15)
  both = jnp.asarray(np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2), jnp.float32)
  weight = jnp.asarray(np.outer(weights, weights).ravel() / weights.sum() ** 2, jnp.float32)

  def judge(actions, inputs):
    apart = (actions["image"] - (1 - inputs["image"])[:, None]) ** 2
    return -apart.mean((2, 3, 4))[..., None]

  def loss(params):
    best = jax.tree.map(lambda x: x[:, None], policy.best(params, inputs))
    at = jax.lax.stop_gradient(policy.score(params, inputs, best).outputs["choices"])
    choices = at.mean + at.scale * both[None, :, None]
    actions = control.play(params, inputs, choices)
    earned = jax.lax.stop_gradient(judge(actions, inputs))
    log_prob = policy.score(params, inputs, actions).log_prob
    return -jnp.mean(jnp.sum(weight[None, :, None] * earned * log_prob, axis=1))

  return gradients(policy, params, inputs, judge), flat(jit_once(jax.grad(loss))(params))


@pytest.mark.slow
@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_gradient_of_the_expected_reward(measured, advantage):
  rows, exact = measured
  want = (0.75 if advantage == "group_mean" else 1) * exact
  assert_mean(rows["credit", advantage], want, 0.3 if advantage == "none" else 0.12)
