"""Scenes as pictures: the same as those with boxes, and nothing else."""

import numpy as np
import pytest

from rtune.data.scenes.colored import ColoredShapes
from rtune.data.scenes.shapes import Shapes
from rtune.errors import UsageError
from rtune.predictions.lab import LUMA

FIELDS = {"split": "val", "num": 5, "size": 24, "seed": 3, "max_objects": 3, "smallest": 0.2}


def test_pictures_are_those_of_the_scenes():
  source, scenes = ColoredShapes(**FIELDS, fade=0.0), Shapes(**FIELDS)
  assert len(source) == 5 and not hasattr(source, "category_ids")
  for index in range(5):
    example = source[index]
    assert set(example) == {"image", "image_id"} and example["image_id"] == index
    np.testing.assert_array_equal(example["image"], scenes[index]["image"])
  with pytest.raises(IndexError):
    source[5]


def test_colors_fade_and_lightness_stays():
  shares = []
  sources = [ColoredShapes("val", 40, fade=fade) for fade in (2.0, 0.0)]
  for index in range(40):
    a, b = (source[index]["image"].astype(float) for source in sources)
    np.testing.assert_allclose(a @ LUMA, b @ LUMA, atol=0.6)
    shares.append((a - (a @ LUMA)[..., None]).std() / (b - (b @ LUMA)[..., None]).std())
  assert min(shares) < 0.1 and max(shares) > 0.8
  assert 0.2 < np.mean(shares) < 0.45  # a third


def test_fields_are_checked_at_once():
  with pytest.raises(UsageError, match="fade is -1"):
    ColoredShapes(**FIELDS, fade=-1.0)
  with pytest.raises(UsageError, match="smallest is 2"):
    ColoredShapes(**FIELDS | {"smallest": 2.0})
