"""Bicubic scaling as MATLAB's imresize and as Pillow do it.

Both use Keys' kernel with a = -0.5 and widen it when they scale down, so that nothing is aliased.
They differ at the borders, where MATLAB mirrors the picture and Pillow leaves out what is beyond,
and for 8-bit pictures in the order: both round after one side is scaled and again after the other,
MATLAB begins with the height and Pillow with the width.

Dimension key:
  H, W: height and width of the given picture
  Y, X: those of the new one
  C: channels
"""

import functools
from typing import Literal

import numpy as np
import scipy.sparse
from jaxtyping import Float, Float32

Kind = Literal["matlab", "pillow"]


def bicubic(
  image: Float32[np.ndarray, "h w c"],
  height: int,
  width: int,
  kind: Kind = "matlab",
  *,
  rounded: bool = False,
) -> Float32[np.ndarray, "y x c"]:
  """The picture with another height and width.

  Args:
    kind: "matlab" as imresize(image, [height, width], "bicubic"), "pillow" as
      Image.resize((width, height), Image.Resampling.BICUBIC).
    rounded: values are those of 8-bit pictures, 0 to 255, and are clipped and rounded as theirs
      are; otherwise nothing is, as with pictures in floating point.
  """
  result = image
  for axis in (0, 1) if kind == "matlab" else (1, 0):
    weights = _weights(image.shape[axis], (height, width)[axis], kind)
    result = _along(weights, result, axis)
    if rounded:
      result = np.clip(np.floor(result + np.float32(0.5)), 0, 255)
  return result


def _along(
  weights: scipy.sparse.csr_matrix, image: Float32[np.ndarray, "h w c"], axis: int
) -> Float32[np.ndarray, "y x c"]:
  """One side, 0 or 1, as the rows of `weights` mix it."""
  moved = np.ascontiguousarray(image.swapaxes(0, axis))
  mixed = weights @ moved.reshape(len(moved), -1)
  return mixed.reshape(len(mixed), *moved.shape[1:]).swapaxes(0, axis)


@functools.lru_cache(maxsize=256)
def _weights(length: int, new: int, kind: Kind) -> scipy.sparse.csr_matrix:
  """[new, length] what each old pixel of a side gives to each new one; rows add up to 1."""
  widened = max(1.0, length / new)
  center = (np.arange(new) + 0.5) * (length / new) - 0.5  # in old pixels, whose centers are whole
  first = np.floor(center - 2 * widened).astype(np.int64)
  place = first[:, None] + np.arange(int(np.ceil(4 * widened)) + 2)
  weight = _keys((center[:, None] - place) / widened)
  if kind == "matlab":
    place = place % (2 * length)
    place = np.minimum(place, 2 * length - 1 - place)
  else:
    weight = np.where((place >= 0) & (place < length), weight, 0.0)
    place = np.clip(place, 0, length - 1)
  weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
  row = np.broadcast_to(np.arange(new)[:, None], place.shape)
  return scipy.sparse.csr_matrix((weight.ravel(), (row.ravel(), place.ravel())), (new, length))


def _keys(x: Float[np.ndarray, "y k"]) -> Float[np.ndarray, "y k"]:
  """Keys' cubic convolution kernel, a = -0.5 (IEEE Trans. ASSP 29(6), 1981)."""
  x = np.abs(x)
  near = (1.5 * x - 2.5) * x * x + 1
  far = ((-0.5 * x + 2.5) * x - 4) * x + 2
  return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
