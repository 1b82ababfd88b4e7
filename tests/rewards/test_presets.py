"""Other people's box rewards against restatements of their definitions and hand-worked cases."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.metrics import boxes as metric
from rtune.predictions.boxes import Boxes
from rtune.rewards import presets

pytestmark = pytest.mark.usefixtures("quick_compiles")

SLOTS = 5
visual_rft = jax.jit(presets.visual_rft)
vlm_r1 = jax.jit(presets.vlm_r1)
options = ("match_threshold", "precision_range", "same_class")
vision_r1 = jax.jit(presets.vision_r1, static_argnames=options)
perception_r1 = jax.jit(presets.perception_r1)


def boxes(corners, labels=None, scores=None, present=None, slots=SLOTS):
  """Padded to one shape, so that every case runs through one compilation."""
  corners = np.array(corners, np.float32).reshape(-1, 4)
  num = len(corners)
  fill = slots - num
  return Boxes(
    jnp.asarray(np.pad(corners, ((0, fill), (0, 0)))),
    jnp.asarray(np.pad(np.zeros(num) if labels is None else labels, (0, fill)), jnp.int32),
    jnp.asarray(np.pad(np.ones(num) if present is None else present, (0, fill)), bool),
    jnp.asarray(np.pad(np.ones(num) if scores is None else scores, (0, fill)), jnp.float32),
  )


def random_pairs(seed, num, classes=2):
  """Overlapping boxes with tied scores, repetitions, wrong classes and padding."""
  rng = np.random.default_rng(seed)
  truth = rng.uniform(0, 0.5, (num, SLOTS, 4))
  truth[..., 2:] += 0.2 + truth[..., :2]
  labels = rng.integers(0, classes, (num, SLOTS))
  source = rng.integers(0, SLOTS, (num, SLOTS))
  noise = rng.normal(0, 0.04, (num, SLOTS, 4)) * (rng.random((num, SLOTS, 1)) < 0.6)
  found = np.take_along_axis(truth, source[..., None], 1) + noise
  wrong = rng.random(labels.shape) < 0.2
  guessed = np.where(wrong, 1 - labels, np.take_along_axis(labels, source, 1))

  def pack(corners, labels):
    share = rng.choice([0.0, 0.6, 1.0], (num, 1), p=[0.1, 0.6, 0.3])
    present = rng.random(labels.shape) < share
    scores = rng.integers(0, 5, labels.shape) / 4
    return Boxes(
      jnp.asarray(corners, jnp.float32),
      jnp.asarray(np.where(present, labels, -1), jnp.int32),
      jnp.asarray(present),
      jnp.asarray(scores, jnp.float32),
    )

  return pack(found, guessed), pack(truth, labels)


def present(batch, index):
  """The boxes that are there: corners, labels, scores."""
  there = np.asarray(batch.present[index])
  return [np.asarray(field[index])[there] for field in (batch.boxes, batch.labels, batch.scores)]


def area(box):
  return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def iou_and_giou(first, second):
  first, second = np.float64(first), np.float64(second)
  inter = area([*np.maximum(first[:2], second[:2]), *np.minimum(first[2:], second[2:])])
  union = area(first) + area(second) - inter
  hull = area([*np.minimum(first[:2], second[:2]), *np.maximum(first[2:], second[2:])])
  return inter / union, inter / union - (hull - union) / hull


def mapped(function, prediction, truth):
  return {k: np.asarray(v) for k, v in jax.jit(jax.vmap(function))(prediction, truth).items()}


def plain_visual_rft(prediction, truth):
  corners, labels, scores = prediction
  once = []
  for p in range(len(corners)):
    if not any(labels[p] == labels[q] and (corners[p] == corners[q]).all() for q in once):
      once.append(p)
  free, total, agreement = set(range(len(truth[0]))), 0.0, 0.0
  for p in sorted(once, key=lambda p: -scores[p]):
    values = {g: iou_and_giou(corners[p], truth[0][g])[0] for g in free if labels[p] == truth[1][g]}
    best = max(values, key=values.get, default=None)
    if best is not None and values[best] > 0.5:
      free.remove(best)
      total, agreement = total + values[best], agreement + scores[p]
    else:
      agreement += 1 - scores[p]
  return total / max(len(once), len(truth[0]), 1) + agreement / max(len(once), 1)


def test_visual_rft_is_its_definition():
  prediction, truth = random_pairs(1, 200)
  result = mapped(visual_rft, prediction, truth)
  expected = [plain_visual_rft(present(prediction, i), present(truth, i)) for i in range(200)]
  np.testing.assert_allclose(result["reward"], expected, atol=2e-6)


def test_visual_rft_by_hand():
  truth = boxes([[0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]])
  # The surer box (IoU 0.8) takes the object that the exact box would fit; a repetition is dropped.
  found = boxes(
    [[0, 0, 0.4, 0.4], [0, 0, 0.4, 0.32], [0.5, 0.5, 0.9, 0.9], [0.5, 0.5, 0.9, 0.9]],
    scores=[0.6, 0.9, 0.7, 1.0],
  )
  result = visual_rft(found, truth)
  assert result["iou"] == pytest.approx((0.8 + 1) / 3)
  assert result["confidence"] == pytest.approx((0.9 + 0.7 + (1 - 0.6)) / 3)
  assert result["reward"] == pytest.approx(0.6 + 2 / 3)


def coco_ap(prediction, truth):
  """AP of one image by pycocotools; -1 where the truth is empty."""
  corners, labels, scores = prediction
  scorer = metric.coco_boxes(("a", "b"), (1, 2))
  state = scorer.update(
    scorer.init(),
    {"image_id": 1, "boxes": corners * 512, "labels": labels, "scores": scores},
    {
      "image_id": 1,
      "boxes": truth[0] * 512,
      "labels": truth[1],
      "crowd": np.zeros(len(truth[1]), bool),
      "area": np.array([area(box) for box in truth[0]]) * 512**2,
    },
  )
  return scorer.compute(state)["AP"]


def test_average_precision_is_that_of_pycocotools():
  prediction, truth = random_pairs(2, 150)
  result = np.asarray(jax.jit(jax.vmap(presets.average_precision))(prediction, truth))
  expected = [coco_ap(present(prediction, i), present(truth, i)) for i in range(150)]
  np.testing.assert_allclose(result, np.maximum(expected, 0), atol=1e-6)
  assert (np.array(expected) > 0.5).any() and (np.array(expected) == -1).any()


def test_average_precision_reads_recall_levels_as_coco_does():
  # 7 of 20 is 0.35 in float64, just below COCO's level 35 * 0.01 = 0.35000000000000003.
  grid = [[y / 8, x / 8, (y + 0.9) / 8, (x + 0.9) / 8] for y in range(4) for x in range(5)]
  average_precision = jax.jit(presets.average_precision)
  for found in (7, 11, 19, 20):
    corners = np.array(grid, np.float32)
    labels = np.zeros(20, int)
    expected = coco_ap((corners[:found], labels[:found], np.ones(found)), (corners, labels))
    result = average_precision(boxes(grid[:found], slots=20), boxes(grid, slots=20))
    assert result == pytest.approx(expected, abs=1e-6)


def test_average_precision_breaks_ties_between_objects_as_coco_does():
  # The first box overlaps both objects alike. Which one it takes decides what is left for the next.
  both, left, right = [0, 1, 4, 5], [0, 0, 4, 4], [0, 2, 4, 6]
  found = boxes(np.array([both, right]) / 8, scores=[0.9, 0.8])
  values = []
  for objects in ([left, right], [right, left]):
    truth = boxes(np.array(objects) / 8)
    values.append(float(jax.jit(presets.average_precision)(found, truth)))
    sides = [present(Boxes(*(field[None] for field in side)), 0) for side in (found, truth)]
    assert values[-1] == pytest.approx(coco_ap(sides[0], sides[1]), abs=1e-6)
  assert values[0] < values[1]


def test_vlm_r1_by_hand():
  truth = boxes([[0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]])
  exact, other = [0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]
  alone = vlm_r1(boxes([exact]), truth)
  assert alone["reward"] == pytest.approx(51 / 101)  # recall 1/2 reaches levels 0.00 ... 0.50
  # Two repetitions after both objects are found: AP stays 1, the length term makes it 2 / 4.
  hacked = vlm_r1(boxes([exact, other, exact, other]), truth)
  assert (hacked["ap"], hacked["length"]) == pytest.approx((1, 0.5))
  assert hacked["reward"] == pytest.approx(0.5)
  # The wrong box first: precision 1/2 at the first object and 2/3 at the second, for all levels.
  late = vlm_r1(boxes([[0, 0.8, 0.1, 0.9], exact, other], scores=[0.9, 0.8, 0.8]), truth)
  assert late["reward"] == pytest.approx(2 / 3 * 2 / 3)


@pytest.mark.parametrize("function", [vlm_r1, vision_r1])
@pytest.mark.parametrize("predicted, annotated", [(0, 0), (0, 1), (1, 0)])
def test_nothing_there(function, predicted, annotated):
  box = [[0.1, 0.1, 0.5, 0.5]] * 2
  found, truth = boxes(box, present=[predicted] * 2), boxes(box, present=[annotated] * 2)
  full = 1 if function is vlm_r1 else 2
  assert function(found, truth)["reward"] == (full if not predicted and not annotated else 0)


def clamp(value, low, high):
  return 0.0 if value < low else 1.0 if value > high else value


def plain_vision_r1(prediction, truth, side=640.0):
  """Every assignment tried."""
  found, objects = len(prediction[0]), len(truth[0])
  if not found or not objects:
    return 2.0 * (found == objects)
  best, chosen = math.inf, None
  few, many = min(found, objects), max(found, objects)
  for order in itertools.permutations(range(many), few):
    pairs = [(n, m) if found <= objects else (m, n) for n, m in enumerate(order)]
    cost = 0.0
    for p, g in pairs:
      cost += np.abs(np.float64(prediction[0][p]) - truth[0][g]).sum() * side
      cost -= iou_and_giou(prediction[0][p], truth[0][g])[1] + (prediction[1][p] == truth[1][g])
    if cost < best:
      best, chosen = cost, pairs
  values = [
    iou_and_giou(prediction[0][p], truth[0][g])[1] if prediction[1][p] == truth[1][g] else -1.0
    for p, g in chosen
  ]
  recall = clamp(sum(clamp(v, 0.5, 0.5) for v in values) / objects, 0.5, 0.75)
  return recall + sum(clamp(v, 0.5, 0.75) for v in values) / few


def test_vision_r1_is_its_definition():
  prediction, truth = random_pairs(3, 60)
  # No two boxes alike, so that no two assignments cost the same.
  moved = np.random.default_rng(4).normal(0, 0.005, prediction.boxes.shape)
  prediction = prediction._replace(boxes=prediction.boxes + jnp.asarray(moved, jnp.float32))
  result = mapped(vision_r1, prediction, truth)
  expected = [plain_vision_r1(present(prediction, i), present(truth, i)) for i in range(60)]
  np.testing.assert_allclose(result["reward"], expected, atol=1e-5)
  assert len(set(np.round(expected, 3))) > 10


def test_vision_r1_by_hand():
  truth = boxes([[0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0, 0.5, 0.4, 0.9]], labels=[0, 0, 1])
  found = boxes([[0.5, 0.5, 0.9, 0.9], [0, 0, 0.4, 0.24], [0, 0.5, 0.4, 0.9]])  # GIoU 1, 0.6, 1
  result = vision_r1(found, truth)
  assert result["recall"] == pytest.approx(2 / 3)  # the third has the wrong class
  assert result["precision"] == pytest.approx((1 + 0.6 + 0) / 3)
  blind = vision_r1(found, truth, same_class=False)
  assert (blind["recall"], blind["precision"]) == pytest.approx((1, (1 + 0.6 + 1) / 3))
  later = vision_r1(found, truth, match_threshold=0.75, precision_range=(0.75, 0.9))
  assert (later["recall"], later["precision"]) == pytest.approx((0, 1 / 3))  # 1/3 is below 0.5


def test_perception_r1_by_hand():
  truth = boxes([[0, 0, 1, 1], [0, 0, 0.5, 0.5]], present=[0, 1])
  found = boxes([[0, 0, 1, 1], [0, 0, 0.5, 0.4], [0, 0, 0.5, 0.5]], present=[0, 1, 1])
  result = perception_r1(found, truth)
  assert (result["iou"], result["reward"]) == pytest.approx((0.8, 0.64))
  nothing = boxes([[0, 0, 0.5, 0.5]], present=[0])
  assert perception_r1(nothing, truth)["reward"] == 0
  assert perception_r1(found, nothing)["reward"] == 0
  other = boxes([[0, 0, 0.5, 0.5]], labels=[1])
  assert perception_r1(found, other)["reward"] == 0


@pytest.mark.parametrize("function", [visual_rft, vlm_r1, vision_r1, perception_r1])
def test_padding_changes_nothing_and_all_is_finite(function):
  prediction, truth = random_pairs(5, 40)

  def pad(batch):
    junk = Boxes(
      jnp.full((40, 2, 4), 0.5), jnp.zeros((40, 2), jnp.int32), jnp.zeros((40, 2), bool),
      jnp.ones((40, 2)),
    )  # fmt: skip
    return Boxes(*(jnp.concatenate([a, b, a], 1) for a, b in zip(junk, batch, strict=True)))

  plain = mapped(function, prediction, truth)
  padded = mapped(function, pad(prediction), pad(truth))
  for name, values in plain.items():
    np.testing.assert_allclose(padded[name], values, atol=1e-6, err_msg=name)
    assert np.isfinite(values).all()


def test_inverted_boxes_earn_nothing():
  truth = boxes([[0.2, 0.2, 0.8, 0.8]])
  for box in ([0.8, 0.8, 0.2, 0.2], [0.2, 0.2, 0.2, 0.8]):
    assert visual_rft(boxes([box]), truth)["reward"] == 0  # a score of 1, unmatched
    assert vlm_r1(boxes([box]), truth)["reward"] == 0
    assert vision_r1(boxes([box]), truth)["reward"] == 0
    assert perception_r1(boxes([box]), truth)["reward"] == 0
