"""Images with counts in place of boxes."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from rtune import config as configs
from rtune.config.names import resolve
from rtune.data.source import DetectionSource
from rtune.data.sources.counted import Counted
from rtune.errors import DataError, UsageError
from rtune.tasks.detection import Detection
from rtune.training.setup import prepare

ROOT = pathlib.Path(__file__).resolve().parents[3]
CATEGORIES = [{"id": 7, "name": "cell"}, {"id": 3, "name": "caf\u00e9"}]


def write(folder, *images, categories=CATEGORIES):
  records = []
  for number, more in enumerate(images):
    Image.new("RGB", (40, 30), (number, 0, 0)).save(folder / f"{number}.png")
    records.append({"id": number + 5, "file_name": f"{number}.png", **more})
  path = folder / "counts.json"
  path.write_text(json.dumps({"images": records, "categories": categories}))
  return str(path)


def test_counts_and_labels_are_read(tmp_path):
  given = {"counts": {"cell": 3, "cafe\u0301": 1.0}}, {"labels": ["cell"]}, {"counts": {}}
  source = Counted(write(tmp_path, *given))
  assert isinstance(source, DetectionSource)
  assert source.classes == ("caf\u00e9", "cell") and source.category_ids == (3, 7)
  assert [sorted(source[k]["labels"].tolist()) for k in range(3)] == [[0, 1, 1, 1], [1], []]
  assert source.box_counts().tolist() == [4, 1, 0] and source.class_counts().tolist() == [1, 4]
  first = source[0]
  np.testing.assert_array_equal(first["boxes"], np.tile([0, 0, 30, 40], (4, 1)))
  assert first["image_id"] == 5 and first["image"].shape == (30, 40, 3)


def test_a_view_of_training_keeps_the_counts(tmp_path):
  source = Counted(write(tmp_path, {"counts": {"cell": 3}}))
  task = Detection(image_size=16, max_boxes=5, levels=17, flip=0.5)
  for seed in range(5):
    features = task.example(source[0], np.random.default_rng(seed))
    assert sorted(features["labels"].tolist()) == [-1, -1, 1, 1, 1]


@pytest.mark.parametrize(
  ("given", "said"),
  [
    ({}, "images without counts or labels"),
    ({"counts": 3}, "images without counts or labels"),
    ({"counts": {"cell": -1}}, "counts that are no whole numbers"),
    ({"counts": {"cell": "many"}}, "counts that are no whole numbers"),
    ({"counts": {"cells": 1}}, "classes that are not among the categories"),
  ],
)
def test_what_cannot_be_a_count_is_named(tmp_path, given, said):
  with pytest.raises(DataError, match=said):
    Counted(write(tmp_path, {"counts": {"cell": 1}}, given))


def config_of(path, **changes) -> configs.Config:
  config = resolve(f"{ROOT / 'configs' / 'detection_recall.py'}:get_config")("tiny")
  config.data.train = {"fn": "rtune.data.sources.counted:Counted", "args": {"annotations": path}}
  config.data.val = config.data.train
  config.update(changes)
  return config


def test_nobody_imitates_counts(tmp_path):
  config = config_of(write(tmp_path, {"counts": {"cell": 1}}))
  with pytest.raises(UsageError, match="does not know where objects are"):
    prepare(configs.parse(config))
  config.phases = ("reward",)
  config.task.args.scale_max = 2.0
  with pytest.raises(UsageError, match="scale_max=1"):
    prepare(configs.parse(config))
  config.task.args.scale_max = 1.0
  config.reward.fn = "rtune.rewards.weak:count"
  assert prepare(configs.parse(config)).task.classes == ("caf\u00e9", "cell")
