"""Patches that are cut and blended, for any size of picture.

Dimension key:
  B: batch of pictures
"""

import jax.numpy as jnp
import numpy as np
import pytest

from rtune.models import blend

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIZES = [(16, 16), (17, 29), (64, 52), (5, 40), (124, 124), (3, 2)]


def picture(height, width, kind):
  y, x = np.mgrid[:height, :width].astype(np.float32)
  values = {
    "constant": np.full((height, width), 0.37, np.float32),
    "linear": 0.01 * y - 0.02 * x + 0.5,
    "random": np.random.default_rng(0).random((height, width), np.float32),
  }[kind]
  return jnp.asarray(np.stack([values, 2 * values], axis=-1)[None])


@pytest.mark.parametrize("kind", ["constant", "linear", "random"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_what_is_cut_and_blended_is_the_picture_again(height, width, kind):
  image = picture(height, width, kind)
  grid = blend.grid(height, width, 16, 4)
  patches = blend.cut(image, grid)
  assert patches.shape == (1, grid.rows, grid.columns, 16, 16, 2)
  found = blend.blended(patches, grid, height, width)
  np.testing.assert_allclose(found, image, atol=3e-7)


@pytest.mark.parametrize(("side", "overlap"), [(16, 4), (8, 0), (8, 4), (6, 3)])
def test_blending_is_the_weighted_sum_of_patches(side, overlap):
  """Brute force: every patch is added at its place, with the product of its ramps."""
  rng = np.random.default_rng(1)
  height, width = 29, 40
  grid = blend.grid(height, width, side, overlap)
  patches = rng.normal(size=(2, grid.rows, grid.columns, side, side, 3)).astype(np.float32)
  want = np.zeros((2, *grid.reach, 3))
  rows, columns = (blend.ramps(n, side, overlap) for n in (grid.rows, grid.columns))
  stride = side - overlap
  for row in range(grid.rows):
    for column in range(grid.columns):
      weight = np.outer(rows[row], columns[column])[None, :, :, None]
      y, x = row * stride, column * stride
      want[:, y : y + side, x : x + side] += weight * patches[:, row, column]
  found = blend.blended(jnp.asarray(patches), grid, height, width)
  np.testing.assert_allclose(found, want[:, :height, :width], atol=1e-5)


def test_ramps_are_linear_and_add_up_to_one():
  weights = blend.ramps(3, 16, 4)
  np.testing.assert_allclose(weights[1, :4], [0.125, 0.375, 0.625, 0.875])
  np.testing.assert_array_equal(weights[0, :12], np.ones(12))
  np.testing.assert_array_equal(weights[0, 12:] + weights[1, :4], np.ones(4))


def test_patches_beyond_the_border_are_mirrored():
  image = picture(20, 16, "random")
  grid = blend.grid(20, 16, 16, 4)
  assert (grid.rows, grid.columns, grid.reach) == (2, 1, (28, 16))
  patches = np.asarray(blend.cut(image, grid))
  np.testing.assert_array_equal(patches[0, 1, 0, 8:16], np.asarray(image)[0, 12:20][::-1])
