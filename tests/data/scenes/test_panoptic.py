"""Segments of rendered scenes: every pixel has one, and they are where the objects are."""

import pickle

import numpy as np
import pytest

from rtune.data.scenes import render
from rtune.data.scenes.panoptic import PanopticShapes
from rtune.data.scenes.shapes import Shapes
from rtune.data.source import Source
from rtune.errors import UsageError


def test_example_has_the_fields_of_a_panoptic_source():
  source = PanopticShapes("train", 100, size=48)
  example = source[7]
  assert isinstance(source, Source) and len(source) == 100
  assert example["image"].shape == (48, 48, 3) and example["image"].dtype == np.uint8
  assert example["image_id"] == 7 and type(example["image_id"]) is int
  assert example["segments"].shape == (48, 48) and example["segments"].dtype == np.uint8
  assert example["labels"].dtype == np.int32 and not example["crowd"].any()
  assert len(example["crowd"]) == len(example["labels"])
  assert len(source.classes) == len(source.category_ids) == len(source.things) == 12
  assert source.classes[:6] == render.KINDS and source.things == (True,) * 6 + (False,) * 6


def test_segments_follow_from_seed_split_and_index_alone():
  source = PanopticShapes("val", 20, size=32)
  again = pickle.loads(pickle.dumps(PanopticShapes("val", 999, size=32)))
  for index in (19, 3, 3, np.int64(7)):
    for name, value in source[index].items():
      np.testing.assert_array_equal(value, again[index][name])
  np.testing.assert_array_equal(source[4]["image"], Shapes("val", 20, size=32)[4]["image"])
  with pytest.raises(IndexError):
    source[20]


def test_segments_are_the_noticed_objects_and_the_regions_behind():
  source = PanopticShapes("train", 60, size=48, max_objects=8)
  missed = 0
  for index in range(60):
    example = source[index]
    scene, noticed = source.noticed(index)
    numbers = np.unique(example["segments"])
    assert numbers.tolist() == list(range(1, len(example["labels"]) + 1))  # no void, all in use
    kind = np.append(-1, example["labels"])[example["segments"]]
    for row in range(len(noticed)):
      if noticed[row]:
        own = np.unique(example["segments"][scene.mask(row)])
        assert len(own) == 1 and example["labels"][own[0] - 1] == scene.kinds_N[row]
        assert np.array_equal(example["segments"] == own[0], scene.mask(row))
    behind = ~np.isin(scene.ids_SS, np.flatnonzero(noticed) + 1)
    np.testing.assert_array_equal(kind[behind], 6 + scene.stuff_SS[behind])
    missed += (~noticed).sum()
  assert missed > 10


def test_annotators_notice_the_same_objects_as_in_detection():
  scenes, boxes = PanopticShapes("train", 40), Shapes("train", 40)
  for index in range(40):
    labels = scenes[index]["labels"]
    assert sorted(labels[labels < 6]) == sorted(boxes[index]["labels"])


def test_fields_are_checked():
  with pytest.raises(UsageError, match="split"):
    PanopticShapes("test", 3)
  with pytest.raises(UsageError, match="max_objects"):
    PanopticShapes("val", 3, max_objects=300)
