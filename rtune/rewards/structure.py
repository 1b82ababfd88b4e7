"""Structural similarity of restored pictures and their originals, and the like: with a reference.

jit, vmap, and gradients by the picture. With `grid` they give `credit` by block
(`rtune.rewards.by_block`), whose mean is the reward.

Dimension key:
  H, W: height and width of the picture in pixels
  Y, X: height and width of a map
  C: channels, 1 or 3
  T: blocks, row by row
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.errors import UsageError
from rtune.predictions.images import Original, Picture, luma
from rtune.rewards.by_block import Grid, Term, judged
from rtune.rewards.quality import Reward, images_of
from rtune.rewards.windows import REACH, WINDOWS, similarity

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, from fine to coarse
_FLAT = 170.0 / 255**2  # of GMSD: 170 for values in 0..255


def ssim(
  prediction: Picture,
  truth: Picture | Original,
  *,
  window: str = "gaussian",
  sample_covariance: bool | None = None,
  edges: bool = False,
  grid: Grid = None,
) -> Reward:
  """Structural similarity (Wang et al. 2004), the mean of its map over channels and places.

  It is scikit-image's `structural_similarity` with data_range=1 and channel_axis=-1.

  Args:
    prediction: image [H, W, C], not clipped.
    truth: image [H, W, C].
    window: "gaussian": 11 x 11 with sigma 1.5 (gaussian_weights=True, sigma=1.5); "uniform": 7 x 7.
    sample_covariance: divided by n - 1 (use_sample_covariance); None: what is usual: yes for
      "uniform" (scikit-image's default), no for "gaussian" (Wang et al. and most papers).
    edges: whether windows count that reach over the border, where the picture is mirrored. If not,
      what is within half a window of the border counts less, and less credit goes to its blocks.
    grid: blocks for credit: rows and columns, or the pixels of a side.
  """
  made, wanted = images_of(prediction, truth)
  height, width = made.shape[:2]
  values_YX = jnp.mean(
    ssim_map(made, wanted, window=window, sample_covariance=sample_covariance, edges=edges), axis=-1
  )
  margin = (height - values_YX.shape[0]) // 2
  term = Term(values_YX, 1.0, (margin, height - margin), (margin, width - margin))
  return judged(jnp.mean(values_YX), [term], grid, height, width)


def ssim_map(
  made: Float[Array, "h w c"],
  wanted: Float[Array, "h w c"],
  *,
  window: str = "gaussian",
  sample_covariance: bool | None = None,
  edges: bool = False,
) -> Float[Array, "y x c"]:
  """SSIM around each pixel whose window is in the picture; with `edges` around all.

  Arguments as of `ssim`.

  Raises:
    UsageError: an unknown window, or one larger than the picture.
  """
  if window not in WINDOWS:
    raise UsageError(f"ssim: window is {window!r}; it must be 'gaussian' or 'uniform'.")
  taps = WINDOWS[window]
  if min(made.shape[:2]) < len(taps):
    raise UsageError(
      f"ssim: a picture of {made.shape[0]} x {made.shape[1]} pixels is smaller than the window of"
      f" {len(taps)} x {len(taps)}."
    )
  by_sample = window == "uniform" if sample_covariance is None else sample_covariance
  if edges:
    reach = len(taps) // 2
    widths = ((reach, reach), (reach, reach), (0, 0))
    made, wanted = (jnp.pad(image, widths, mode="symmetric") for image in (made, wanted))
  pixels = len(taps) ** 2
  found = similarity(made, wanted, taps, pixels / (pixels - 1) if by_sample else 1.0)
  return found.light * found.structure


def ms_ssim(
  prediction: Picture, truth: Picture | Original, *, scales: int = 5, grid: Grid = None
) -> Reward:
  """SSIM over several scales (Wang et al. 2003), each half as fine as the one before.

  Structure counts at all scales, light at the last. Of each channel the means of the maps are
  multiplied, with the paper's exponents; where one is not above 0 that is 0. As in TensorFlow.

  Args:
    prediction: image [H, W, C].
    truth: image [H, W, C].
    scales: 1 to 5. Of fewer than five the exponents are those of the first ones, made to sum to 1.
    grid: blocks for credit: rows and columns, or the pixels of a side.

  Raises:
    UsageError: at the last scale the picture is smaller than the window; five need 161 pixels.
  """
  made, wanted = images_of(prediction, truth)
  height, width = made.shape[:2]
  least = (2 * REACH) * 2 ** (scales - 1) + 1 if 1 <= scales <= len(_WEIGHTS) else math.inf
  if min(height, width) < least:
    raise UsageError(
      f"ms_ssim: scales is {scales} for a picture of {height} x {width} pixels; of 1 to 5 take so"
      f" many that its shorter side is above {2 * REACH} * 2 ** (scales - 1)."
    )
  maps = []
  for scale in range(scales):
    if scale:
      made, wanted = _halved(made), _halved(wanted)
    found = similarity(made, wanted, WINDOWS["gaussian"], 1.0)
    is_last = scale == scales - 1
    maps.append(found.light * found.structure if is_last else found.structure)
  weights = _exponents(scales)
  means = [jnp.mean(values, axis=(0, 1)) for values in maps]
  is_sound_C = jnp.all(jnp.stack(means) > 0, axis=0)
  safe = [jnp.where(is_sound_C, mean_C, 1.0) for mean_C in means]
  product_C = math.prod(mean_C**weight for mean_C, weight in zip(safe, weights, strict=True))
  value_C = jnp.where(is_sound_C, product_C, 0.0)
  terms = []
  for scale, (values, mean_C, weight) in enumerate(zip(maps, safe, weights, strict=True)):
    slope_C = value_C * weight / mean_C
    step, margin = 2**scale, REACH * 2**scale
    spans = [(margin, margin + step * length) for length in values.shape[:2]]
    terms.append(Term(jnp.mean(values * slope_C[None, None], axis=-1), 1.0, *spans))
  return judged(jnp.mean(value_C), terms, grid, height, width)


def gmsd(prediction: Picture, truth: Picture | Original, *, grid: Grid = None) -> Reward:
  """Gradient magnitude similarity deviation (Xue et al. 2014, 1308.3052), negative: 0 is best.

  On luma (BT.601) at half the resolution, with Prewitt's filters; as the authors' GMSD.m, which
  takes what is beyond the border for black.

  Args:
    prediction: image [H, W, C].
    truth: image [H, W, C].
    grid: blocks for credit: rows and columns, or the pixels of a side.
  """
  made, wanted = images_of(prediction, truth)
  height, width = made.shape[:2]
  steep = [_steepness(_quartered(luma(image))) for image in (made, wanted)]
  product_YX, total_YX = _root(steep[0] * steep[1]), steep[0] + steep[1]
  similar_YX = (2 * product_YX + _FLAT) / (total_YX + _FLAT)
  apart_YX = (similar_YX - jnp.mean(similar_YX)) ** 2
  variance = jnp.mean(apart_YX) * similar_YX.size / (similar_YX.size - 1)
  deviation = _root(variance)
  slope = -deviation / (2 * jnp.where(variance > 0, jnp.mean(apart_YX), 1.0))
  rows, columns = similar_YX.shape
  term = Term(apart_YX, slope, (0, 2 * rows), (0, 2 * columns))
  return judged(-deviation, [term], grid, height, width)


def _exponents(scales: int) -> list[float]:
  """The paper's five, which sum to 1.0001; of fewer, so scaled that they sum to 1."""
  total = 1.0 if scales == len(_WEIGHTS) else sum(_WEIGHTS[:scales])
  return [weight / total for weight in _WEIGHTS[:scales]]


def _halved(image: Float[Array, "h w c"]) -> Float[Array, "y x c"]:
  """Means of 2 x 2 pixels; of an odd side the last one counts twice."""
  return _block_means(image, "edge")


def _quartered(image: Float[Array, "h w"]) -> Float[Array, "y x"]:
  """Means of 2 x 2 pixels; what is beyond an odd side is black."""
  return _block_means(image[..., None], "constant")[..., 0]


def _block_means(image: Float[Array, "h w c"], beyond: str) -> Float[Array, "y x c"]:
  height, width, _ = image.shape
  image = jnp.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode=beyond)
  tall = (image[::2] + image[1::2]) / 2
  return (tall[:, ::2] + tall[:, 1::2]) / 2


def _steepness(image: Float[Array, "h w"]) -> Float[Array, "h w"]:
  """Square of the gradient's magnitude, by Prewitt's filters."""
  padded = jnp.pad(image, 1)
  down = padded[:-2] + padded[1:-1] + padded[2:]
  across = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
  return ((down[:, :-2] - down[:, 2:]) / 3) ** 2 + ((across[:-2] - across[2:]) / 3) ** 2


def _root(values: Float[Array, "..."]) -> Float[Array, "..."]:
  """Square root whose gradient at 0 is 0."""
  return jnp.where(values > 0, jnp.sqrt(jnp.where(values > 0, values, 1.0)), 0.0)
