"""Scores of a COCO file through our source: those of the official tool on the file as it is."""

import contextlib
import importlib.util
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtune.data.sources.coco import CocoDetection
from rtune.metrics.boxes import coco_boxes

STATS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl"]
WIDTH, HEIGHT = 300, 200
FAST = pytest.mark.parametrize(
  "fast",
  [
    False,
    pytest.param(
      True,
      marks=pytest.mark.skipif(
        importlib.util.find_spec("hotcoco") is None, reason="needs the optional package hotcoco"
      ),
    ),
  ],
)


def annotations_of(rng, image_id, first):
  """Boxes within the image, over its edges, far outside, without width; of all sizes; crowds."""
  count = int(rng.integers(0, 12))
  sides = rng.choice([8, 31.5, 33, 60, 140], (count, 2)) * rng.uniform(0.9, 1.1, (count, 2))
  corners = rng.uniform(-40, 280, (count, 2)) * (1, 0.75)
  corners[rng.random(count) < 0.1] += 500
  sides[rng.random(count) < 0.1, 0] = 0
  sides[rng.random(count) < 0.05, 1] *= -1
  areas = sides.prod(1) * rng.uniform(0.3, 1.2, count)
  exact = rng.random(count) < 0.2  # float32 would round these into the range of sizes below
  areas[exact] = rng.choice([1024.00001, 9216.0001, -1, 1024], count)[exact]
  return [
    {
      "id": first + row,
      "image_id": image_id,
      "category_id": int(rng.choice([90, 3, 17])),
      "bbox": [*corners[row].tolist(), *sides[row].tolist()],
      "area": float(areas[row]),
      "iscrowd": [0, 0, 0, 0, 1, True, 2][rng.integers(0, 7)],
      **({"ignore": 1} if rng.random() < 0.2 else {}),  # the official tool writes over it
    }
    for row in range(count)
  ]


@pytest.fixture(params=range(4))
def file(request, tmp_path):
  """(path, its content, generator)."""
  rng = np.random.default_rng(request.param)
  Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "one.png")
  ids = rng.permutation(100)[:15].tolist()
  annotations = []
  for image_id in ids:
    annotations += annotations_of(rng, image_id, len(annotations) + 1)
  order = rng.permutation(len(annotations))
  data = {
    "images": [{"id": image_id, "file_name": "one.png"} for image_id in ids],
    "categories": [{"id": 90, "name": "z"}, {"id": 3, "name": "a"}, {"id": 17, "name": "m"}],
    "annotations": [annotations[row] for row in order],
  }
  return write(tmp_path, data), data, rng


def write(folder, data):
  path = folder / "file.json"
  path.write_text(json.dumps(data))
  return str(path)


def near(raw, rng):
  """Guesses around what is annotated, cut or not, with tied scores, and some anywhere."""
  x, y, width, height = raw["official_boxes"].T
  whole = np.stack([y, x, y + height, x + width], 1)
  boxes = np.concatenate([whole, raw["boxes"], whole[:3]])
  labels = np.concatenate([raw["official_labels"], raw["labels"], raw["official_labels"][:3]])
  boxes = np.concatenate([boxes + rng.normal(0, 3, boxes.shape), rng.uniform(0, 200, (4, 4))])
  boxes = np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
  labels = np.concatenate([labels, rng.integers(0, 3, 4)])
  scores = rng.integers(0, 30, len(labels)) / 30
  return boxes.astype(np.float32), labels, scores.astype(np.float32)


def perfect(raw, rng):
  """What a model that has learned everything there is to learn predicts."""
  del rng
  return raw["boxes"], raw["labels"], np.ones(len(raw["labels"]), np.float32)


def ours(source, guesses, fast=False):
  metric = coco_boxes(source.classes, source.category_ids, fast=fast)
  state = metric.init()
  for raw, (boxes, labels, scores) in zip(source, guesses, strict=True):
    prediction = {"boxes": boxes, "labels": labels, "scores": scores}
    state = metric.update(state, {"image_id": raw["image_id"], **prediction}, raw)
  return metric.compute(state)


def official(path, guesses, image_ids):
  """The twelve numbers of the official tool, which reads the file itself."""
  results = []
  for image_id, (boxes, labels, scores) in zip(image_ids, guesses, strict=True):
    for box, label, score in zip(boxes.astype(float), labels, scores.astype(float), strict=True):
      bbox = [box[1], box[0], box[3] - box[1], box[2] - box[0]]
      category = (3, 17, 90)[label]
      results.append({"image_id": image_id, "category_id": category, "bbox": bbox, "score": score})
  with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO(path)
    scorer = COCOeval(coco, coco.loadRes(results), "bbox")
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
  return dict(zip(STATS, scorer.stats.tolist(), strict=True))


@FAST
@pytest.mark.parametrize("guess", [near, perfect])
def test_scores_are_those_of_the_official_tool_on_the_file(file, guess, fast):
  path, data, rng = file
  source = CocoDetection(path)
  guesses = [guess(raw, rng) for raw in source]
  wanted = official(path, guesses, [image["id"] for image in data["images"]])
  found = ours(source, guesses, fast)
  assert {name: found[name] for name in STATS} == pytest.approx(wanted, abs=1e-9)
  assert 0.05 < wanted["AP"] < 0.95  # even perfect predictions miss what they cannot learn


def test_half_of_a_box_in_view_is_no_match(tmp_path):
  Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "one.png")
  box = {"id": 1, "image_id": 1, "category_id": 3, "iscrowd": 0, "area": 4000.0}
  data = {
    "images": [{"id": 1, "file_name": "one.png"}],
    "categories": [{"id": 3, "name": "a"}],
    "annotations": [{**box, "bbox": [-55, 10, 100, 40]}, {**box, "id": 2, "bbox": [90, 90, 0, 9]}],
  }
  source = CocoDetection(write(tmp_path, data))
  (raw,) = source
  found = ours(source, [(raw["boxes"], raw["labels"], np.ones(1, np.float32))])
  assert raw["boxes"].tolist() == [[10, 0, 50, 45]]
  assert found["AP"] == found["AR"] == found["APm"] == 0 and found["APs"] == -1
  # One of two is found, so half of the recall levels are reached.
  whole = np.array([[10, -55, 50, 45]], np.float32)
  found = ours(source, [(whole, raw["labels"], np.ones(1, np.float32))])
  assert found["AP"] == pytest.approx(51 / 101) and found["AR"] == 0.5


def test_without_an_area_the_box_decides_on_the_range_of_sizes(file, tmp_path):
  _, data, rng = file
  for one in data["annotations"]:
    one["area"] = one["bbox"][2] * one["bbox"][3]
  path = write(tmp_path, data)
  guesses = [near(raw, rng) for raw in CocoDetection(path)]
  wanted = official(path, guesses, [image["id"] for image in data["images"]])
  for one in data["annotations"]:
    del one["area"]
  found = ours(CocoDetection(write(tmp_path, data)), guesses)
  assert {name: found[name] for name in STATS} == pytest.approx(wanted, abs=1e-9)
