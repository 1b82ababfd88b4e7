"""Squares lie where their boxes say, and annotators miss the dim ones as often as asked."""

import numpy as np
import pytest

from rtune.data.scenes.squares import Squares
from rtune.data.source import DetectionSource
from rtune.errors import UsageError


def test_boxes_are_around_squares_of_one_brightness():
  source = Squares("val", 50, miss_dim=0.0)
  assert isinstance(source, DetectionSource)
  for index in range(50):
    one = source[index]
    assert len(one["boxes"]) in (1, 2, 3)
    y0, x0, y1, x1 = one["boxes"][-1].astype(int)  # the last one hides nothing of itself
    inside = one["image"][y0:y1, x0:x1]
    assert len(np.unique(inside)) == 1 and inside.min() > 60
    assert y1 - y0 == x1 - x0 and y1 - y0 in (8, 12) and y0 % 4 == x0 % 4 == 0
    assert one["area"][-1] == inside[..., 0].size


def test_annotators_miss_dim_ones_alone():
  seen = {}
  for miss in (0.0, 0.4, 1.0):
    source = Squares("train", 400, miss_dim=miss)
    values = []
    for index in range(400):
      one = source[index]
      y, x = (one["boxes"][:, :2].astype(int)).T
      values += one["image"][y, x, 0].tolist()
    seen[miss] = values.count(110)
    assert values.count(240) > 300
  assert seen[1.0] < 0.05 * seen[0.0]  # the corner of a bright one that another hides
  assert seen[0.4] == pytest.approx(0.6 * seen[0.0], rel=0.12)


def test_the_same_fields_give_the_same_scenes_and_splits_differ():
  one, same, other = (Squares(split, 3)[2] for split in ("train", "train", "val"))
  np.testing.assert_array_equal(one["image"], same["image"])
  np.testing.assert_array_equal(one["boxes"], same["boxes"])
  assert (one["image"] != other["image"]).any()
  with pytest.raises(IndexError):
    Squares("val", 3)[3]
  with pytest.raises(UsageError, match="miss_dim is 2"):
    Squares("val", 3, miss_dim=2.0)
