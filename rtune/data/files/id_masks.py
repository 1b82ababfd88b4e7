"""Masks of segment ids as PNG files in COCO's panoptic format: id = R + 256 G + 65536 B, 0 = void.

Dimension key:
  H, W: height and width of an image in pixels
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt, UInt8, UInt32
from PIL import Image

from rtune.data.files.images import MAX_PIXELS, read_image
from rtune.errors import DataError

LARGEST_ID = 2**24 - 1


class Mask(NamedTuple):
  """A mask against the ids that its annotation lists.

  Attributes:
    segments: 0 for void, k for the k-th id of the list.
    unknown: ids of the mask that are not in the list.
    absent: ids of the list that no pixel has.
  """

  segments: UInt[np.ndarray, "h w"]
  unknown: tuple[int, ...]
  absent: tuple[int, ...]


def problem_of(path: str | os.PathLike[str]) -> str:
  """What makes a file no mask of ids, by its header alone; "" if nothing does."""
  with Image.open(path) as image:
    kind, mode = image.format, image.mode
    bits = str(image.tile[0][3]) if image.tile else ""
  if kind != "PNG":
    return f"is {kind}, whose compression changes ids. Save masks as PNG"
  if ";16" in bits:
    return "has 16 bits a channel, of which ids are read from 8. Save masks with 8 bits"
  if mode not in ("RGB", "RGBA"):
    return (
      f"has one number a pixel (Pillow's mode {mode}), not ids in three channels of 8 bits. "
      "Give COCO's panoptic PNG, id = R + 256 G + 65536 B"
    )
  return ""


def read_mask(
  path: str | os.PathLike[str], ids: Sequence[int], max_pixels: int = MAX_PIXELS
) -> Mask:
  """Reads a mask and looks its ids up; DataError, naming the file, where it cannot be read."""
  pixels_HW3 = read_image(path, max_pixels)
  problem = problem_of(path) or _transparent(path)
  if problem:
    raise DataError(f"{os.fspath(path)!r} {problem}")
  return look_up(ids_of(pixels_HW3), ids)


def _transparent(path: str | os.PathLike[str]) -> str:
  """What is wrong with a mask whose alpha channel hides ids; an opaque one says nothing."""
  with Image.open(path) as image:
    if image.mode != "RGBA" or image.getchannel("A").getextrema() == (255, 255):
      return ""
  return "has transparent pixels, whose ids nobody sees. Save masks without alpha"


def ids_of(pixels_HW3: UInt8[np.ndarray, "h w 3"]) -> UInt32[np.ndarray, "h w"]:
  """Ids from colors."""
  red, green, blue = np.moveaxis(pixels_HW3.astype(np.uint32), -1, 0)
  return red | green << 8 | blue << 16


def look_up(ids_HW: UInt32[np.ndarray, "h w"], ids: Sequence[int]) -> Mask:
  """The place of each pixel's id in a list of different ids, which does not hold 0."""
  numbers = {number: row + 1 for row, number in enumerate(ids)}
  segments, found = replace(ids_HW, lambda number: numbers.get(number, 0), _kind(len(ids)))
  unknown = sorted(found - {0, *ids})
  return Mask(segments, tuple(unknown), tuple(sorted(set(ids) - found)))


def replace(
  map_HW: Integer[np.ndarray, "h w"], by: Callable[[int], int], kind: type[np.integer]
) -> tuple[Integer[np.ndarray, "h w"], set[int]]:
  """A map with each number replaced by another one, as `kind`; and the numbers that it had."""
  flat = map_HW.ravel()
  # Neighbors are mostly alike: runs of equal numbers are looked up, not pixels.
  starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
  found, place = np.unique(flat[starts], return_inverse=True)
  others = np.array([by(number) for number in found.tolist()], kind)
  lengths = np.diff(starts, append=flat.size)
  return np.repeat(others[place.ravel()], lengths).reshape(map_HW.shape), set(found.tolist())


def _kind(segments: int) -> type[np.unsignedinteger]:
  """The shortest numbers that can count segments: maps are what takes memory."""
  return np.uint8 if segments < 2**8 else np.uint16 if segments < 2**16 else np.uint32
