"""Losses of label maps against their definitions, and REINFORCE against its expectation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.errors import UsageError
from rtune.policies.heads import categorical
from rtune.policies.policy import Scored
from rtune.predictions.labels import IGNORE, LabelMap
from rtune.rewards.labels import miou_change
from rtune.tasks import label_losses as losses
from rtune.training.advantages import leave_one_out
from rtune.training.losses import imitation, reinforce

pytestmark = pytest.mark.usefixtures("quick_compiles")

B, H, W, C = 2, 4, 5, 4


def table(seed=0, scale=1.0):
  return scale * jax.random.normal(jax.random.key(seed), (B, H, W, C))


def scored_of(logits_BHWC, actions_BSHW=None, known_BHW=None, **outputs):
  """What a policy says that is a table of logits."""
  known_BHW = jnp.ones((B, H, W), bool) if known_BHW is None else known_BHW
  if actions_BSHW is None:
    actions_BSHW = jnp.zeros((B, 1, H, W), jnp.int32)
  samples = actions_BSHW.shape[1]
  logits_BSHWC = jnp.broadcast_to(logits_BHWC[:, None], (B, samples, H, W, C))
  log_prob = categorical.log_prob(logits_BSHWC, actions_BSHW).reshape(B, samples, -1)
  mask = jnp.broadcast_to(known_BHW[:, None], (B, samples, H, W)).reshape(B, samples, -1)
  mask = mask.astype(jnp.float32)
  return Scored(log_prob * mask, mask, {"logits": logits_BHWC[:, None], **outputs})


def truth_of(seed=0, shown=C - 1, ignored=0.2):
  """The last class is not there."""
  rng = np.random.default_rng(seed)
  labels = np.where(rng.random((B, H, W)) < ignored, IGNORE, rng.integers(0, shown, (B, H, W)))
  return LabelMap(jnp.asarray(labels, jnp.int32))


def hard(labels_BHW):
  """Logits of a policy that is sure."""
  return 200.0 * jax.nn.one_hot(labels_BHW, C)


def flat(logits_BHWC, truth):
  """Probabilities and labels of what is labeled, as float64."""
  labels = np.asarray(truth.labels).ravel()
  probability = np.asarray(jax.nn.softmax(logits_BHWC), np.float64).reshape(-1, C)
  return probability[labels != IGNORE], labels[labels != IGNORE]


def test_weighted_nll_is_imitation_where_weights_are_equal():
  truth = truth_of()
  known = truth.labels != IGNORE
  scored = scored_of(table(), jnp.maximum(truth.labels, 0)[:, None], known)
  found = losses.weighted_nll(scored, truth, class_weights=(3.0,) * C)
  np.testing.assert_allclose(found, imitation(scored), rtol=1e-6)


def test_weighted_nll_weighs_by_the_class_of_the_truth():
  truth, weights = truth_of(), np.array([0.5, 2.0, 8.0, 1.0])
  probability, labels = flat(table(), truth)
  own = weights[labels] / weights.mean()
  expected = -(own * np.log(probability[np.arange(len(labels)), labels])).sum() / (B * H * W)
  found = losses.weighted_nll(scored_of(table()), truth, class_weights=weights.tolist())
  assert float(found) == pytest.approx(expected, rel=1e-5)
  with pytest.raises(UsageError, match="2 numbers for 4 classes"):
    losses.weighted_nll(scored_of(table()), truth, class_weights=(1.0, 2.0))


def test_auxiliary_nll_is_of_the_other_head():
  truth = truth_of()
  scored = scored_of(table(), auxiliary=table(5)[:, None])
  probability, labels = flat(table(5), truth)
  expected = -np.log(probability[np.arange(len(labels)), labels]).sum() / (B * H * W)
  assert float(losses.auxiliary_nll(scored, truth)) == pytest.approx(expected, rel=1e-5)
  with pytest.raises(UsageError, match="no auxiliary head"):
    losses.auxiliary_nll(scored_of(table()), truth)


def test_soft_jaccard_is_its_definition():
  truth = truth_of()
  probability, labels = flat(table(), truth)
  terms = []
  for label in range(C - 1):
    is_class, own = labels == label, probability[:, label]
    both = (is_class * own).sum()
    terms.append(1 - both / (is_class.sum() + own.sum() - both))
  found = losses.soft_jaccard(scored_of(table()), truth)
  assert float(found) == pytest.approx(np.mean(terms), rel=1e-5)


def jaccard_loss(wrong, is_class):
  """1 - IoU where these pixels are wrong."""
  union = (is_class | wrong).sum()
  return wrong.sum() / union if union else 0.0


def lovasz_extension(errors, is_class):
  """The integral over t of the set function of {i: errors_i > t}: no sorting, no differences."""
  edges = np.unique(np.append(errors, 0.0))
  return sum(
    (upper - lower) * jaccard_loss(errors > lower, is_class)
    for lower, upper in itertools.pairwise(edges)
  )


@pytest.mark.parametrize("seed", range(3))
def test_lovasz_is_the_extension_of_the_jaccard_loss(seed):
  logits, truth = table(seed, 2.0), truth_of(seed)
  probability, labels = flat(logits, truth)
  terms = []
  for label in np.unique(labels):
    is_class = labels == label
    terms.append(lovasz_extension(np.abs(is_class - probability[:, label]), is_class))
  found = losses.lovasz(scored_of(logits), truth)
  assert float(found) == pytest.approx(np.mean(terms), rel=1e-5)


def test_gradient_of_lovasz_is_that_of_finite_differences():
  logits, truth = table(3), truth_of(3)
  loss = jax.jit(lambda logits: losses.lovasz(scored_of(logits), truth))
  gradient, step = jax.grad(loss)(logits), 1e-2
  for key in range(3):
    # Along it and a bit aside, so that the slope is more than rounding and steps of the order.
    aside = jax.random.normal(jax.random.key(key), logits.shape)
    direction = gradient / jnp.linalg.norm(gradient) + 0.05 * aside
    slope = (loss(logits + step * direction) - loss(logits - step * direction)) / (2 * step)
    assert float(jnp.vdot(gradient, direction)) == pytest.approx(float(slope), rel=1e-2)
    assert float(slope) > 0.03


@pytest.mark.parametrize("loss", [losses.soft_jaccard, losses.lovasz])
def test_of_a_sure_policy_they_are_one_minus_mean_iou_of_the_classes_there(loss):
  truth = truth_of(1)
  rng = np.random.default_rng(2)
  labels = np.where(rng.random((B, H, W)) < 0.5, np.maximum(truth.labels, 0), 1)
  known = np.asarray(truth.labels) != IGNORE
  ious = []
  for label in np.unique(truth.labels[known]):
    one, other = (labels == label) & known, np.asarray(truth.labels) == label
    ious.append((one & other).sum() / (one | other).sum())
  found = loss(scored_of(hard(jnp.asarray(labels))), truth)
  assert float(found) == pytest.approx(1 - np.mean(ious), rel=1e-4) and found > 0.1


@pytest.mark.parametrize(
  "loss",
  [
    losses.soft_jaccard,
    losses.lovasz,
    lambda *both: losses.weighted_nll(*both, class_weights=(1.0,) * C),
    lambda *both: losses.expected_credit(*both, jnp.ones((C, C))),
  ],
)
def test_unlabeled_pixels_have_no_say(loss):
  truth = truth_of(4)
  known = (truth.labels != IGNORE)[..., None]
  judge = jax.jit(jax.value_and_grad(lambda logits, truth: loss(scored_of(logits), truth)))
  value, gradient = judge(table(), truth)
  assert not np.asarray(gradient)[np.broadcast_to(~known, gradient.shape)].any()
  assert np.asarray(gradient).any()
  other, _ = judge(jnp.where(known, table(), table(7)), truth)
  np.testing.assert_allclose(other, value, rtol=1e-6)
  value, gradient = judge(table(), LabelMap(jnp.full((B, H, W), IGNORE)))
  assert float(value) == 0 and not np.asarray(gradient).any()


RUNNING = jnp.asarray(
  np.random.default_rng(5).integers(1, 40, (C, C)) + 60 * np.eye(C), jnp.float32
)
WEIGHTS = (1.0, 2.0, 0.5, 3.0)


def credit_of(labels_BSHW, truth):
  def one(labels, truth_HW):
    own = LabelMap(truth_HW)
    return miou_change(LabelMap(labels), own, running=RUNNING, class_weights=WEIGHTS)["credit"]

  over_samples = jax.vmap(one, in_axes=(0, None))
  return jax.vmap(over_samples)(labels_BSHW, truth.labels)


def test_expected_credit_is_the_sum_over_all_classes():
  truth, expected = truth_of(), 0.0
  probability = jax.nn.softmax(table())
  for label in range(C):
    labels = jnp.full((B, 1, H, W), label)
    expected += jnp.mean(probability[..., label].reshape(B, -1) * credit_of(labels, truth)[:, 0])
  found = losses.expected_credit(scored_of(table()), truth, RUNNING, class_weights=WEIGHTS)
  assert float(found) == pytest.approx(-float(expected), rel=1e-5)


def test_reinforce_estimates_the_gradient_of_expected_credit():
  """Each of 80 logits over 3,000 draws of three samples, compared as the trainer does it."""
  truth, logits = truth_of(), table()
  known = truth.labels != IGNORE

  def estimate(key):
    actions = categorical.sample(key, logits, 3).swapaxes(0, 1)
    credit = credit_of(actions, truth)
    advantages = leave_one_out(credit, jnp.ones((B, 3), bool))
    return jax.grad(lambda x: reinforce(scored_of(x, actions, known), advantages))(logits)

  estimates = np.asarray(jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), 3000)))
  exact = jax.grad(
    lambda x: losses.expected_credit(scored_of(x), truth, RUNNING, class_weights=WEIGHTS)
  )(logits)
  error = estimates.std(axis=0) / np.sqrt(len(estimates))
  off = np.abs(estimates.mean(axis=0) - exact) / np.maximum(error, 1e-9)
  assert off.max() < 4.5 and np.sqrt((off[np.asarray(known)] ** 2).mean()) < 1.2
  # The estimate is no more than a few per cent wide, so that another gradient would be seen.
  assert error.max() < 0.06 * np.abs(exact).max()
