"""Pictures in rows: each keeps its content and shape, whatever the size of the others."""

import numpy as np
import pytest

from rtune.display.gallery import gallery
from rtune.errors import UsageError

RED, BLUE = (200, 30, 30), (30, 30, 200)


def plain(height: int, width: int, color) -> np.ndarray:
  return np.full((height, width, 3), color, np.uint8)


def places(picture: np.ndarray, color) -> tuple[int, int, int, int]:
  """y0, x0, y1, x1 around what has this color."""
  rows, columns = np.nonzero((picture == color).all(-1))
  return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


def test_each_has_the_side_asked_for_and_keeps_its_shape():
  small, large = plain(10, 20, RED), plain(400, 100, BLUE)
  shown = np.asarray(gallery([small, large], ["small", "large"], side=100))
  y0, x0, y1, x1 = places(shown, RED)
  assert (y1 - y0, x1 - x0) == (50, 100)
  y0, x0, y1, x1 = places(shown, BLUE)
  assert (y1 - y0, x1 - x0) == (100, 25)


def test_small_ones_are_enlarged_without_smoothing():
  board = np.indices((4, 4)).sum(0).astype(np.uint8) % 2 * 255
  shown = np.asarray(gallery([board[..., None].repeat(3, -1)], side=40))
  assert set(np.unique(shown)) == {0, 255}


def test_rows_break_after_the_columns():
  one = plain(50, 50, RED)
  single = gallery([one], side=50)
  assert gallery([one] * 5, side=50, columns=2).height == 3 * single.height
  wide = np.asarray(gallery([one, one, plain(50, 50, BLUE)], side=50, columns=2))
  y0, x0, *_ = places(wide, BLUE)
  assert y0 > single.height and x0 == places(np.asarray(single), RED)[1]


@pytest.mark.parametrize(
  ("count", "captions", "columns"), [(0, (), 4), (2, ("one",), 4), (1, (), 0)]
)
def test_what_cannot_be_shown_is_said(count, captions, columns):
  with pytest.raises(UsageError, match="at least one picture, a caption for each"):
    gallery([plain(8, 8, RED)] * count, captions, columns=columns)
