"""Objects at places of a grid: samples, their score and the best answer are of one distribution.

Dimension key:
  B: batch of images
  S: samples for each image
  T: places
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rtune.config.names import resolve
from rtune.errors import UsageError
from rtune.models.sizes import Encoder
from rtune.policies.places import places
from rtune.policies.space import Places

pytestmark = pytest.mark.usefixtures("quick_compiles")

TOY = pathlib.Path(__file__).with_name("picture_toy.py")
ADVANTAGES, all_optimizations, assert_mean, flat, gradients, random_params = (
  resolve(f"{TOY}:{name}")
  for name in (
    "ADVANTAGES",
    "all_optimizations",
    "assert_mean",
    "flat",
    "gradients",
    "random_params",
  )
)
SPACE = Places(2, 2, 3)
SIZES = Encoder(patch_size=4, width=8, depth=1, num_heads=2, mlp_dim=8)


def tiny(**changes):
  policy = places(SPACE, **{"encoder": SIZES, "head_width": 8, "head_depth": 1, **changes})
  images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8))
  params = random_params(policy, images)
  params["head"]["present"]["bias"] += 4.0  # as often something as nothing
  return policy, params, images


@pytest.fixture(scope="module")
def drawn():
  policy, params, images = tiny()
  sampled = jax.jit(policy.sample, static_argnums=3)(params, images, jax.random.key(5), 20_000)
  return policy, params, images, sampled, jax.jit(policy.score)(params, images, sampled.actions)


def probability(scored):
  return np.asarray(jax.nn.sigmoid(scored.outputs["present"]), np.float64)[:, 0]


def test_samples_follow_their_score(drawn):
  _, _, _, sampled, scored = drawn
  np.testing.assert_allclose(scored.log_prob, sampled.log_prob, atol=1e-4)
  present, label, box = (np.asarray(sampled.actions[k]) for k in ("present", "label", "box"))
  number, wanted = present.shape[1], probability(scored)
  assert wanted.min() > 0.05 and wanted.max() < 0.95 and np.ptp(wanted) > 0.1
  error = np.sqrt(wanted * (1 - wanted) / number)
  assert np.all(np.abs(present.mean(axis=1) - wanted) < 5 * error)
  shares = np.asarray(jax.nn.softmax(scored.outputs["label"]), np.float64)[:, 0]
  for image, place in np.ndindex(2, 4):
    counts = np.bincount(label[image, :, place], minlength=3)
    expected = number * shares[image, place] / shares[image, place].sum()
    assert stats.chisquare(counts, expected, sum_check=False).pvalue > 1e-4
  mean, scale = (np.asarray(x, np.float64) for x in scored.outputs["box"])
  noise = (box - mean) / scale
  assert stats.kstest(noise[:, ::50].ravel(), "norm").pvalue > 1e-4
  # Whether, class and box are drawn apart.
  together = np.corrcoef(np.stack([present, label, *np.moveaxis(noise, -1, 0)]).reshape(6, -1))
  assert np.abs(together - np.eye(6)).max() < 0.02


def test_the_score_is_of_all_that_is_said_of_a_place(drawn):
  _, _, _, sampled, scored = drawn
  share = probability(scored)[:, None]
  present, label, box = (np.asarray(sampled.actions[k]) for k in ("present", "label", "box"))
  log_shares = np.log(np.asarray(jax.nn.softmax(scored.outputs["label"]), np.float64))
  of_label = np.take_along_axis(
    np.broadcast_to(log_shares, (*label.shape, 3)), label[..., None], axis=-1
  )[..., 0]
  mean, scale = (np.asarray(x, np.float64) for x in scored.outputs["box"])
  of_box = stats.norm.logpdf(box, mean, scale).sum(axis=-1)
  wanted = np.where(present, np.log(share) + of_label + of_box, np.log(1 - share))
  np.testing.assert_allclose(sampled.log_prob, wanted, atol=1e-3)


def test_entropy_is_the_mean_of_what_samples_are_worth(drawn):
  policy, _, _, sampled, scored = drawn
  log_prob = np.asarray(sampled.log_prob, np.float64)
  error = log_prob.std(axis=1) / np.sqrt(log_prob.shape[1])
  assert np.all(np.abs(-log_prob.mean(axis=1) - policy.entropy(scored)[:, 0]) < 5 * error + 1e-4)


def test_divergence_is_the_mean_difference_of_log_probabilities(drawn):
  policy, params, images, sampled, scored = drawn
  other = jax.tree.map(lambda x: x * 0.8, params)
  reference = jax.jit(policy.score)(other, images, sampled.actions)
  apart = np.asarray(sampled.log_prob, np.float64) - reference.log_prob
  error = apart.std(axis=1) / np.sqrt(apart.shape[1])
  kl = policy.divergence(scored, reference)[:, 0]
  assert np.all(np.abs(apart.mean(axis=1) - kl) < 5 * error + 1e-4) and kl.min() > 0
  np.testing.assert_allclose(policy.divergence(scored, scored), 0, atol=1e-5)


@pytest.mark.parametrize("samples", [4, 8])
def test_compiled_samples_are_those_of_plain_operations(samples):
  policy, params, images = tiny()

  def draw(params, images, key):
    return policy.sample(params, images, key, samples)

  with all_optimizations():
    compiled = jax.jit(draw)(params, images, jax.random.key(3))
  plain = draw(params, images, jax.random.key(3))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), compiled, plain)
  boxes = np.asarray(compiled.actions["box"])
  assert all(len(np.unique(of_image.round(5), axis=0)) == samples for of_image in boxes)


def judge(actions, images):
  """What each place earned: something where there is an object, less for later classes."""
  del images
  apart = (actions["box"][..., 0] - 0.3) ** 2
  worth = 1.0 - apart - 0.5 * actions["label"].astype(jnp.float32)
  return jnp.where(actions["present"], worth, 0.0)


@pytest.fixture(scope="module")
def measured():
  policy, params, images = tiny(scale=0.4)

  def expected(params):
    none = policy.best(params, images)
    outputs = policy.score(params, images, jax.tree.map(lambda x: x[:, None], none)).outputs
    shares = jax.nn.softmax(outputs["label"])
    mean, scale = (x[..., 0] for x in outputs["box"])
    worth = 1 - ((mean - 0.3) ** 2 + scale**2) - 0.5 * (shares[..., 1] + 2 * shares[..., 2])
    return jnp.sum(jax.nn.sigmoid(outputs["present"]) * worth) / (2 * 4)

  rows = gradients(policy, params, images, judge, copies=16, steps=64)
  return rows, -flat(jax.jit(jax.grad(expected))(params))


@pytest.mark.parametrize("advantage", ADVANTAGES)
@pytest.mark.parametrize("kind", ["whole", "credit"])
def test_gradient_of_the_expected_reward(measured, kind, advantage):
  rows, exact = measured
  shrink = 1 - 1 / 4 if advantage == "group_mean" else 1
  assert_mean(rows[kind, advantage], shrink * exact, 0.2)


def test_best_is_what_is_likely_enough(drawn):
  policy, params, images, _, scored = drawn
  best = jax.jit(policy.best)(params, images)
  np.testing.assert_array_equal(best["present"], probability(scored) >= 0.5)
  np.testing.assert_array_equal(best["label"], scored.outputs["label"][:, 0].argmax(-1))
  np.testing.assert_array_equal(best["box"], scored.outputs["box"].mean[:, 0])
  doubtful = tiny(at_least=0.01)[0].best(params, images)
  assert np.asarray(doubtful["present"]).all()


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"at_least": 0.0}, "at_least is 0.0"),
    ({"scale": -1.0}, "scale is -1.0"),
    ({"head_depth": 0}, "head_depth is 0"),
    ({"encoder": Encoder(patch_size=2, width=8, num_heads=2)}, "config.task.args.place"),
  ],
)
def test_what_does_not_fit_is_named(changes, said):
  with pytest.raises(UsageError, match=said):
    tiny(**changes)
