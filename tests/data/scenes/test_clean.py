"""Clean scenes: the same by their index, sharp and textured, without noise."""

import pickle

import numpy as np
import pytest

from rtune.data.scenes.clean import CleanScenes
from rtune.data.source import PairSource, Source
from rtune.errors import UsageError


def test_example_and_repetition():
  source = CleanScenes("train", 100, size=48)
  assert isinstance(source, Source) and not isinstance(source, PairSource) and len(source) == 100
  again = pickle.loads(pickle.dumps(CleanScenes("train", 7, size=48)))
  for index in (6, 0, np.int64(3)):
    example = source[index]
    assert set(example) == {"image", "image_id"} and example["image_id"] == index
    assert example["image"].shape == (48, 48, 3) and example["image"].dtype == np.uint8
    np.testing.assert_array_equal(example["image"], again[index]["image"])
  with pytest.raises(IndexError):
    source[100]


def test_no_scene_is_in_two_splits_or_seeds():
  sources = [CleanScenes(*where) for where in (("train", 60), ("val", 60), ("train", 60, 64, 1))]
  images = [source[index]["image"].tobytes() for source in sources for index in range(60)]
  assert len(set(images)) == len(images)


def test_gray_scenes_have_three_equal_channels():
  image = CleanScenes("val", 3, gray=True)[1]["image"]
  assert (np.ptp(image, axis=2) == 0).all() and np.ptp(image) > 20


def test_there_is_no_noise():
  """Half of what neighbors differ by is nothing or next to it, and much of the rest is edges."""
  source = CleanScenes("train", 80)
  steps = [np.abs(np.diff(source[i]["image"].astype(int), axis=1)).ravel() for i in range(80)]
  steps = np.concatenate(steps)
  assert (steps <= 2).mean() > 0.4 and (steps >= 30).mean() > 0.03


def test_there_is_detail_that_a_low_resolution_loses():
  """Scaled down and up again: PSNR as of photographs, not of smooth pictures."""
  from rtune.data import corrupt

  source, rng = CleanScenes("train", 60), np.random.default_rng(0)
  psnr = {}
  for scale in (2, 4):
    values = []
    for index in range(60):
      image = source[index]["image"] / np.float32(255)
      small = corrupt.bicubic(image, rng, scale=scale)
      values.append(np.mean((corrupt.enlarge(small, rng, scale=scale) - image) ** 2))
    psnr[scale] = -10 * np.log10(np.mean(values))
  assert 18 < psnr[4] < psnr[2] - 1.5 < 33


def test_edges_have_all_angles():
  source, angles = CleanScenes("train", 150), []
  for index in range(150):
    gray = source[index]["image"].astype(float).mean(axis=2)
    down, right = np.gradient(gray)
    strong = np.hypot(down, right) > 25
    angles.append(np.arctan2(down, right)[strong] % np.pi)
  shares = np.histogram(np.concatenate(angles), bins=12, range=(0, np.pi))[0]
  assert shares.min() > 0.3 * shares.mean()


def test_background_alone_and_fields():
  assert CleanScenes("val", 2, max_layers=0, min_layers=0)[0]["image"].shape == (64, 64, 3)
  assert CleanScenes("val", 2, size=200)[0]["image"].shape == (200, 200, 3)
  with pytest.raises(UsageError, match="CleanScenes: split is 'test'"):
    CleanScenes("test", 2)
  with pytest.raises(UsageError, match="CleanScenes: min_layers is 9"):
    CleanScenes("val", 2, min_layers=9)
