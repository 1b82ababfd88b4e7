"""Rewards of label maps against the metrics, brute force and finite differences of mIoU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.errors import UsageError
from rtune.metrics.labels import segmentation
from rtune.predictions.labels import IGNORE, LabelMap
from rtune.rewards import labels as reward
from rtune.rewards.mark import host_options

pytestmark = pytest.mark.usefixtures("quick_compiles")

CLASSES = ("sky", "road", "car", "dog")


def maps(seed, *shape, shown=4, ignored=0.15):
  """(prediction, truth) whose classes are uneven and half right."""
  rng = np.random.default_rng(seed)
  chances = np.array([0.6, 0.25, 0.1, 0.05])[:shown]
  truth = rng.choice(shown, shape, p=chances / chances.sum())
  guesses = rng.choice(shown, shape, p=chances / chances.sum())
  predicted = np.where(rng.random(shape) < 0.6, truth, guesses)
  truth = np.where(rng.random(shape) < ignored, IGNORE, truth)
  return LabelMap(jnp.asarray(predicted, jnp.int32)), LabelMap(jnp.asarray(truth, jnp.int32))


def counts_of(prediction, truth, classes=4):
  """Float64, one pixel at a time."""
  counts = np.zeros((classes, classes))
  both = (np.ravel(one.labels).tolist() for one in (truth, prediction))
  for there, found in zip(*both, strict=True):
    if there != IGNORE:
      counts[there, found] += 1
  return counts


def dataset_miou(counts, weights=None):
  right = np.diagonal(counts)
  union = counts.sum(0) + counts.sum(1) - right
  known = union > 0
  weights = np.ones(len(counts)) if weights is None else np.asarray(weights)
  return np.average(right[known] / union[known], weights=weights[known])


def table(counts, there=None, weights=()):
  """r[g, a] of `effects`."""
  classes = len(counts)
  there = jnp.zeros(classes) if there is None else jnp.asarray(there, jnp.float32)
  gain, cost = map(np.asarray, reward.effects(jnp.asarray(counts, jnp.float32), there, weights))
  return np.where(np.eye(classes, dtype=bool), gain[:, None], -cost[None])


@pytest.mark.parametrize("weights", [(), (0.2, 1.0, 3.0, 0.5)])
def test_effects_are_the_derivative_of_mean_iou(weights):
  """For every truth and every pair of answers, by differences of a thousandth of a pixel."""
  counts = counts_of(*maps(0, 10, 40, 40))
  found, step = table(counts, weights=weights), 1e-3
  for truth in range(4):
    for one in range(4):
      for other in range(4):
        change = np.zeros((4, 4))
        change[truth, one] += step / 2
        change[truth, other] -= step / 2
        upper, lower = (dataset_miou(counts + sign * change, weights or None) for sign in (1, -1))
        derivative = (upper - lower) / step * counts.sum()
        expected = found[truth, one] - found[truth, other]
        assert derivative == pytest.approx(expected, rel=2e-5, abs=1e-6)


def test_credit_says_how_the_data_sets_mean_iou_changes_with_one_pixel():
  """Whole pixels of real maps: of each class in turn, counted anew."""
  prediction, truth = maps(1, 30, 24, 24)
  counts = counts_of(prediction, truth)
  mine, own = LabelMap(prediction.labels[0]), LabelMap(truth.labels[0])
  running = jnp.asarray(counts, jnp.float32)
  credit = {}
  for label in range(4):
    guess = LabelMap(jnp.full_like(mine.labels, label))
    credit[label] = np.asarray(reward.miou_change(guess, own, running=running)["credit"])
  places = np.random.default_rng(0).choice(np.flatnonzero(np.ravel(own.labels) != IGNORE), 40)
  changes, predicted = [], []
  for place in places:
    before = int(np.ravel(mine.labels)[place])
    for label in range(4):
      labels = np.array(mine.labels)
      labels.flat[place] = label
      others = counts - counts_of(mine, own)
      changed = dataset_miou(others + counts_of(LabelMap(labels), own)) - dataset_miou(counts)
      changes.append(changed * counts.sum())
      predicted.append(credit[label][place] - credit[before][place])
  assert np.std(predicted) > 0.5
  # A whole pixel is one of 700 of the rarest class.
  np.testing.assert_allclose(predicted, changes, rtol=5e-3, atol=5e-3)


def test_credit_is_the_table_of_the_issue():
  """r[g, a] = sum(M) / C * (1 / U_g if a = g else -IoU_a / U_a)."""
  prediction, truth = maps(2, 20, 20)
  counts = counts_of(*maps(3, 10, 30, 30))
  right = np.diagonal(counts)
  union = counts.sum(0) + counts.sum(1) - right
  out = reward.miou_change(prediction, truth, running=jnp.asarray(counts, jnp.float32))
  expected = []
  both = (np.ravel(one.labels).tolist() for one in (truth, prediction))
  for there, found in zip(*both, strict=True):
    hit = 1 / union[there] if there == found else -right[found] / union[found] ** 2
    expected.append(0.0 if there == IGNORE else counts.sum() / 4 * hit)
  np.testing.assert_allclose(out["credit"], expected, rtol=1e-5)
  known = np.ravel(truth.labels) != IGNORE
  assert float(out["reward"]) == pytest.approx(np.sum(expected) / known.sum(), rel=1e-4)


def test_classes_that_are_nowhere():
  """They are left out of the mean, as in the metric; a pixel of a new one is worth a finite sum."""
  counts = np.zeros((4, 4))
  counts[:3, :3] = counts_of(*maps(4, 10, 30, 30, shown=3), classes=3)
  np.testing.assert_allclose(table(counts)[:3, :3], table(counts[:3, :3]), rtol=1e-6)
  there = [300.0, 0, 0, 20]
  found = table(counts, there)
  assert found[3, 3] == pytest.approx(counts.sum() / 4 / 20, rel=1e-5)
  assert (found[:3, 3] == 0).all()
  empty = table(np.zeros((4, 4)), there)
  assert np.isfinite(empty).all() and empty[3, 3] > empty[0, 0] > 0
  prediction, truth = maps(5, 6, 6)
  out = reward.miou_change(prediction, truth, running=jnp.zeros((4, 4)))
  assert np.isfinite(out["credit"]).all() and float(out["reward"]) > 0


def test_a_union_that_has_faded_is_taken_for_the_images_own():
  counts = counts_of(*maps(6, 10, 30, 30))
  counts[3], counts[:, 3] = counts[3] * 1e-6, counts[:, 3] * 1e-6
  assert table(counts, [0, 0, 0, 25.0])[3, 3] == pytest.approx(counts.sum() / 4 / 25, rel=1e-4)


def test_unlabeled_pixels_earn_nothing():
  prediction, truth = maps(7, 12, 12)
  out = reward.miou_change(prediction, truth, running=jnp.ones((4, 4)))
  unknown = np.ravel(truth.labels) == IGNORE
  assert unknown.any() and not np.asarray(out["credit"])[unknown].any()
  other = LabelMap(jnp.where(truth.labels == IGNORE, 3, prediction.labels))
  again = reward.miou_change(other, truth, running=jnp.ones((4, 4)))
  np.testing.assert_array_equal(out["credit"], again["credit"])
  void = LabelMap(jnp.full((12, 12), IGNORE))
  assert float(reward.miou_change(prediction, void, running=jnp.ones((4, 4)))["reward"]) == 0
  assert np.isnan(reward.mean_iou(prediction, void, classes=CLASSES))


def test_weights_of_classes_have_any_scale():
  prediction, truth = maps(8, 12, 12)
  running = jnp.asarray(counts_of(prediction, truth), jnp.float32)
  plain = reward.miou_change(prediction, truth, running=running)["credit"]
  for weights in ((2.0,) * 4, (0.1,) * 4):
    found = reward.miou_change(prediction, truth, running=running, class_weights=weights)
    np.testing.assert_allclose(found["credit"], plain, rtol=1e-6)
  with pytest.raises(UsageError, match="3 numbers for 4 classes"):
    reward.miou_change(prediction, truth, running=running, class_weights=(1.0, 1.0, 1.0))
  for weights in ((0.0,) * 4, (1.0, -1.0, 1.0, 1.0)):
    with pytest.raises(UsageError, match="give numbers above 0"):
      reward.mean_iou(prediction, truth, classes=CLASSES, class_weights=weights)


def test_running_confusion_fades():
  running = reward.class_confusion(CLASSES, decay=0.5)
  state, expected = running.init(), np.zeros((4, 4))
  update = jax.jit(running.update)
  for seed in range(3):
    prediction, truth = maps(seed, 2, 9, 9)
    state = update(state, prediction, truth)
    expected = 0.5 * expected + counts_of(prediction, truth)
  np.testing.assert_allclose(state, expected, rtol=1e-6)
  with pytest.raises(UsageError, match="decay is 1"):
    reward.class_confusion(CLASSES, decay=1.0)


@pytest.mark.parametrize("shown", [4, 2])
def test_mean_iou_is_that_of_the_metric(shown):
  scorer = segmentation(CLASSES)
  for seed in range(4):
    prediction, truth = maps(seed, 9, 9, shown=shown)
    record = {"image_id": 1, "labels": np.asarray(prediction.labels)}
    state = scorer.update([], record, {"image_id": 1, "label_map": np.asarray(truth.labels)})
    found = reward.mean_iou(prediction, truth, classes=CLASSES)
    assert float(found) == pytest.approx(scorer.compute(state)["mIoU"], rel=1e-5)
    weights = (1.0, 4.0, 2.0, 1.0)
    found = reward.mean_iou(prediction, truth, classes=CLASSES, class_weights=weights)
    assert float(found) == pytest.approx(dataset_miou(counts_of(prediction, truth), weights), 1e-5)


def test_accuracy_is_that_of_the_metric():
  prediction, truth = maps(9, 9, 9)
  out = reward.accuracy(prediction, truth)
  counts = counts_of(prediction, truth)
  assert float(out["reward"]) == pytest.approx(np.trace(counts) / counts.sum(), rel=1e-6)
  assert float(out["credit"].sum()) == np.trace(counts) and out["credit"].shape == (81,)


def test_boundary_f1_is_that_of_the_metric_and_runs_on_the_host():
  assert host_options(reward.boundary_f1) is not None
  truth = np.zeros((20, 20), np.int32)
  truth[5:15, 5:15], truth[0, :5] = 1, IGNORE
  predicted = np.roll(np.maximum(truth, 0), 3, 1)
  scorer = segmentation(CLASSES, tolerance=0.05)
  record = {"image_id": 1, "labels": predicted}
  state = scorer.update([], record, {"image_id": 1, "label_map": truth})
  found = reward.boundary_f1(LabelMap(predicted), LabelMap(truth), classes=CLASSES, tolerance=0.05)
  assert found == pytest.approx(scorer.compute(state)["boundary_F1"]) and 0.2 < found < 0.9
  whole = LabelMap(np.zeros((5, 5), np.int32))
  assert reward.boundary_f1(whole, whole, classes=CLASSES) == 1
