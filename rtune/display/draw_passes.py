"""Pictures that were restored again and again, and what was done to their patches.

Dimension key:
  K: passes
  H, W: height and width of a picture in pixels
  C: channels, 1 or 3
  R, Q: rows and columns of patches
  N: numbers of a patch: (step, mix) of each channel, or a multiplier of each
  Y, X: height and width of all that is drawn
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

_GAP = 4  # white pixels between pictures
_LOW, _MIDDLE, _HIGH = (np.array(c, np.float32) for c in ((40, 90, 200), (235,) * 3, (200, 60, 40)))


def draw_passes(
  given: UInt8[np.ndarray, "h w c"],
  passes: UInt8[np.ndarray, "k h w c"],
  original: UInt8[np.ndarray, "h w c"],
  numbers: Float[np.ndarray, "k r q n"],
) -> UInt8[np.ndarray, "y x 3"]:
  """Given, each pass, and the original side by side; below, maps of what each pass did.

  Maps are gray where a pass did what the autoencoder does by itself, red above it and blue below.
  The first row is of steps (gray: 1, all the way to the clean latent), the second of the mix with
  what was there (gray: 0; red: kept), both averaged over channels. Of multipliers there is one.
  """
  height, width = given.shape[:2]
  rows = [_row([_colored(picture) for picture in (given, *passes, original)], height)]
  pairs = numbers.shape[-1] % 2 == 0
  kinds = ((numbers[..., ::2], 1.0), (numbers[..., 1::2], 0.0)) if pairs else ((numbers, 1.0),)
  for values, middle in kinds:
    apart_KRQ = values.mean(axis=-1) - middle
    largest = max(float(np.abs(apart_KRQ).max()), 1e-6)
    maps = [_map(apart / largest, height, width) for apart in apart_KRQ]
    blank = np.full((height, width, 3), 255, np.uint8)
    rows.append(_row([blank, *maps, blank], height))
  return np.concatenate(_between(rows, np.full((_GAP, rows[0].shape[1], 3), 255, np.uint8)))


def _map(values: Float[np.ndarray, "r q"], height: int, width: int) -> UInt8[np.ndarray, "y x 3"]:
  """From -1, blue, to 1, red."""
  part = np.clip(np.abs(values), 0, 1)[..., None].astype(np.float32)
  end = np.where(values[..., None] > 0, _HIGH, _LOW)
  colors = np.rint(_MIDDLE + part * (end - _MIDDLE)).astype(np.uint8)
  return np.asarray(Image.fromarray(colors).resize((width, height), Image.Resampling.NEAREST))


def _colored(picture: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
  return np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture


def _row(pictures: Sequence[np.ndarray], height: int) -> UInt8[np.ndarray, "h x 3"]:
  return np.concatenate(_between(pictures, np.full((height, _GAP, 3), 255, np.uint8)), axis=1)


def _between(parts: Sequence[np.ndarray], gap: np.ndarray) -> list[np.ndarray]:
  joined = [x for part in parts for x in (gap, part)]
  return joined[1:]
