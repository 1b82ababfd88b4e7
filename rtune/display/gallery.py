"""Pictures in rows, as a notebook shows them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rtune.display.draw import side_by_side
from rtune.errors import UsageError


def gallery(
  pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
  captions: Sequence[str] = (),
  *,
  columns: int = 4,
  side: int = 200,
) -> Image.Image:
  """Pictures in rows, each below its caption: what a notebook shows of the last line of a cell.

  Args:
    pictures: RGB, each [H, W, 3] of another size.
    captions: one for each picture; (): none.
    columns: pictures in a row.
    side: pixels of the longer side of each, at most; pictures change by whole factors.

  Raises:
    UsageError: no picture, or another number of captions.
  """
  captions = captions or [""] * len(pictures)
  if not pictures or len(pictures) != len(captions) or columns < 1:
    raise UsageError(
      f"gallery: {len(pictures)} pictures, {len(captions)} captions, {columns} columns; "
      "give at least one picture, a caption for each or none at all, and at least one column."
    )
  resized = [_resized(picture, side) for picture in pictures]
  starts = range(0, len(pictures), columns)
  rows = [side_by_side(resized[i : i + columns], captions[i : i + columns]) for i in starts]
  width = max(row.shape[1] for row in rows)
  white = {"mode": "constant", "constant_values": 255}
  return Image.fromarray(
    np.concatenate(
      [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), **white) for row in rows]
    )
  )


def _resized(picture: np.ndarray, side: int) -> np.ndarray:
  """Enlarged or reduced by a whole factor: pixels stay squares, which PNG holds in few bytes."""
  longest = max(picture.shape[:2])
  if longest > side:
    return np.asarray(Image.fromarray(picture).reduce(-(-longest // side)))
  factor = side // longest
  return picture.repeat(factor, 0).repeat(factor, 1)
