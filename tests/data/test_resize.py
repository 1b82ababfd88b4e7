"""Bicubic scaling is MATLAB's and Pillow's, and what both must be by their kernel."""

import numpy as np
import pytest
from PIL import Image

from rtune.data import resize

SIZES = ((20, 30, 10, 15), (21, 31, 7, 31), (24, 16, 6, 4), (9, 7, 36, 28), (12, 12, 31, 5))


def picture(height, width, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pillow(image, height, width):
  """Each channel by itself, in floating point."""
  resized = [
    Image.fromarray(np.ascontiguousarray(image[..., channel], np.float32)).resize(
      (width, height), Image.Resampling.BICUBIC
    )
    for channel in range(image.shape[2])
  ]
  return np.stack([np.asarray(one) for one in resized], axis=-1)


@pytest.mark.parametrize(("height", "width", "new_height", "new_width"), SIZES)
def test_pillow(height, width, new_height, new_width):
  image = picture(height, width)
  found = resize.bicubic(image.astype(np.float32), new_height, new_width, "pillow")
  assert found.shape == (new_height, new_width, 3) and found.dtype == np.float32
  np.testing.assert_allclose(found, pillow(image, new_height, new_width), atol=3e-4)
  rounded = resize.bicubic(image.astype(np.float32), new_height, new_width, "pillow", rounded=True)
  size = (new_width, new_height)
  official = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
  off = np.abs(rounded - np.asarray(official, np.float32))
  assert off.max() <= 1 and (off > 0).mean() < 0.01  # Pillow's weights have 22 bits


@pytest.mark.parametrize(("height", "width", "new_height", "new_width"), SIZES)
def test_matlab_is_pillow_of_the_mirrored_picture(height, width, new_height, new_width):
  image = picture(height, width).astype(np.float32)
  mirrored = np.pad(image, ((height, height), (width, width), (0, 0)), mode="symmetric")
  whole = pillow(mirrored, 3 * new_height, 3 * new_width)
  expected = whole[new_height : 2 * new_height, new_width : 2 * new_width]
  found = resize.bicubic(image, new_height, new_width, "matlab")
  np.testing.assert_allclose(found, expected, atol=5e-4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_matlab_made_the_low_resolution_of_set5(shared_data, scale):
  folder = shared_data / "denoise_sr" / "set5" / "dev"
  for path in sorted((folder / "HR").glob("*.png")):
    low = np.asarray(Image.open(folder / f"LR_bicubic/X{scale}/{path.stem}x{scale}.png"))
    height, width = low.shape[:2]
    high = np.asarray(Image.open(path), np.float32)[: scale * height, : scale * width]
    np.testing.assert_array_equal(resize.bicubic(high, height, width, rounded=True), low)


@pytest.mark.parametrize("kind", ["matlab", "pillow"])
def test_the_kernel_keeps_constants_and_interpolates_parabolas(kind):
  flat = np.full((12, 12, 1), 0.7, np.float32)
  for size in (3, 4, 12, 30):
    np.testing.assert_allclose(resize.bicubic(flat, size, size, kind), 0.7, atol=1e-6)
  image = picture(8, 9).astype(np.float32)
  np.testing.assert_array_equal(resize.bicubic(image, 8, 9, kind), image)
  place = np.arange(20, dtype=np.float32)
  parabola = np.broadcast_to((place**2)[:, None, None], (20, 5, 1)).copy()
  found = resize.bicubic(parabola, 60, 5, kind)[9:-9, 2, 0]
  there = ((np.arange(60) + 0.5) / 3 - 0.5)[9:-9]
  np.testing.assert_allclose(found, there**2, atol=1e-3)
