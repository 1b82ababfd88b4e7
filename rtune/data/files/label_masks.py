"""Masks of classes as PNG files: gray values, indices of a palette, or colors.

Dimension key:
  H, W: height and width of an image in pixels
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int16, Integer
from PIL import Image

from rtune.data.files import id_masks
from rtune.data.files.images import MAX_PIXELS, raw_values, read_raw
from rtune.errors import DataError
from rtune.predictions.labels import IGNORE

_UNKNOWN = -2
_LISTED = 5
# Of a PNG the bytes 24 and 25 say the bits of a channel and which channels there are.
_HEAD, _SIGNATURE = 26, b"\x89PNG\r\n\x1a\n"
_GRAY, _PALETTE, _COLORS = (0,), (3,), (2, 6)
UNKNOWN_KIND = "masks with numbers or colors that stand for no class"
UNKNOWN_MEND = "List them in `classes`, `ids` or `colors`, or in `ignore`"


class Coding(NamedTuple):
  """What files of masks hold for each class.

  Attributes:
    numbers: gray value or index of a palette -> class, or IGNORE.
    colors: R + 256 G + 65536 B -> class, or IGNORE; empty: colors mean nothing.
    by_color: files with a palette go by its colors, not by the indices.
    divisor: of files with 16 bits, number // divisor is looked up; 0: they are refused.
  """

  numbers: Mapping[int, int]
  colors: Mapping[int, int]
  by_color: bool = False
  divisor: int = 0


class Mask(NamedTuple):
  """A mask against a coding.

  Attributes:
    labels: classes, IGNORE where nobody says and where a number is unknown.
    unknown: numbers or colors of the mask that the coding does not have, as text.
  """

  labels: Int16[np.ndarray, "h w"]
  unknown: tuple[str, ...]


def problem_of(path: str | os.PathLike[str], coding: Coding) -> str:
  """What makes a file no mask of this coding, by its header alone; "" if nothing does."""
  with open(path, "rb") as file:
    return _problem(file.read(_HEAD), coding)


def read_mask(path: str | os.PathLike[str], coding: Coding, max_pixels: int = MAX_PIXELS) -> Mask:
  """Reads a mask; DataError, naming the file, where it cannot be read or is none of this coding."""
  values = read_raw(path, max_pixels, by_color=coding.by_color)
  problem = problem_of(path, coding)
  if problem:
    raise DataError(f"{os.fspath(path)!r} {problem}")
  return look_up(values, coding)


def known_labels(
  path: str | os.PathLike[str], coding: Coding, max_pixels: int = MAX_PIXELS
) -> Int16[np.ndarray, "h w"]:
  """As `read_mask`; DataError, too, where a number or color is unknown."""
  mask = read_mask(path, coding, max_pixels)
  if mask.unknown:
    raise DataError(f"{os.fspath(path)!r}: {UNKNOWN_KIND}: {listed(mask)}. {UNKNOWN_MEND}.")
  return mask.labels


def decode_mask(head: bytes, image: Image.Image, coding: Coding, what: str) -> Mask:
  """A mask that is no file: its first bytes, and the image opened; `what` it is, for DataError."""
  problem = _problem(head[:_HEAD], coding)
  if problem:
    raise DataError(f"{what} {problem}")
  try:
    return look_up(raw_values(image, coding.by_color), coding)
  except OSError as error:
    raise DataError(f"{what} cannot be decoded ({error}).") from error


def look_up(values: Integer[np.ndarray, "h w *c"], coding: Coding) -> Mask:
  """The class of each pixel."""
  if values.ndim == 3:
    table, numbers = coding.colors, id_masks.ids_of(values)
  else:
    # Only of what has 16 bits: an array of bytes can hold no number above 255.
    wide = values.dtype.itemsize > 1
    table, numbers = coding.numbers, values // coding.divisor if wide else values
  labels, found = id_masks.replace(numbers, lambda n: table.get(n, _UNKNOWN), np.int16)
  unknown = sorted(found - table.keys())
  if unknown:
    labels = np.where(labels == _UNKNOWN, np.int16(IGNORE), labels)
  return Mask(labels, tuple(_text(number, values.ndim) for number in unknown))


def listed(mask: Mask) -> str:
  """The unknown numbers of a mask, the first of them."""
  more = len(mask.unknown) - _LISTED
  return ", ".join(mask.unknown[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _text(number: int, axes: int) -> str:
  if axes == 2:
    return str(number)
  return f"({number % 256}, {number // 256 % 256}, {number // 65536})"


def _problem(head: bytes, coding: Coding) -> str:
  if head[:8] != _SIGNATURE:
    return "is no PNG file, and others change or mix labels. Save masks as PNG"
  bits, channels = head[24], (head[25],)
  if channels == _GRAY:
    if bits == 16 and not coding.divisor:
      return (
        "has 16 bits a pixel. Say what its numbers mean: `ids`, a table number -> class, or "
        "`divisor`=256 where number // 256 is the class, as in Mapillary's instances"
      )
    return ""
  if channels == _PALETTE:
    return ""
  if head[25] not in _COLORS:
    return "has gray values and transparency. Save gray values alone"
  if bits == 16:
    return "has 16 bits a channel. Save colors with 8"
  if not coding.colors:
    return "is a picture in colors. Give `colors`, a table color -> class, or masks of numbers"
  return ""
