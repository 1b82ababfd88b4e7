"""What spoils pictures: noise, blur, compression, a lower resolution. A config lists what to apply.

Pictures are float32, 0 is black and 1 is white. Noise may lead beyond that: only `eight_bits` and
`jpeg` clip, as files do. A strength is a number, or a range (low, high) from which one is drawn for
each picture, all as likely. What is random follows from `rng` alone. A function of your own, from a
picture and `rng` to a picture, serves as well (`rtune.data.chain`).

Dimension key:
  H, W: height and width of the given picture
  Y, X: those of the new one
  C: channels, 1 or 3
"""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from jaxtyping import Float32, Int
from PIL import Image

from rtune.data import resize
from rtune.errors import DataError, UsageError

Picture = Float32[np.ndarray, "h w c"]
Strength = int | float | Sequence[int | float]

_KINDS = ("matlab", "pillow")
_WHITE = np.float32(255)
_MARGIN = 20  # pixels around a region of `mixed` that its corruption sees: four widths of a blur


class Noisy(NamedTuple):
  """A picture and the noise that was added.

  Attributes:
    image: float32 [H, W, C].
    level: standard deviation of the noise, averaged (as a variance) over the picture; 1 is white.
  """

  image: Picture
  level: float


def gaussian(image: Picture, rng: np.random.Generator, *, sigma: Strength = 25.0) -> Noisy:
  """White Gaussian noise of standard deviation `sigma` / 255."""
  level = _drawn("gaussian", "sigma", sigma, rng, 0, 1000) / 255
  noise = rng.standard_normal(image.shape, np.float32)
  return Noisy(image + noise * np.float32(level), level)


def poisson(image: Picture, rng: np.random.Generator, *, peak: Strength = 30.0) -> Noisy:
  """Shot noise: values are counted photons, of which white has `peak`; variance is value / peak."""
  peak = _drawn("poisson", "peak", peak, rng, 1e-3, 1e9)
  light = np.maximum(image, 0)
  counted = rng.poisson(light * peak) / peak
  return Noisy(counted.astype(np.float32), math.sqrt(float(np.mean(light)) / peak))


def blur(image: Picture, rng: np.random.Generator, *, width: Strength = 1.0) -> Picture:
  """A Gaussian of standard deviation `width` pixels, cut at four of them; borders are mirrored."""
  width = _drawn("blur", "width", width, rng, 0, 100)
  return scipy.ndimage.gaussian_filter(image, (width, width, 0), mode="reflect")


def jpeg(image: Picture, rng: np.random.Generator, *, quality: Strength = 30) -> Picture:
  """Saved as JPEG and read again, by Pillow; color at half the resolution, as it is by default.

  Args:
    quality: 1 to 95, as Pillow has it; of a range whole numbers are drawn.
  """
  quality = round(_drawn("jpeg", "quality", quality, rng, 1, 95))
  pixels = _bytes(image)
  file = io.BytesIO()
  Image.fromarray(pixels[..., 0] if image.shape[2] == 1 else pixels).save(
    file, "JPEG", quality=quality
  )
  return np.asarray(Image.open(file)).reshape(image.shape) / _WHITE


def eight_bits(image: Picture, rng: np.random.Generator) -> Picture:
  """Clipped and rounded to 256 values, as 8-bit files hold them; draws nothing."""
  return _bytes(image) / _WHITE


def mixed(
  image: Picture,
  rng: np.random.Generator,
  *,
  regions: int = 6,
  kinds: Sequence[str] = ("gaussian", "poisson", "blur", "jpeg"),
  sigma: Strength = (5, 50),
  peak: Strength = (10, 100),
  width: Strength = (0.5, 2.0),
  quality: Strength = (10, 60),
) -> Noisy:
  """Another corruption in each region of the picture.

  Regions are the pixels that are nearest to one of some points, drawn anywhere.

  Args:
    regions: how many, 1 to 255.
    kinds: what a region may have, all as likely: gaussian, poisson, blur, jpeg.
    sigma: of gaussian, drawn for each region as all strengths are.
    peak: of poisson.
    width: of blur, up to 5.
    quality: of jpeg.
  """
  if not 1 <= regions <= 255:
    raise UsageError(f"mixed: regions is {regions}; it must lie between 1 and 255")
  steps = {
    "gaussian": lambda part: gaussian(part, rng, sigma=sigma),
    "poisson": lambda part: poisson(part, rng, peak=peak),
    "blur": lambda part: blur(part, rng, width=width),
    "jpeg": lambda part: jpeg(part, rng, quality=quality),
  }
  if not kinds or not set(kinds) <= set(steps):
    raise UsageError(f"mixed: kinds is {tuple(kinds)}; choose from {', '.join(steps)}")
  _check("mixed", "width", width, 0, _MARGIN / 4)
  owner_HW = _nearest_points(*image.shape[:2], rng.random((regions, 2)))
  result, variance = np.empty_like(image), 0.0
  for region, choice in enumerate(rng.integers(len(kinds), size=regions)):
    mask_HW = owner_HW == region
    if mask_HW.any():
      box = tuple(_span(mask_HW.any(axis=1 - axis)) for axis in range(2))
      found = as_noisy(steps[kinds[choice]](image[box]))
      result[mask_HW] = found.image[mask_HW[box]]
      variance += found.level**2 * float(mask_HW.mean())
  return Noisy(result, math.sqrt(variance))


def bicubic(
  image: Picture,
  rng: np.random.Generator,
  *,
  scale: int,
  kind: str = "matlab",
  rounded: bool = True,
) -> Float32[np.ndarray, "y x c"]:
  """Scaled down, `scale` times smaller, antialiased; draws nothing.

  Args:
    scale: 1 to 16; sides must be multiples of it.
    kind: "matlab" or "pillow", see `rtune.data.resize`.
    rounded: of 8-bit pictures an 8-bit one, as files of benchmarks are; what is given is clipped
      and rounded first.

  Raises:
    DataError: a side is no multiple of the scale.
  """
  _check("bicubic", "scale", scale, 1, 16)
  height, width = image.shape[:2]
  if height % scale or width % scale:
    raise DataError(
      f"The picture is {width} x {height}, no multiple of the scale {scale}. Crop it, or read it"
      f" with `multiple` = {scale}."
    )
  return _resized("bicubic", image, (height // scale, width // scale), kind, rounded)


def enlarge(
  image: Picture,
  rng: np.random.Generator,
  *,
  scale: int,
  kind: str = "matlab",
  rounded: bool = True,
) -> Float32[np.ndarray, "y x c"]:
  """Scaled up, `scale` times larger, bicubic; draws nothing. Arguments as of `bicubic`."""
  _check("enlarge", "scale", scale, 1, 16)
  size = scale * image.shape[0], scale * image.shape[1]
  return _resized("enlarge", image, size, kind, rounded)


def as_noisy(result: Picture | Noisy) -> Noisy:
  """What a corruption has given; without noise that it knows of, the level is 0."""
  return result if isinstance(result, Noisy) else Noisy(result, 0.0)


def _resized(
  who: str, image: Picture, size: tuple[int, int], kind: str, rounded: bool
) -> Float32[np.ndarray, "y x c"]:
  if kind not in _KINDS:
    raise UsageError(f"{who}: kind is {kind!r}; it must be 'matlab' or 'pillow'")
  if not rounded:
    return resize.bicubic(image, *size, kind)
  # Whole numbers: half a level too much or too little would be a level after rounding.
  return resize.bicubic(_bytes(image).astype(np.float32), *size, kind, rounded=True) / _WHITE


def _drawn(
  who: str,
  name: str,
  value: Strength,
  rng: np.random.Generator,
  low: int | float,
  high: int | float,
) -> float:
  """A number as it is, or one of a range; UsageError for what is none or out of bounds."""
  first, last = _check(who, name, value, low, high)
  return first if first == last else float(rng.uniform(first, last))


def _check(
  who: str, name: str, value: Strength, low: int | float, high: int | float
) -> tuple[float, float]:
  ends = (value, value) if isinstance(value, (int, float)) else tuple(value)
  if len(ends) != 2 or not low <= ends[0] <= ends[1] <= high:
    raise UsageError(
      f"{who}: {name} is {value}; it must be a number, or (low, high), from {low:g} to {high:g}"
    )
  return float(ends[0]), float(ends[1])


def _bytes(image: Picture) -> np.ndarray:
  return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _nearest_points(height: int, width: int, points: np.ndarray) -> Int[np.ndarray, "h w"]:
  """Which of the points, in fractions of the sides, each pixel is nearest to."""
  y = (np.arange(height)[:, None] - points[:, 0] * height) ** 2
  x = (np.arange(width)[:, None] - points[:, 1] * width) ** 2
  return np.argmin(y[:, None] + x[None], axis=2)


def _span(there: np.ndarray) -> slice:
  """From the first to the last place that is in a region, with a margin; never below 0."""
  places = there.nonzero()[0]
  return slice(max(0, int(places[0]) - _MARGIN), int(places[-1]) + 1 + _MARGIN)
