"""Box rewards against a plain restatement of their definition, and cases worked out by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.data.sources.coco_counts import COCO_COUNTS
from rtune.errors import UsageError
from rtune.predictions.boxes import Boxes
from rtune.rewards import boxes as reward

pytestmark = pytest.mark.usefixtures("quick_compiles")

TEN = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
# What the released code averages once its result keys "reward-0.5", "reward-0.6" ... have collided.
COLLIDED = (0.5, 0.6, 0.6, 0.7, 0.7, 0.85, 0.85, 0.85, 0.95, 0.95)


def boxes(corners, labels=None, present=None, scores=None):
  corners = np.array(corners, np.float32).reshape(-1, 4)
  num = len(corners)
  return Boxes(
    jnp.asarray(corners),
    jnp.asarray(np.zeros(num) if labels is None else labels, jnp.int32),
    jnp.asarray(np.ones(num) if present is None else present, bool),
    jnp.asarray(np.ones(num) if scores is None else scores, jnp.float32),
  )


def random_pairs(seed, num=300, predicted=6, annotated=5, classes=2):
  """Boxes on a coarse grid: ties, exact thresholds, duplicates, inverted and empty, padding."""
  rng = np.random.default_rng(seed)

  def draw(slots):
    corners = rng.integers(0, 6, (num, slots, 2, 2))
    corners = np.where(rng.random((num, slots, 1, 1)) < 0.85, np.sort(corners, 2), corners)
    return corners.reshape(num, slots, 4) / 8

  def pack(corners, labels):
    present = rng.random(labels.shape) < rng.choice([0.0, 0.5, 1.0], (num, 1), p=[0.1, 0.5, 0.4])
    labels = np.where(present, labels, rng.choice([-1, 0], labels.shape))
    scores = rng.integers(0, 4, labels.shape) / 4
    return Boxes(
      jnp.asarray(corners, jnp.float32),
      jnp.asarray(labels, jnp.int32),
      jnp.asarray(present),
      jnp.asarray(scores, jnp.float32),
    )

  truth, labels = draw(annotated), rng.integers(0, classes, (num, annotated))
  source = rng.integers(0, annotated, (num, predicted))
  copied = np.take_along_axis(truth, source[..., None], 1)
  copied[..., 2:] += rng.integers(0, 2, (num, predicted, 2)) / 8
  fresh = rng.random((num, predicted)) < 0.3
  guesses = np.where(fresh[..., None], draw(predicted), copied)
  guessed = np.where(
    fresh, rng.integers(0, classes, fresh.shape), np.take_along_axis(labels, source, 1)
  )
  return pack(guesses, guessed), pack(truth, labels)


def pick(batch, index):
  return Boxes(*(np.asarray(field[index]) for field in batch))


def iou(first, second):
  """In float64; proper boxes only."""
  (y0, x0, y1, x1), (v0, u0, v1, u1) = np.float64(first), np.float64(second)
  if y1 <= y0 or x1 <= x0 or v1 <= v0 or u1 <= u0:
    return 0.0
  inter = max(min(y1, v1) - max(y0, v0), 0) * max(min(x1, u1) - max(x0, u0), 0)
  return inter / ((y1 - y0) * (x1 - x0) + (v1 - v0) * (u1 - u0) - inter)


def plain_recall(
  prediction, truth, thresholds, duplicate_weight=0.3, unmatched_weight=0.0, weights=(1.0, 1.0)
):
  """The definition, one threshold, one box, one object at a time."""
  total, matches, duplicates, unmatched = 0.0, 0, 0, 0
  for threshold in thresholds:
    points_to, overlap = {}, {}
    for p in np.flatnonzero(prediction.present):
      best = 0.0
      for g in np.flatnonzero(truth.present):
        value = iou(prediction.boxes[p], truth.boxes[g])
        if prediction.labels[p] == truth.labels[g] and value > threshold and value > best:
          best, points_to[p], overlap[p] = value, g, value
      if p not in points_to:
        total -= unmatched_weight * weights[prediction.labels[p]]
        unmatched += 1
    for g in set(points_to.values()):
      pointing = [p for p in points_to if points_to[p] == g]
      winner = max(pointing, key=lambda p: overlap[p])
      total += weights[truth.labels[g]]
      matches += 1
      for p in pointing:
        if p != winner:
          total -= duplicate_weight * weights[prediction.labels[p]]
          duplicates += 1
  return np.array([total, matches, duplicates, unmatched]) / len(thresholds)


def batched(function):
  return jax.jit(jax.vmap(function))


@pytest.mark.parametrize(
  "options",
  [
    {"thresholds": (0.5,)},
    {"thresholds": (0.75,), "duplicate_weight": 1.0},
    {"thresholds": TEN, "weights": (0.5, 1.5)},
    {"thresholds": TEN, "weights": (0.5, 1.5), "unmatched_weight": 0.4},
  ],
)
def test_recall_is_its_definition(options):
  prediction, truth = random_pairs(seed=len(options["thresholds"]))
  weights = options.get("weights")
  result = batched(
    lambda p, t: reward.recall(
      p,
      t,
      iou_thresholds=options["thresholds"],
      duplicate_weight=options.get("duplicate_weight", 0.3),
      unmatched_weight=options.get("unmatched_weight", 0.0),
      class_weights=weights,
    )
  )(prediction, truth)
  expected = np.array(
    [plain_recall(pick(prediction, i), pick(truth, i), **options) for i in range(300)]
  )
  for column, name in enumerate(("reward", "matches", "duplicates", "unmatched")):
    np.testing.assert_allclose(result[name], expected[:, column], atol=2e-6, err_msg=name)
  assert (
    expected[:, 1].max() >= 2 and expected[:, 2:].max() >= 1
  )  # the cases have something in them


def test_match_iou_is_its_definition():
  prediction, truth = random_pairs(seed=5)
  result = np.asarray(batched(reward.match_iou)(prediction, truth))
  for i, (p, t) in enumerate((pick(prediction, i), pick(truth, i)) for i in range(300)):
    for slot in range(p.labels.size):
      values = [
        iou(p.boxes[slot], t.boxes[g]) * (p.labels[slot] == t.labels[g])
        for g in np.flatnonzero(t.present)
      ]
      best = max(values, default=0.0) if p.present[slot] else 0.0
      assert result[i, slot] == pytest.approx(best if best > 0.5 else 0.0, abs=1e-6)


def test_hand_computed():
  truth = boxes([[0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]])
  found = [[0, 0, 0.4, 0.4], [0, 0, 0.4, 0.32], [0.5, 0.5, 0.9, 0.9], [0, 0.8, 0.1, 0.9]]
  result = reward.recall(boxes(found), truth, iou_thresholds=(0.5,))
  # Two matches, one duplicate (IoU 0.8), and a false positive that costs nothing.
  assert result["reward"] == pytest.approx(2 - 0.3)
  assert (result["matches"], result["duplicates"]) == (2, 1)
  # Above 0.8 the second box points to nothing: a duplicate at 6 of the 10 thresholds.
  assert reward.recall(boxes(found), truth)["duplicates"] == pytest.approx(0.6)
  assert list(reward.match_iou(boxes(found), truth)) == pytest.approx([1, 0.8, 1, 0])


def test_thresholds_are_strict():
  half = boxes([[0, 0, 0.5, 0.25]]), boxes([[0, 0, 0.5, 0.5]])
  assert reward.recall(*half, iou_thresholds=(0.5,))["reward"] == 0
  assert reward.recall(*half, iou_thresholds=(0.49,))["reward"] == 1
  assert reward.match_iou(*half)[0] == 0


def test_greedy_not_optimal():
  # Both boxes overlap the first object most; the second does not fall back on the other object.
  truth = boxes([[0, 0, 1, 0.5], [0, 0.2, 1, 0.8]])
  found = boxes([[0, 0, 1, 0.5], [0, 0.08, 1, 0.58]])
  result = reward.recall(found, truth, iou_thresholds=(0.3,))
  assert (result["matches"], result["duplicates"]) == (1, 1)


def test_inverted_and_empty_boxes_match_nothing():
  whole = [0.2, 0.2, 0.8, 0.8]
  for box in ([0.8, 0.8, 0.2, 0.2], [0.8, 0.2, 0.2, 0.8], [0.2, 0.2, 0.2, 0.8], [0.5] * 4):
    for prediction, truth in ((box, whole), (whole, box), (box, box)):
      result = reward.recall(boxes([prediction]), boxes([truth]), iou_thresholds=(0.0,))
      assert result["reward"] == result["matches"] == result["duplicates"] == 0


@pytest.mark.parametrize("weights", [None, (0.5, 1.5)])
def test_credit_is_what_a_box_changes(weights):
  """Its sum is the reward; a box that is the only one of its object is worth what it adds."""
  prediction, truth = random_pairs(seed=9, num=100)
  options = {"class_weights": weights, "duplicate_weight": 0.3, "unmatched_weight": 0.2}
  score = batched(lambda p, t: reward.recall(p, t, by_box=True, **options))
  found = score(prediction, truth)
  np.testing.assert_allclose(found["credit"].sum(axis=1), found["reward"], atol=1e-5)
  assert (np.asarray(found["credit"])[~np.asarray(prediction.present)] == 0).all()
  points = batched(lambda p, t: reward.nearest(p, t))(prediction, truth)
  for slot in range(prediction.present.shape[1]):
    without = prediction._replace(present=prediction.present.at[:, slot].set(False))
    change = found["reward"] - score(without, truth)["reward"]
    others = np.delete(np.asarray(points[1]), slot, axis=1) == np.asarray(points[1])[:, [slot]]
    there = np.delete(np.asarray(prediction.present & (points[0] > 0)), slot, axis=1)
    alone = ~(others & there).any(axis=1)
    np.testing.assert_allclose(found["credit"][alone, slot], change[alone], atol=1e-5)
    assert alone.sum() > 10


@pytest.mark.parametrize("predicted, annotated", list(itertools.product((0, 1), repeat=2)))
def test_nothing_there_gives_zero(predicted, annotated):
  box = [[0, 0, 1, 1]] * 3
  for found, truth in (
    (boxes(box, present=[predicted] * 3), boxes(box, present=[annotated] * 3)),
    (boxes(box * predicted), boxes(box * annotated)),  # no slots at all
  ):
    result = reward.recall(found, truth, class_weights=(2.0,))
    assert np.isfinite(list(result.values())).all()
    if not (predicted and annotated):
      assert result["reward"] == result["matches"] == result["duplicates"] == 0
      assert result["unmatched"] == 3 * predicted


def test_padding_changes_nothing():
  prediction, truth = random_pairs(seed=6, num=50)

  def pad(batch):
    junk = Boxes(
      jnp.ones((50, 3, 4)),
      jnp.zeros((50, 3), jnp.int32),
      jnp.zeros((50, 3), bool),
      jnp.ones((50, 3)),
    )
    return Boxes(*(jnp.concatenate([a, b, a], 1) for a, b in zip(junk, batch, strict=True)))

  compute = batched(lambda p, t: reward.recall(p, t, class_weights=(0.5, 1.5)))
  plain, padded = compute(prediction, truth), compute(pad(prediction), pad(truth))
  for name, values in plain.items():
    np.testing.assert_allclose(padded[name], values, atol=1e-6)
  np.testing.assert_array_equal(
    batched(reward.match_iou)(pad(prediction), pad(truth))[:, 3:-3],
    batched(reward.match_iou)(prediction, truth),
  )


def test_jit_and_two_vmaps_change_nothing():
  prediction, truth = random_pairs(seed=7, num=12)
  samples = Boxes(*(field.reshape(4, 3, *field.shape[1:]) for field in prediction))
  images = Boxes(*(field[::3] for field in truth))
  mapped = jax.jit(jax.vmap(jax.vmap(reward.recall, in_axes=(0, None))))(samples, images)
  single = jax.jit(reward.recall)
  for b, s in itertools.product(range(4), range(3)):
    one = single(Boxes(*(field[b, s] for field in samples)), Boxes(*(field[b] for field in images)))
    for name, value in one.items():
      assert mapped[name][b, s] == pytest.approx(float(value), abs=1e-6)


def test_released_averaging_is_the_collision_of_its_keys():
  prediction, truth = random_pairs(seed=8)
  compute = batched(lambda p, t: reward.recall(p, t, released_averaging=True))
  released = compute(prediction, truth)["reward"]

  def each(p, t):
    return {at: reward.recall(p, t, iou_thresholds=(at,))["reward"] for at in TEN}

  at = batched(each)(prediction, truth)
  np.testing.assert_allclose(released, np.mean([at[t] for t in COLLIDED], axis=0), atol=2e-6)
  true_mean = batched(reward.recall)(prediction, truth)["reward"]
  np.testing.assert_allclose(true_mean, np.mean([at[t] for t in TEN], axis=0), atol=2e-6)
  assert np.abs(np.asarray(released) - np.asarray(true_mean)).max() > 0.05


def test_weighted_recall_is_recall_with_the_weights_of_the_counts():
  prediction, truth = random_pairs(seed=9, num=20)
  weighted = batched(lambda p, t: reward.weighted_recall(p, t, class_counts=(30, 10)))
  weights = reward.balanced_weights((30, 10))
  assert weights[1] / weights[0] == pytest.approx((30 + 2) / (10 + 2))  # 0.05 of 40 boxes is 2
  np.testing.assert_allclose(
    weighted(prediction, truth)["reward"],
    batched(lambda p, t: reward.recall(p, t, class_weights=weights))(prediction, truth)["reward"],
  )


def test_no_thresholds():
  with pytest.raises(UsageError, match="iou_thresholds is empty"):
    reward.recall(boxes([[0, 0, 1, 1]]), boxes([[0, 0, 1, 1]]), iou_thresholds=())


def test_class_weights_of_coco():
  assert len(COCO_COUNTS) == 80 and sum(COCO_COUNTS) == 860_001
  weights = reward.balanced_weights(COCO_COUNTS)
  assert weights.sum() == pytest.approx(80)
  # Person and hair drier, from 1 / (n + 0.05 * 860,001) of all 80 counts.
  assert (weights.min(), weights.max()) == pytest.approx((0.165, 1.166), abs=5e-4)
  assert (weights.argmin(), weights.argmax()) == (0, 78)


def test_class_weights_of_classes_never_seen():
  assert np.isfinite(reward.balanced_weights([5, 0])).all()
  # 1 / (5 + 0.25) and 1 / 0.25, over the mean of those that occur.
  assert reward.balanced_weights([5, 0]) == pytest.approx(np.array([1.0, 21.0]))
  assert reward.balanced_weights([5, 5, 0, 0])[:2].tolist() == [1, 1]
  np.testing.assert_array_equal(reward.balanced_weights([0, 0, 0], smoothing=0.0), [1, 1, 1])
  with pytest.raises(UsageError, match="class 1 has no boxes"):
    reward.balanced_weights([5, 0], smoothing=0.0)
