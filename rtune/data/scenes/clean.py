"""The embedded data of restoration: clean pictures of overlapping shapes with fine textures.

What noise and a low resolution destroy is there: edges at all angles and curved ones, lines about a
pixel wide, stripes, checks, gradients, and grain of two sizes. Edges are as soft as one pixel makes
them, and no noise is added: that is the task's.

Dimension key:
  S: side of the image in pixels
"""

import dataclasses
import functools
import math
import operator
from typing import SupportsIndex

import numpy as np
from jaxtyping import Float32, UInt8

from rtune.data.scenes.base import Rendered
from rtune.data.source import Example

Map = Float32[np.ndarray, "S S"]

# Smooth and grainy layers are twice as frequent as those with a pattern, which are rarer in nature.
_FILLS = ("gradient", "gradient", "grain", "grain", "stripes", "checks", "lines")
_OUTLINES = ("half", "band", "disk", "box", "ring")
_GRAIN = (24, 9)  # cells of the grids of fine and coarse grain on 64 pixels
_DRAWS = (5, 6)  # numbers that a layer's filling and its outline are made of


@dataclasses.dataclass(frozen=True)
class CleanScenes(Rendered):
  """A `Source` of clean pictures.

  Raises UsageError for fields that make no sense, IndexError for an index outside the split.
  """

  min_layers: int = 3  # fewest shapes before the background
  max_layers: int = 6  # most of them
  gray: bool = False  # three equal channels

  def __post_init__(self):
    super().__post_init__()
    self._check(min_layers=(0, self.max_layers), max_layers=(0, 100))

  def __getitem__(self, index: SupportsIndex) -> Example:
    rng = np.random.Generator(self._stream(index))
    count = int(rng.integers(self.min_layers, self.max_layers + 1))
    image = render(rng, self.size, count, 1 if self.gray else 3)
    return {"image": image, "image_id": operator.index(index)}


def render(
  rng: np.random.Generator, size: int, layers: int, channels: int = 3
) -> UInt8[np.ndarray, "S S 3"]:
  """Draws a picture of `size` by `size` pixels; the same generator state gives the same one.

  Args:
    rng: the only source of chance.
    size: side in pixels; shapes grow with it, textures do not.
    layers: shapes before the background.
    channels: 3, or 1 for gray, as three equal channels.
  """
  draws = rng.random((layers + 1, sum(_DRAWS))).tolist()
  colors = _colors(rng, layers + 1, channels)
  canvas = np.zeros((channels, size, size), np.float32)
  for layer, draw in enumerate(draws):
    first, second = colors[layer, 0][:, None, None], colors[layer, 1][:, None, None]
    filled = first + (second - first) * _fill(rng, size, draw[: _DRAWS[0]])
    # The background covers all.
    canvas += _outline(size, draw[_DRAWS[0] :]) * (filled - canvas) if layer else filled
  pixels = np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
  if channels == 1:
    pixels = np.repeat(pixels, 3, axis=0)
  return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _colors(
  rng: np.random.Generator, layers: int, channels: int
) -> Float32[np.ndarray, "layers 2 channels"]:
  """Two colors for each layer, 0 to 1: brightness differs more than hue, as in photographs."""
  bright = rng.uniform(0.08, 0.92, (layers, 2, 1))
  hue = rng.uniform(-0.25, 0.25, (layers, 1, channels)) if channels == 3 else 0.0
  return np.clip(bright + hue, 0.02, 0.98).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _axis(size: int) -> Float32[np.ndarray, " S"]:
  """Pixel centers, in pixels from the middle."""
  return (np.arange(size) - (size - 1) / 2).astype(np.float32)


@functools.lru_cache(maxsize=32)
def _stretch(size: int, cells: int) -> Float32[np.ndarray, "S cells"]:
  """Weights that stretch a grid of numbers linearly over the image."""
  position = np.linspace(0, cells - 1, size)[:, None]
  return np.maximum(0, 1 - np.abs(position - np.arange(cells))).astype(np.float32)


def _along(size: int, turn: float, shift: float = 0.0) -> Map:
  """How far each pixel is along a direction: `turn` 0 to 1 is a half circle, pixels."""
  axis = _axis(size)
  across = np.float32(math.cos(math.pi * turn)) * axis - np.float32(shift)
  return np.float32(math.sin(math.pi * turn)) * axis[:, None] + across[None, :]


def _covered(distance: Map) -> Map:
  """How much of each pixel lies inside, of the signed distance to an edge (inside is below 0)."""
  return np.clip(np.float32(0.5) - distance, 0, 1)


def _wave(place: Map, period: float) -> Map:
  """The distance of each pixel to the middle of the nearest stripe of a pattern, in pixels."""
  turns = place * np.float32(1 / period)
  turns -= np.rint(turns)
  return np.abs(turns, out=turns) * np.float32(period)


def _fill(rng: np.random.Generator, size: int, draw: list[float]) -> Map:
  """How much of the second color each pixel of a layer has, 0 to 1."""
  kind, turn, period, shift = _FILLS[int(draw[0] * len(_FILLS))], *draw[1:4]
  match kind:
    case "gradient":
      return np.clip(_along(size, 2 * turn, size * (shift - 0.5)) / np.float32(size) + 0.5, 0, 1)
    case "stripes":
      wide = 3 * 4**period  # pixels; narrower ones are gray
      return _covered(_wave(_along(size, turn, wide * shift), wide) - np.float32(wide / 4))
    case "checks":
      wide = 5 * 3**period
      edge = np.float32(wide / 4)
      one = _covered(_wave(_along(size, turn, wide * shift), wide) - edge)
      other = _covered(_wave(_along(size, turn + 0.5, wide * draw[4]), wide) - edge)
      return one + other - 2 * one * other
    case "lines":
      wide, thin = 5 * 4**period, np.float32(0.35 + 0.6 * draw[4])  # half the width of a line
      return _covered(_wave(_along(size, turn, wide * shift), wide) - thin)
    case _:
      return _grain(rng, size, 0.3 + 0.7 * draw[4])


def _grain(rng: np.random.Generator, size: int, fine: float) -> Map:
  """Random numbers on two grids, stretched linearly; `fine` is the share of the finer one."""
  total = np.full((size, size), 0.5, np.float32)
  for cells, share in zip(_GRAIN, (fine, 1 - fine), strict=True):
    weights = _stretch(size, max(2, round(cells * size / 64)))
    grid = rng.random((weights.shape[1],) * 2, dtype=np.float32) - np.float32(0.5)
    total += np.float32(share) * (weights @ grid @ weights.T)
  return total


def _outline(size: int, draw: list[float]) -> Map:
  """How much of each pixel a shape covers, 0 to 1."""
  kind, turn = _OUTLINES[int(draw[0] * len(_OUTLINES))], draw[1]
  extent = size * 0.5 * 0.25 ** draw[2]  # half of the longer side: an eighth to a half of the image
  y, x = (size * (0.9 * place - 0.45) for place in draw[3:5])
  if kind == "half":
    return _covered(_along(size, 2 * turn, 0.7 * x))
  if kind in ("disk", "ring"):
    axis = _axis(size)
    radius = np.sqrt((axis[:, None] - np.float32(y)) ** 2 + (axis[None] - np.float32(x)) ** 2)
    if kind == "disk":
      return _covered(radius - np.float32(extent))
    return _covered(np.abs(radius - np.float32(extent)) - np.float32(0.5 + extent * draw[5] ** 2))
  across = np.abs(_along(size, turn, x * math.cos(math.pi * turn) + y * math.sin(math.pi * turn)))
  across -= np.float32(0.4 + extent * draw[5] ** 2)
  if kind == "band":
    return _covered(across)
  middle = y * math.cos(math.pi * turn) - x * math.sin(math.pi * turn)
  return _covered(np.maximum(across, np.abs(_along(size, turn + 0.5, middle)) - np.float32(extent)))
