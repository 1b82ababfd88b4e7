"""Scenes as pictures: the same as those with boxes, and nothing else."""

import numpy as np
import pytest

from rtune.data.colored_shapes import ColoredShapes
from rtune.data.shapes import Shapes
from rtune.errors import UsageError

FIELDS = {"split": "val", "num": 5, "size": 24, "seed": 3, "max_objects": 3, "smallest": 0.2}


def test_pictures_are_those_of_the_scenes():
  source, scenes = ColoredShapes(**FIELDS), Shapes(**FIELDS)
  assert len(source) == 5 and not hasattr(source, "category_ids")
  for index in range(5):
    example = source[index]
    assert set(example) == {"image", "image_id"} and example["image_id"] == index
    np.testing.assert_array_equal(example["image"], scenes[index]["image"])
  with pytest.raises(IndexError):
    source[5]


def test_fields_are_checked_at_once():
  with pytest.raises(UsageError, match="smallest is 2"):
    ColoredShapes(**FIELDS | {"smallest": 2.0})
