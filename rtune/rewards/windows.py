"""Means, contrast and structure of all windows of two pictures: what SSIM is made of. jit, vmap.

Dimension key:
  H, W: height and width of the picture in pixels
  Y, X: those of the windows that are in it, one for each pixel but for half a window at the border
  C: channels
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

_C1, _C2 = 0.01**2, 0.03**2  # of values in 0..1
_SIGMA, REACH = 1.5, 5  # the window of Wang et al.: 11 pixels
_GAUSSIAN = [math.exp(-(k**2) / (2 * _SIGMA**2)) for k in range(-REACH, REACH + 1)]
WINDOWS = {
  "gaussian": tuple(weight / sum(_GAUSSIAN) for weight in _GAUSSIAN),
  "uniform": (1 / 7,) * 7,
}


class Similarity(NamedTuple):
  """Of windows: of their means, and of their contrast and structure. SSIM is the product."""

  light: Float[Array, "y x c"]
  structure: Float[Array, "y x c"]


def similarity(
  made: Float[Array, "h w c"],
  wanted: Float[Array, "h w c"],
  taps: tuple[float, ...],
  correction: float,
) -> Similarity:
  """Of all windows that are in the picture, weighted by `taps` along both sides.

  Sums over windows are two products with matrices, of which most is 0: on CPU and GPU that takes a
  tenth of the time of what only touches the windows, and its gradient as well. Means of squares
  less squares of means lose digits in float32, so the pictures' common mean is taken off before,
  and 2 cov(x, y) is var(x) + var(y) - var(x - y), of which the last is small where it matters.

  Args:
    made: a picture.
    wanted: another one, of the same size.
    taps: weights along a side, an odd number of them that sum to 1.
    correction: what (co)variances are multiplied with.
  """
  height, width = made.shape[:2]
  mean_C = jax.lax.stop_gradient(jnp.mean(made + wanted, axis=(0, 1)) / 2)[None, None]
  x, apart = made - mean_C, made - wanted
  y = wanted - mean_C
  parts = jnp.concatenate([x, apart, x * x + y * y, apart * apart], axis=-1)
  sums = jnp.einsum(
    *("yh,hwc,xw->yxc", _band(height, taps), parts, _band(width, taps)),
    precision=jax.lax.Precision.HIGHEST,
  )
  x, apart, squares, squares_apart = jnp.split(sums, 4, axis=-1)
  y = x - apart
  power = correction * (squares - x * x - y * y)
  power_apart = correction * (squares_apart - apart * apart)
  x, y = x + mean_C, y + mean_C
  light = (2 * x * y + _C1) / (x * x + y * y + _C1)
  return Similarity(light, 1 - power_apart / (power + _C2))


def _band(length: int, taps: tuple[float, ...]) -> Float32[np.ndarray, "_ {length}"]:
  """Row by row the windows along a side."""
  windows = length - len(taps) + 1
  band = np.zeros((windows, length), np.float32)
  for place, tap in enumerate(taps):
    np.fill_diagonal(band[:, place:], tap)
  return band
