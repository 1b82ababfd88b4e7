"""The box metric against the published example, the official tool, and cases worked out by hand."""

import contextlib
import copy
import importlib.util
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtune.errors import DataError, NumericError, UsageError
from rtune.metrics import boxes as metric

CLASSES, IDS = ("cat", "dog", "cow"), (17, 3, 90)  # ids out of order and with gaps
STATS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl"]
needs_hotcoco = pytest.mark.skipif(
  importlib.util.find_spec("hotcoco") is None, reason="needs the optional package hotcoco"
)


def predicted(image_id, boxes, labels, scores):
  return {
    "image_id": image_id,
    "boxes": np.array(boxes, np.float32).reshape(-1, 4),
    "labels": np.array(labels, np.int32),
    "scores": np.array(scores, np.float32),
  }


def annotated(image_id, boxes, labels, crowd=None):
  boxes = np.array(boxes, np.float32).reshape(-1, 4)
  return {
    "image_id": image_id,
    "boxes": boxes,
    "labels": np.array(labels, np.int32),
    "crowd": np.zeros(len(boxes), bool) if crowd is None else np.array(crowd, bool),
    "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
  }


def collect(pairs, classes=CLASSES, ids=IDS, **options):
  scorer = metric.coco_boxes(classes, ids, **options)
  state = scorer.init()
  for prediction, truth in pairs:
    state = scorer.update(state, prediction, truth)
  return scorer, state


def score(pairs, **options):
  scorer, state = collect(pairs, **options)
  return scorer.compute(state)


def random_pairs(seed, num=12, limit=130):
  """Scenes of every size with crowds, near misses, tied scores, more than 100 boxes, nothing."""
  rng = np.random.default_rng(seed)
  pairs = []
  for image_id in rng.permutation(1000)[:num].tolist():
    count = int(rng.choice([0, 1, 4, 12]))
    corner, side = rng.uniform(0, 400, (count, 2)), rng.choice([12, 60, 150], (count, 2))
    truth = annotated(
      image_id,
      np.concatenate([corner, corner + side], 1),
      rng.integers(0, 3, count),
      rng.random(count) < 0.2,
    )
    guesses = int(rng.integers(0, limit)) if count else int(rng.integers(0, 3))
    of = rng.integers(0, max(count, 1), guesses)
    near = truth["boxes"][of] if count else np.tile([0.0, 0, 30, 30], (guesses, 1))
    boxes = np.sort((near + rng.normal(0, 4, near.shape)).reshape(-1, 2, 2), 1).reshape(-1, 4)
    labels = truth["labels"][of] if count else rng.integers(0, 3, guesses)
    scores = rng.integers(0, 50, guesses) / 50
    pairs.append((predicted(image_id, boxes, labels, scores), truth))
  return pairs


def official(truth, results):
  """The digits of COCOeval.summarize."""
  with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO()
    coco.dataset = copy.deepcopy(truth)
    coco.createIndex()
    scorer = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
  return scorer.stats


def published_pairs(folder):
  """The published example as examples and predictions."""
  truth = json.loads((folder / "gt.json").read_text())
  detections = json.loads((folder / "detections.json").read_text())
  ids = [category["id"] for category in truth["categories"]]

  def corners(annotations):
    x, y, w, h = np.array([a["bbox"] for a in annotations], float).reshape(-1, 4).T
    return np.stack([y, x, y + h, x + w], 1)

  pairs = []
  for image_id in [image["id"] for image in truth["images"]]:
    found = [d for d in detections if d["image_id"] == image_id]
    there = [a for a in truth["annotations"] if a["image_id"] == image_id]
    example = annotated(
      image_id, corners(there), [ids.index(a["category_id"]) for a in there],
      [a["iscrowd"] for a in there],
    )  # fmt: skip
    example["area"] = np.array([a["area"] for a in there], np.float32)
    labels, scores = [ids.index(d["category_id"]) for d in found], [d["score"] for d in found]
    pairs.append((predicted(image_id, corners(found), labels, scores), example))
  return pairs, [category["name"] for category in truth["categories"]], ids


@pytest.fixture(scope="module")
def published(shared_data):
  folder = shared_data / "eval_fixtures/dev/detection_coco_bbox100"
  return published_pairs(folder), json.loads((folder / "expected.json").read_text())


@pytest.mark.parametrize("fast", [False, pytest.param(True, marks=needs_hotcoco)])
def test_published_example(published, fast):
  (pairs, classes, ids), expected = published
  scorer, state = collect(pairs, classes, ids, fast=fast)
  result = scorer.compute(state)
  names = ["AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge"]
  names += ["AR1", "AR10", "AR100", "ARsmall", "ARmedium", "ARlarge"]
  for ours, theirs in zip(STATS, names, strict=True):
    assert result[ours] == pytest.approx(expected["reproduced"][theirs], abs=1e-9), ours
    assert result[ours] == pytest.approx(expected["published"][theirs], abs=1e-6), ours
  per_class = metric.class_ap(state, classes, ids, fast=fast)
  assert list(per_class) == classes
  for name, category_id in zip(classes, ids, strict=True):
    value = expected["per_category_AP"][str(category_id)]
    assert per_class[name] == pytest.approx(-1 if value is None else value, abs=1e-9), name


def test_hand_computed():
  # One cat found exactly, one missed; a false dog scored above the true one.
  first = (
    predicted(1, [[0, 0, 40, 40], [50, 50, 90, 90], [0, 0, 40, 40]], [0, 1, 1], [0.9, 0.8, 0.6]),
    annotated(1, [[0, 0, 40, 40], [0, 60, 40, 90], [0, 0, 40, 40]], [0, 0, 1]),
  )
  result = score([first])
  # cat: recall 1/2 at precision 1, so 51 of 101 recall levels; dog: precision 1/2 at every level.
  assert result["AP"] == pytest.approx((51 / 101 + 1 / 2) / 2)
  assert result["AP50"] == result["AP75"] == result["APm"] == result["AP"]
  assert result["AR"] == pytest.approx((1 / 2 + 1) / 2)
  assert result["AR1"] == pytest.approx((1 / 2 + 0) / 2)
  assert result["APs"] == result["APl"] == -1
  assert result["boxes"] == 3
  per_class = metric.class_ap(collect([first])[1], CLASSES, IDS)
  assert per_class == pytest.approx({"cat": 51 / 101, "dog": 0.5, "cow": -1})


def test_tighter_boxes_count_at_more_thresholds():
  # IoU 0.8 passes 0.50 ... 0.80: seven of ten thresholds.
  pair = predicted(1, [[0, 0, 80, 50]], [2], [1]), annotated(1, [[0, 0, 100, 50]], [2])
  result = score([pair])
  assert result["AP"] == pytest.approx(0.7) and result["AR"] == pytest.approx(0.7)
  assert result["AP75"] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_official_tool_on_its_own_files(seed):
  scorer, state = collect(random_pairs(seed))
  truth = json.loads(json.dumps(metric.truth_json(state, CLASSES, IDS)))
  results = json.loads(json.dumps(metric.results_json(state, IDS)))
  computed = scorer.compute(state)
  np.testing.assert_array_equal(official(truth, results), [computed[name] for name in STATS])
  assert set(results[0]) == {"image_id", "category_id", "bbox", "score"}
  x, y, width, height = results[0]["bbox"]
  record = next(record for record in state if len(record.boxes))
  np.testing.assert_allclose([y, x, y + height, x + width], record.boxes[0], rtol=1e-6)


@needs_hotcoco
@pytest.mark.parametrize("seed", range(6))
def test_fast_gives_the_same_digits(seed):
  pairs = random_pairs(seed)
  slow, fast = score(pairs), score(pairs, fast=True)
  assert fast == pytest.approx(slow, abs=1e-12)
  limits = (2, 5, 300)
  assert score(pairs, max_dets=limits, fast=True) == pytest.approx(
    score(pairs, max_dets=limits), abs=1e-12
  )


def test_fast_without_the_package(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UsageError, match="pip install hotcoco"):
    metric.coco_boxes(CLASSES, IDS, fast=True)


def test_padding_changes_nothing():
  pairs = random_pairs(7)
  padded = []
  for prediction, truth in pairs:
    prediction, truth = dict(prediction), dict(truth)
    for example in (prediction, truth):
      example["boxes"] = np.pad(example["boxes"], ((2, 3), (0, 0)))
      example["labels"] = np.pad(example["labels"], (2, 3), constant_values=-1)
    prediction["scores"] = np.pad(prediction["scores"], (2, 3), constant_values=1)
    truth["crowd"], truth["area"] = np.pad(truth["crowd"], (2, 3)), np.pad(truth["area"], (2, 3))
    padded.append((prediction, truth))
  assert score(padded) == score(pairs)


def test_order_of_images_changes_nothing():
  pairs = random_pairs(8)
  assert score(pairs[::-1]) == score(pairs)


def test_states_of_processes_may_be_joined():
  pairs = random_pairs(9)
  scorer, state = collect(pairs)
  assert scorer.compute(collect(pairs[:5])[1] + collect(pairs[5:])[1]) == scorer.compute(state)


def test_crowd_is_ignored():
  crowd = annotated(1, [[0, 0, 50, 50], [0, 60, 200, 260]], [0, 0], [False, True])
  found = [[0, 0, 50, 50], [10, 70, 50, 100], [90, 100, 150, 190]]
  result = score([(predicted(1, found, [0, 0, 0], [0.5, 0.9, 0.8]), crowd)])
  assert (
    result["AP"] == pytest.approx(1) and result["AR"] == 1
  )  # boxes in the crowd are no false positives
  plain = {**crowd, "crowd": np.zeros(2, bool)}
  assert score([(predicted(1, found, [0, 0, 0], [0.5, 0.9, 0.8]), plain)])["AP"] < 0.5
  only = annotated(1, [[0, 60, 200, 260]], [0], [True])
  assert score([(predicted(1, found, [0, 0, 0], [0.5, 0.9, 0.8]), only)])["AP"] == -1


@pytest.mark.parametrize("fast", [False, pytest.param(True, marks=needs_hotcoco)])
def test_no_predictions_at_all(fast):
  nothing = predicted(1, [], [], [])
  result = score([(nothing, annotated(1, [[0, 0, 40, 40]], [0]))], fast=fast)
  assert result["AP"] == result["AR"] == result["APm"] == 0
  assert result["APs"] == -1 and result["boxes"] == 0


@pytest.mark.parametrize("fast", [False, pytest.param(True, marks=needs_hotcoco)])
def test_nothing_to_find(fast):
  guess = predicted(1, [[0, 0, 40, 40]], [0], [0.5])
  result = score([(guess, annotated(1, [], []))], fast=fast)
  assert [result[name] for name in STATS] == [-1] * 12 and result["boxes"] == 1
  assert score([(predicted(1, [], [], []), annotated(1, [], []))], fast=fast)["AP"] == -1
  assert score([], fast=fast) == {**dict.fromkeys(STATS, -1.0), "boxes": 0.0}


def test_false_positives_on_an_image_without_truth_count():
  found = predicted(1, [[0, 0, 40, 40]], [0], [0.5]), annotated(1, [[0, 0, 40, 40]], [0])
  wrong = predicted(2, [[0, 0, 40, 40]], [0], [0.9]), annotated(2, [], [])
  assert score([found])["AP"] == pytest.approx(1)
  assert score([found, wrong])["AP"] == pytest.approx(0.5)


def test_unknown_class():
  truth = annotated(1, [[0, 0, 40, 40]], [0])
  guess = predicted(1, [[0, 0, 40, 40], [0, 0, 40, 40]], [0, 3], [0.5, 0.9])
  result = score([(guess, truth)])
  assert result["AP"] == pytest.approx(1) and result["boxes"] == 2
  with pytest.raises(DataError, match=r"image 1 .* class 3"):
    score([(guess, annotated(1, [[0, 0, 40, 40]], [3]))])


def test_what_cannot_be_scored_is_refused():
  box, truth = [[0, 0, 40, 40]], annotated(1, [[0, 0, 40, 40]], [0])
  with pytest.raises(NumericError, match="image 1"):
    score([(predicted(1, box, [0], [np.nan]), truth)])
  with pytest.raises(DataError, match="image 2"):
    score([(predicted(2, box, [0], [0.5]), truth)])
  pair = predicted(1, box, [0], [0.5]), truth
  with pytest.raises(DataError, match="more than once, such as 1"):
    score([pair, pair])
  with pytest.raises(UsageError, match="category ids"):
    metric.coco_boxes(CLASSES, (1, 2, 2))
  with pytest.raises(UsageError, match="max_dets"):
    metric.coco_boxes(CLASSES, IDS, max_dets=(1, 100, 10))


def test_prints_nothing(capsys):
  score(random_pairs(3, num=2))
  captured = capsys.readouterr()
  assert captured.out == captured.err == ""
