"""Four images as one: boxes, segments and label maps stay with their pixels."""

import numpy as np
import pytest

from rtune.data.mosaic import Mosaics, mosaic
from rtune.data.source import Categories, DetectionSource
from rtune.errors import UsageError

SHAPES = ((60, 80), (40, 50), (97, 31), (64, 64))


class Scenes:
  """Each has one gray rectangle on black, as bright as its own number says."""

  classes, category_ids = ("a", "b", "c", "d"), (1, 2, 3, 4)

  def __len__(self):
    return len(SHAPES)

  def __getitem__(self, index):
    height, width = SHAPES[index]
    y0, x0, y1, x1 = height // 4, width // 4, 3 * height // 4, 3 * width // 4
    image, segments = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint16)
    image[y0:y1, x0:x1], segments[y0:y1, x0:x1] = 60 * (index + 1), 1
    return {
      "image": image,
      "image_id": index,
      "boxes": np.array([[y0, x0, y1, x1]], np.float32),
      "labels": np.array([index], np.int32),
      "crowd": np.zeros(1, bool),
      "area": np.array([(y1 - y0) * (x1 - x0)], np.float32),
    }


class Segments(Scenes):
  def __getitem__(self, index):
    scene = super().__getitem__(index)
    y0, x0, y1, x1 = scene.pop("boxes")[0].astype(int)
    segments = np.zeros(SHAPES[index], np.uint16)
    segments[y0:y1, x0:x1] = 1
    del scene["area"]
    return {**scene, "segments": segments}


class Maps(Scenes):
  def __getitem__(self, index):
    scene = super().__getitem__(index)
    return {k: scene[k] for k in ("image", "image_id")} | {
      "label_map": (scene["image"][..., 0] // 60).astype(np.int16)
    }


def made(source, seeds=40):
  for seed in range(seeds):
    rng = np.random.default_rng(seed)
    parts = [source[int(k)] for k in rng.permutation(4)]
    yield parts, mosaic(parts, rng)


def level(label) -> int:
  return 60 * (int(label) + 1)


def test_boxes_are_around_their_pixels():
  kept = 0
  for parts, found in made(Scenes()):
    assert found["image"].shape == parts[0]["image"].shape
    gray = found["image"][..., 0].astype(int)
    for box, label in zip(found["boxes"], found["labels"], strict=True):
      y0, x0, y1, x1 = box
      inside = gray[round(y0) + 1 : round(y1) - 1, round(x0) + 1 : round(x1) - 1]
      assert (inside == level(label)).all()
      # And around it there is no more of it. Each label is there once, but two of one brightness
      # can only be the edges of a brighter one, which bilinear resizing makes.
      rows, columns = np.nonzero(gray == level(label))
      near = (rows > y0 - 3) & (rows < y1 + 3) & (columns > x0 - 3) & (columns < x1 + 3)
      assert rows[near].min() >= y0 - 1 and rows[near].max() <= y1 + 1
      assert columns[near].min() >= x0 - 1 and columns[near].max() <= x1 + 1
      kept += 1
  assert kept > 80  # of 160: some are cut away


def test_what_is_hardly_left_of_a_box_is_not_kept():
  for _, found in made(Scenes()):
    present = {label for label in range(4) if (found["image"][..., 0] == level(label)).sum() > 200}
    lost = present - set(found["labels"].tolist())
    # Whoever is lost has less than a third of its area in the picture.
    for label in lost:
      shown = (found["image"][..., 0] == level(label)).sum()
      height, width = SHAPES[label]
      assert shown < 0.35 * (height // 2 + 1) * (width // 2 + 1) * 4
  assert found["area"].dtype == np.float32


def test_segments_have_numbers_of_their_own():
  for _, found in made(Segments()):
    assert found["segments"].shape == found["image"].shape[:2]
    assert len(found["labels"]) == len(found["crowd"]) == 4
    gray = found["image"][..., 0].astype(int)
    for row, label in enumerate(found["labels"]):
      pixels = found["segments"] == row + 1
      if pixels.sum() > 50:
        assert abs(np.median(gray[pixels]) - level(label)) < 30  # the edges of others are blurred
    assert np.mean(gray[found["segments"] == 0] == 0) > 0.8


def test_label_maps_follow_their_pixels():
  for _, found in made(Maps()):
    gray = found["image"][..., 0].astype(int)
    assert np.mean(gray == 60 * found["label_map"]) > 0.85


def test_mosaics_come_after_the_images_and_are_always_the_same():
  source = Mosaics(Scenes(), 1.5, seed=3)
  assert (
    len(source) == 10 and isinstance(source, DetectionSource) and isinstance(source, Categories)
  )
  assert source[2]["image_id"] == 2
  np.testing.assert_array_equal(source[7]["image"], source[7]["image"])
  assert len({source[k]["image_id"] for k in range(10)}) == 10
  assert any(len(source[k]["labels"]) > 1 for k in range(4, 10))
  with pytest.raises(IndexError):
    source[10]


def test_there_must_be_something_that_moves():
  class Captions:
    def __len__(self):
      return 1

    def __getitem__(self, index):
      return {"image": np.zeros((8, 8, 3), np.uint8), "image_id": 0, "captions": ("a",)}

  with pytest.raises(UsageError, match=r"config\.data\.mosaic is 0\.5.*set it to 0"):
    Mosaics(Captions(), 0.5, 0)
