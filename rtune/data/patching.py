"""Patches of pairs for training, and pairs of any size on canvases of one size for evaluation.

Whatever is done to a degraded picture is done to its clean one, which may be larger by a whole
scale: sizes and places are those of the degraded picture.

Dimension key:
  H, W: height and width of a degraded picture; its clean one is [scale * H, scale * W]
  C: channels
  S: side of a patch
  Y, X: height and width of a canvas
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from rtune.errors import DataError

_TURNS = 8  # of a square: four rotations, each of them mirrored or not


class Patch(NamedTuple):
  """A square of a degraded picture.

  Attributes:
    corner: its first row and column.
    turn: 0 to 7: so many quarter turns against the clock, from 4 on of the mirrored patch; 0 is as
      it is.
  """

  corner: tuple[int, int]
  turn: int


def draw(
  height: int, width: int, side: int, rng: np.random.Generator, *, turned: bool = True
) -> Patch:
  """A patch at any place, all as likely; with as many draws from `rng` each time.

  Args:
    height, width: of the degraded picture.
    side: of the patch.
    turned: rotated and mirrored at random.

  Raises:
    DataError: the picture is smaller than the patch.
  """
  if min(height, width) < side:
    raise DataError(
      f"The picture is {width} x {height}, smaller than a patch of {side} x {side}. Leave it out,"
      " or take smaller patches."
    )
  top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
  turn = int(rng.integers(_TURNS))
  return Patch((top, left), turn if turned else 0)


def cut(
  image: Shaped[np.ndarray, "h w c"], patch: Patch, side: int, scale: int = 1
) -> Shaped[np.ndarray, "s s c"]:
  """The patch of a picture: of the degraded one, or with its scale of the clean one."""
  top, left = (scale * start for start in patch.corner)
  part = image[top : top + scale * side, left : left + scale * side]
  if patch.turn >= _TURNS // 2:
    part = part[:, ::-1]
  return np.ascontiguousarray(np.rot90(part, patch.turn % (_TURNS // 2)))


def on_canvas(
  image: Shaped[np.ndarray, "h w c"], height: int, width: int
) -> Shaped[np.ndarray, "y x c"]:
  """The picture at the upper left of a canvas, mirrored on to its other borders, edge pixels again.

  So a picture and the one that was made smaller of it still show the same, place by place. The
  first H rows and W columns of what a network makes of it belong to the picture, or scale times
  as many.

  Raises:
    DataError: the picture is larger than the canvas.
  """
  below, right = height - image.shape[0], width - image.shape[1]
  if below < 0 or right < 0:
    raise DataError(
      f"The picture is {image.shape[1]} x {image.shape[0]}, larger than the canvas of"
      f" {width} x {height}. Evaluate on a larger canvas."
    )
  widths = ((0, below), (0, right), (0, 0))
  return np.pad(image, widths, mode="symmetric") if below or right else image
