"""Draws one scene of colored shapes before a background of two regions, from a random generator.

Whatever a task asks of a scene (boxes, masks, regions, colors) is in `Scene`; what annotators
make of it is in `shapes`. Everything is drawn inside each object's own window, channels first, so
that a core renders well over a thousand scenes a second.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

KINDS = ("rectangle", "ellipse", "triangle", "diamond", "cross", "ring")

COLORS = {
  "red": (205, 45, 45),
  "blue": (45, 70, 200),
  "yellow": (235, 205, 50),
  "purple": (140, 50, 165),
  "orange": (240, 130, 35),
  "black": (35, 35, 40),
  "white": (240, 240, 240),
  "pink": (240, 120, 175),
}

# Name, mean color, strength of the texture. The first half lies above the boundary.
STUFF = (
  ("sky", (150, 190, 225), 8.0),
  ("wall", (175, 165, 150), 14.0),
  ("forest", (60, 100, 65), 30.0),
  ("grass", (110, 150, 75), 24.0),
  ("sand", (205, 185, 135), 16.0),
  ("water", (75, 125, 150), 18.0),
)

# Share of objects that wear the color of their kind (COLORS in the order of KINDS); the others take
# any color. This is what a colorization model can learn, and where its uncertainty comes from.
TYPICAL_COLOR = 0.6

_COLORS_RGB = np.array(list(COLORS.values()), np.float32)
_STUFF_RGB = np.array([color for _, color, _ in STUFF], np.float32)
_TEXTURE_CELLS = 5
_MAX_ASPECT = 2.0


class Scene(NamedTuple):
  """One rendered image with all that is true of it. Objects are listed from the back to the front.

  `boxes_N4` are (y0, x0, y1, x1) in pixels around the part of each object that is in view, all zero
  where nothing is; `area_N` is that part in pixels, `visible_N` its share of the whole object.
  """

  image: UInt8[np.ndarray, "S S 3"]
  ids_SS: UInt8[np.ndarray, "S S"]  # 1 + index of the object in view, 0 for background
  stuff_SS: UInt8[np.ndarray, "S S"]  # index into STUFF, also behind objects
  kinds_N: Int32[np.ndarray, " N"]  # index into KINDS
  colors_N: Int32[np.ndarray, " N"]  # index into COLORS
  boxes_N4: Float32[np.ndarray, "N 4"]
  area_N: Int32[np.ndarray, " N"]
  visible_N: Float32[np.ndarray, " N"]

  def mask(self, index: int) -> Bool[np.ndarray, "S S"]:
    """The pixels of object `index` that are in view."""
    return self.ids_SS == index + 1


def render(
  rng: np.random.Generator,
  size: int,
  min_objects: int,
  max_objects: int,
  smallest: float,
  largest: float,
  rarity: Sequence[float] = (),
) -> Scene:
  """Draws a scene of `size` by `size` pixels; the same generator state gives the same scene.

  Args:
    rng: the only source of randomness.
    size: side of the image in pixels.
    min_objects: fewest objects drawn (some may end up hidden behind others).
    max_objects: most objects drawn, at most 255.
    smallest: longer side of the smallest object, as a fraction of `size`.
    largest: longer side of the largest object, as a fraction of `size`.
    rarity: how often each of KINDS is drawn, 1 in all; (): all as often.
  """
  up_to = np.cumsum(rarity)[:-1]
  canvas_3SS, stuff_SS = _background(rng, size)
  count = int(rng.integers(min_objects, max_objects + 1))
  draws = rng.random((count, 9)).tolist()
  tint_N3 = rng.uniform(-22, 22, (count, 3)).astype(np.float32)
  ids_SS = np.zeros((size, size), np.uint8)
  kinds, colors, windows, pixels = [], [], [], []
  for index, draw in enumerate(draws):
    kind = int(np.searchsorted(up_to, draw[0], "right") if rarity else draw[0] * len(KINDS))
    color = kind if draw[1] < TYPICAL_COLOR else int(draw[2] * len(COLORS))
    window = _window(draw[3:7], size, smallest, largest)
    coverage_HW = _coverage(KINDS[kind], window[2] - window[0], window[3] - window[1])
    _paint(canvas_3SS, window, coverage_HW, _COLORS_RGB[color] + tint_N3[index], draw[7], draw[8])
    mask_HW = coverage_HW >= 0.5
    y0, x0, y1, x1 = window
    ids_SS[y0:y1, x0:x1][mask_HW] = index + 1
    kinds.append(kind)
    colors.append(color)
    windows.append(window)
    pixels.append(np.count_nonzero(mask_HW))
  boxes_N4, area_N = _in_view(ids_SS, windows)
  return Scene(
    image=_finish(rng, canvas_3SS),
    ids_SS=ids_SS,
    stuff_SS=stuff_SS,
    kinds_N=np.array(kinds, np.int32),
    colors_N=np.array(colors, np.int32),
    boxes_N4=boxes_N4,
    area_N=area_N,
    visible_N=area_N.astype(np.float32) / np.array(pixels, np.float32),
  )


@functools.lru_cache(maxsize=1024)
def _axis(length: int) -> np.ndarray:
  """Pixel centers of a window's side, from -1 to 1."""
  return ((2 * np.arange(length, dtype=np.float32) + 1) / length - 1).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _interpolation(size: int) -> np.ndarray:
  """[size, cells] weights that stretch a coarse grid of texture linearly over the image."""
  position = np.linspace(0, _TEXTURE_CELLS - 1, size)[:, None]
  return np.maximum(0, 1 - np.abs(position - np.arange(_TEXTURE_CELLS))).astype(np.float32)


def _background(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Two regions with a slanted, wavy boundary; each has its color, gradient and texture."""
  half = len(STUFF) // 2
  upper, lower = int(rng.integers(half)), half + int(rng.integers(half))
  level, slope, wave, phase, light = rng.random(5).tolist()
  axis = _axis(size)
  boundary_S = 0.7 * level - 0.35 + 0.3 * (slope - 0.5) * axis
  boundary_S = boundary_S + 0.08 * wave * np.sin(6 * axis + 6.3 * phase)
  below_SS = axis[:, None] > boundary_S[None, :]
  tint_23 = rng.uniform(-15, 15, (2, 3)).astype(np.float32)
  above_3, below_3 = _STUFF_RGB[upper] + tint_23[0], _STUFF_RGB[lower] + tint_23[1]
  weights = _interpolation(size)
  grid = rng.random((3, _TEXTURE_CELLS, _TEXTURE_CELLS), dtype=np.float32) * 2 - 1
  texture_3SS = weights @ (grid @ weights.T)
  texture_3SS *= np.where(below_SS, np.float32(STUFF[lower][2]), np.float32(STUFF[upper][2]))
  texture_3SS += np.where(below_SS, below_3[:, None, None], above_3[:, None, None])
  texture_3SS += (40 * (light - 0.5) * axis)[:, None]
  return texture_3SS, np.where(below_SS, np.uint8(lower), np.uint8(upper))


def _window(
  draw: list[float], size: int, smallest: float, largest: float
) -> tuple[int, int, int, int]:
  """A box (y0, x0, y1, x1) of whole pixels inside the image: log-uniform side, varying aspect."""
  longer = size * smallest * (largest / smallest) ** draw[0]
  shorter = longer / _MAX_ASPECT ** abs(2 * draw[1] - 1)
  # Three pixels are the least in which the kinds can be told apart at all.
  longer, shorter = max(3, round(longer)), max(3, round(shorter))
  height, width = (longer, shorter) if draw[1] < 0.5 else (shorter, longer)
  y0, x0 = int(draw[2] * (size - height + 1)), int(draw[3] * (size - width + 1))
  return y0, x0, y0 + height, x0 + width


def _coverage(kind: str, height: int, width: int) -> np.ndarray:
  """How much of each pixel the shape covers, 0 to 1; its mask is where that is at least half."""
  y, x = _axis(height)[:, None], _axis(width)[None, :]
  match kind:
    case "rectangle":
      return np.ones((height, width), np.float32)
    case "ellipse":
      level = y * y + x * x
    case "triangle":
      level = 2 * np.abs(x) - y
    case "diamond":
      level = np.abs(y) + np.abs(x)
    case "cross":
      level = np.minimum(np.abs(y), np.abs(x)) * np.float32(2.8)
    case "ring":
      square = y * y + x * x
      level = np.maximum(square, 1 + 2 * (np.float32(0.28) - square))
    case _:
      raise ValueError(f"no shape is called {kind!r}; there are {', '.join(KINDS)}")
  # The level grows by about two from the center to the edge: one pixel of soft edge.
  soft = (1 - level) * np.float32(min(height, width) / 3) + np.float32(0.5)
  return np.clip(soft, 0, 1, out=soft)


def _paint(
  canvas_3SS: np.ndarray,
  window: tuple[int, int, int, int],
  coverage_HW: np.ndarray,
  color_3: np.ndarray,
  light: float,
  stripes: float,
) -> None:
  """Blends one object into the canvas: shaded from top to bottom, a third of them striped."""
  y0, x0, y1, x1 = window
  brightness_H = 1 + np.float32(0.5 * (light - 0.5)) * _axis(y1 - y0)
  if stripes < 1 / 3:
    brightness_H = brightness_H - 0.25 * (np.arange(y1 - y0, dtype=np.float32) % 4 >= 2)
  shade_3H1 = (color_3[:, None] * brightness_H)[:, :, None]
  view_3HW = canvas_3SS[:, y0:y1, x0:x1]
  view_3HW += coverage_HW * (shade_3H1 - view_3HW)


def _in_view(
  ids_SS: np.ndarray, windows: list[tuple[int, int, int, int]]
) -> tuple[np.ndarray, np.ndarray]:
  """Extents and pixel counts of what later objects have left uncovered."""
  boxes_N4 = np.zeros((len(windows), 4), np.float32)
  area_N = np.zeros(len(windows), np.int32)
  for index, (y0, x0, y1, x1) in enumerate(windows):
    mask_HW = ids_SS[y0:y1, x0:x1] == index + 1
    rows, columns = mask_HW.any(1).nonzero()[0], mask_HW.any(0).nonzero()[0]
    if rows.size:
      boxes_N4[index] = y0 + rows[0], x0 + columns[0], y0 + rows[-1] + 1, x0 + columns[-1] + 1
      area_N[index] = np.count_nonzero(mask_HW)
  return boxes_N4, area_N


def _finish(rng: np.random.Generator, canvas_3SS: np.ndarray) -> np.ndarray:
  """Adds sensor noise of a strength that differs by image; to uint8, channels last."""
  strength = 6 + 18 * rng.random()
  noise = rng.random(canvas_3SS.shape, dtype=np.float32)
  noise -= np.float32(0.5)
  noise *= np.float32(strength)
  canvas_3SS += noise
  np.clip(canvas_3SS, 0, 255, out=canvas_3SS)
  return np.ascontiguousarray(canvas_3SS.astype(np.uint8).transpose(1, 2, 0))
