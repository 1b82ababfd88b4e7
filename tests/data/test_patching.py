"""Patches of both pictures of a pair show the same place, turned the same way."""

import numpy as np
import pytest

from rtune.data import corrupt, patching
from rtune.errors import DataError


def numbered(height, width, scale=1):
  """Pixels that say where they are in the degraded picture: [scale * H, scale * W, 2]."""
  rows, columns = np.arange(scale * height) // scale, np.arange(scale * width) // scale
  return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)


@pytest.mark.parametrize("scale", [1, 3])
def test_both_pictures_are_cut_and_turned_alike(scale):
  image, clean = numbered(9, 13), numbered(9, 13, scale)
  rng = np.random.default_rng(0)
  for _ in range(50):
    patch = patching.draw(9, 13, 5, rng)
    part, clean_part = patching.cut(image, patch, 5), patching.cut(clean, patch, 5, scale)
    assert part.shape == (5, 5, 2) and clean_part.shape == (5 * scale, 5 * scale, 2)
    assert part.flags.c_contiguous
    np.testing.assert_array_equal(clean_part, part.repeat(scale, axis=0).repeat(scale, axis=1))


def test_all_places_and_all_eight_turns_occur_as_often():
  image, rng = numbered(6, 5), np.random.default_rng(1)
  patches = [patching.draw(6, 5, 4, rng) for _ in range(4800)]
  corners = [patch.corner for patch in patches]
  assert set(corners) == {(top, left) for top in range(3) for left in range(2)}
  counts = np.bincount([3 * left + top for top, left in corners])
  assert (np.abs(counts - 800) < 4 * np.sqrt(800)).all()
  seen = {patching.cut(image, patch, 4).tobytes() for patch in patches if patch.corner == (0, 0)}
  assert len(seen) == 8  # each turn is another picture
  turns = np.bincount([patch.turn for patch in patches])
  assert (np.abs(turns - 600) < 4 * np.sqrt(600)).all()


def test_quarter_turns_and_mirroring():
  image = numbered(3, 3)[..., :1] * 3 + numbered(3, 3)[..., 1:]
  cut = [patching.cut(image, patching.Patch((0, 0), turn), 3)[..., 0].tolist() for turn in range(8)]
  assert cut[0] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
  assert cut[1] == [[2, 5, 8], [1, 4, 7], [0, 3, 6]]
  assert cut[4] == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]


def test_unturned_patches_take_as_many_draws():
  one, other = np.random.default_rng(2), np.random.default_rng(2)
  turned, straight = patching.draw(9, 9, 4, one), patching.draw(9, 9, 4, other, turned=False)
  assert turned.corner == straight.corner and straight.turn == 0
  assert one.random() == other.random()


def test_a_picture_as_large_as_the_patch_and_a_smaller_one():
  assert patching.draw(8, 8, 8, np.random.default_rng(0)).corner == (0, 0)
  with pytest.raises(DataError, match="30 x 7, smaller than a patch of 8 x 8"):
    patching.draw(7, 30, 8, np.random.default_rng(0))


def test_on_a_canvas():
  image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
  assert patching.on_canvas(image, 3, 4) is image
  canvas = patching.on_canvas(image, 8, 6)
  assert canvas.shape == (8, 6, 1) and canvas.dtype == np.uint8
  np.testing.assert_array_equal(canvas[:3, :4], image)
  np.testing.assert_array_equal(canvas[:3, 4:6], image[:, [3, 2]])
  np.testing.assert_array_equal(canvas[3:8, :4], image[[2, 1, 0, 0, 1]])  # mirrored again
  with pytest.raises(DataError, match="4 x 3, larger than the canvas of 9 x 2"):
    patching.on_canvas(image, 2, 9)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_canvases_of_both_resolutions_show_the_same(scale):
  """With a mirror through the edge pixels a flow's likelihood was off by 1e7 bits a number."""
  rng = np.random.default_rng(0)
  clean = rng.random((10 * scale, 7 * scale, 3), np.float32)
  smaller = corrupt.bicubic(clean, rng, scale=scale)
  canvas = patching.on_canvas(clean, 16 * scale, 12 * scale)
  again = corrupt.bicubic(canvas, rng, scale=scale)
  wanted = patching.on_canvas(smaller, 16, 12)
  # The canvas's own borders are seen two pixels wide.
  np.testing.assert_allclose(again[:-2, :-2], wanted[:-2, :-2], atol=1.01 / 255)
