"""Measures of a restored picture against its original: numpy and scipy, one picture at a time.

Values are float64 in 0..255, [H, W, C], whole numbers where pictures are of 8 bits. Of several
channels the mean is taken. All have a reference.

Dimension key:
  H, W: height and width of a picture in pixels
  Y, X: height and width of a map
  C: channels, 1 or 3
"""

import functools
import math

import numpy as np
import scipy.ndimage
from jaxtyping import Float

Values = Float[np.ndarray, "h w c"]
Map = Float[np.ndarray, "y x c"]

SAME = 100.0  # dB of a picture that is its original
SMALLEST = {"SSIM": 11, "MS_SSIM": 161, "UQI": 8, "GMSD": 3}  # pixels of a side
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of Wang et al. 2003
_BLOCK = 8  # of UQI
_LUMA = (0.299, 0.587, 0.114)
_ROUNDING = 1e-10  # share of a sum of squares that may be left of a variance of 0


def psnr(made: Values, wanted: Values) -> float:
  """Peak signal-to-noise ratio in dB; 100 at most, which equal pictures have."""
  error = float(np.mean((made - wanted) ** 2))
  return min(SAME, 10 * math.log10(255**2 / error)) if error > 0 else SAME


def ssim(
  made: Values,
  wanted: Values,
  *,
  window: str = "gaussian",
  sample_covariance: bool | None = None,
) -> float:
  """Structural similarity, as scikit-image's `structural_similarity` with data_range=255.

  Args:
    made: of at least 11 x 11 pixels.
    wanted: of the same size.
    window: "gaussian": 11 x 11 of sigma 1.5, as Wang et al. 2004; "uniform": 7 x 7.
    sample_covariance: divide by n - 1; None: yes for "uniform", no for "gaussian".
  """
  light, structure = _similarity(made, wanted, window, sample_covariance)
  return float(np.mean(light * structure))


def ms_ssim(made: Values, wanted: Values) -> float:
  """SSIM over five scales (Wang et al. 2003), pictures halved by means of 2 x 2 pixels.

  Of each channel the means of structure, and of SSIM at the last scale, are multiplied with the
  paper's exponents; a mean below 0 counts as 0. Sides are of 161 pixels or more.
  """
  product = np.ones(made.shape[-1])
  for scale, weight in enumerate(_SCALES):
    if scale:
      made, wanted = _halved(made, "edge"), _halved(wanted, "edge")
    light, structure = _similarity(made, wanted, "gaussian", False)
    values = light * structure if scale == len(_SCALES) - 1 else structure
    product *= np.maximum(values.mean(axis=(0, 1)), 0) ** weight
  return float(product.mean())


def gmsd(made: Values, wanted: Values) -> float:
  """Gradient magnitude similarity deviation (Xue et al. 2014), as the authors' GMSD.m: 0 is best.

  On luma (BT.601, of three channels), at half the resolution; black lies beyond the border.
  """
  first, second = (
    _gradients(_halved(_gray(values), "constant")[..., 0]) for values in (made, wanted)
  )
  similar = (2 * first * second + 170) / (first**2 + second**2 + 170)
  return float(similar.std(ddof=1))


def uqi(made: Values, wanted: Values) -> float:
  """Universal image quality index (Wang & Bovik 2002) of all blocks of 8 x 8 pixels, averaged.

  4 cov(x, y) mean(x) mean(y) / ((var(x) + var(y)) (mean(x)^2 + mean(y)^2)), and where both blocks
  are flat the part of their means alone, 1 for black ones; as the authors' img_qi.m. (The package
  sewar takes means for the sums in its formula, and has other numbers.)
  """
  pixels = _BLOCK**2
  x, y = _block_sums(made), _block_sums(wanted)
  squares = _block_sums(made**2 + wanted**2)
  product, power = x * y, x * x + y * y
  apart = pixels * squares - power
  apart = np.where(apart > _ROUNDING * pixels * squares, apart, 0.0)
  common = pixels * _block_sums(made * wanted) - product
  quality = np.ones_like(power)
  is_flat = (apart == 0) & (power > 0)
  quality[is_flat] = 2 * product[is_flat] / power[is_flat]
  is_full = apart * power > 0
  quality[is_full] = (4 * common * product)[is_full] / (apart * power)[is_full]
  return float(quality.mean())


def _similarity(
  made: Values, wanted: Values, window: str, sample_covariance: bool | None
) -> tuple[Map, Map]:
  """Light, and contrast times structure, of the windows that are in the picture."""
  mean = _gaussian_mean if window == "gaussian" else _uniform_mean
  x, y = mean(made), mean(wanted)
  both = x * x + y * y
  by_sample = window == "uniform" if sample_covariance is None else sample_covariance
  pixels = (made.shape[0] - x.shape[0] + 1) ** 2
  correction = pixels / (pixels - 1) if by_sample else 1.0
  common = correction * (mean(made * wanted) - x * y)
  power = correction * (mean(made * made + wanted * wanted) - both)
  return (2 * x * y + _C1) / (both + _C1), (2 * common + _C2) / (power + _C2)


def _gaussian_mean(values: Values) -> Map:
  offset = np.arange(-5, 6)
  taps = np.exp(-(offset**2) / (2 * 1.5**2))
  return _valid(scipy.ndimage.correlate1d, values, 5, weights=taps / taps.sum())


def _uniform_mean(values: Values) -> Map:
  return _valid(scipy.ndimage.uniform_filter1d, values, 3, size=7)


def _valid(filtered, values: Values, reach: int, **options) -> Map:
  """Along both sides, without what reaches over the border."""
  for axis in (0, 1):
    values = filtered(values, axis=axis, **options)
    values = _cut(values, axis, reach, values.shape[axis] - reach)
  return values


def _block_sums(values: Values) -> Map:
  """Of all blocks. Sums of 2, 4 and 8: exact for whole numbers, else flat blocks would not be."""
  for axis in (0, 1):
    reach = 1
    while reach < _BLOCK:
      length = values.shape[axis]
      values = _cut(values, axis, 0, length - reach) + _cut(values, axis, reach, length)
      reach *= 2
  return values


def _cut(values: Values, axis: int, start: int, end: int) -> Map:
  return values[start:end] if axis == 0 else values[:, start:end]


def _halved(values: Values, beyond: str) -> Map:
  """Means of 2 x 2 pixels; an odd side is made longer by its last pixel, or by black."""
  height, width, _ = values.shape
  values = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)), mode=beyond)
  return (values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]) / 4


def _gray(values: Values) -> Float[np.ndarray, "h w 1"]:
  channels = (weight * values[..., n] for n, weight in enumerate(_LUMA))
  return values if values.shape[-1] == 1 else functools.reduce(np.add, channels)[..., None]


def _gradients(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
  """Magnitudes, by Prewitt's filters."""
  steps = (
    scipy.ndimage.correlate1d(
      scipy.ndimage.correlate1d(values, [1 / 3] * 3, axis=1 - axis, mode="constant"),
      [1, 0, -1],
      axis=axis,
      mode="constant",
    )
    for axis in (0, 1)
  )
  return np.hypot(*steps)
