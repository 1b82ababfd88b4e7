"""Pictures as overlapping patches, and patches blended back to pictures by linear ramps.

Where two patches overlap one fades out as the other fades in, and their weights add up to 1: what
is cut and blended without a change is the picture again. It reaches as far as whole patches do, and
is mirrored where that is beyond the border.

Dimension key:
  B: batch of pictures
  H, W: height and width in pixels
  C: channels
  R, Q: rows and columns of patches
  S: side of a patch
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32


class Grid(NamedTuple):
  """How a picture is cut.

  Attributes:
    rows: of patches.
    columns: of patches.
    side: of a patch in pixels.
    overlap: pixels that neighbors share, at most half a side.
  """

  rows: int
  columns: int
  side: int
  overlap: int

  @property
  def patches(self) -> int:
    return self.rows * self.columns

  @property
  def reach(self) -> tuple[int, int]:
    """Height and width of what the patches cover."""
    stride = self.side - self.overlap
    return self.rows * stride + self.overlap, self.columns * stride + self.overlap


def grid(height: int, width: int, side: int, overlap: int) -> Grid:
  """The fewest patches that cover a picture."""
  stride = side - overlap
  rows, columns = (max(1, -(-(length - overlap) // stride)) for length in (height, width))
  return Grid(rows, columns, side, overlap)


def cut(image: Float[Array, "b h w c"], grid: Grid) -> Float[Array, "b r q s s c"]:
  """The patches of a picture."""
  below, right = (
    reach - length for reach, length in zip(grid.reach, image.shape[1:3], strict=True)
  )
  if below or right:
    image = jnp.pad(image, ((0, 0), (0, below), (0, right), (0, 0)), mode="symmetric")
  rows_RS, columns_QS = (_places(count, grid) for count in (grid.rows, grid.columns))
  strips_BRSWC = image[:, rows_RS]
  return strips_BRSWC[:, :, :, columns_QS].swapaxes(2, 3)


def blended(
  patches: Float[Array, "b r q s s c"], grid: Grid, height: int, width: int
) -> Float[Array, "b h w c"]:
  """The picture of patches, `height` x `width` pixels of it."""
  strips_BRWSC = _joined(patches.swapaxes(3, 4), grid.overlap)
  return _joined(strips_BRWSC.swapaxes(2, 3), grid.overlap)[:, :height, :width]


def ramps(count: int, side: int, overlap: int) -> Float32[np.ndarray, "n s"]:
  """Weights of the rows of `count` patches, one behind the other; at each pixel they make 1."""
  rising = (np.arange(overlap, dtype=np.float32) + np.float32(0.5)) / np.float32(max(overlap, 1))
  weights = np.ones((count, side), np.float32)
  weights[1:, :overlap] = rising
  weights[:-1, side - overlap :] = 1 - rising
  return weights


def _places(count: int, grid: Grid) -> np.ndarray:
  stride = grid.side - grid.overlap
  return np.arange(count)[:, None] * stride + np.arange(grid.side)


def _joined(
  patches: Float[Array, "*lead n s beside c"], overlap: int
) -> Float[Array, "*lead length beside c"]:
  """Patches along one side, weighted and added where they overlap.

  Each is a body, which no patch but the one before reaches, and a tail.
  """
  *lead, count, side, beside, channels = patches.shape
  weights_NS = ramps(count, side, overlap)[..., None, None]
  weights = weights_NS.reshape(*[1] * len(lead), *weights_NS.shape)
  weighted = patches * jnp.asarray(weights, patches.dtype)
  stride = side - overlap
  body, tail = weighted[..., :stride, :, :], weighted[..., stride:, :, :]
  none = [(0, 0)] * len(lead)
  length = count * stride
  bodies = body.reshape(*lead, length, beside, channels)
  bodies = jnp.pad(bodies, (*none, (0, overlap), (0, 0), (0, 0)))
  tails = jnp.pad(tail, (*none, (0, 0), (0, stride - overlap), (0, 0), (0, 0)))
  tails = tails.reshape(*lead, length, beside, channels)[..., : length - (stride - overlap), :, :]
  return bodies + jnp.pad(tails, (*none, (stride, 0), (0, 0), (0, 0)))
