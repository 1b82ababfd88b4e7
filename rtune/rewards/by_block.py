"""Credit by place: what a grid of blocks has earned of a reward that is made of maps.

A reward is some function of means of maps: of an error, of similarities, of a network's layers. Its
derivative by a mean, times what a block has more than the mean, is what this block adds to the
reward, to first order. That is the block's credit; the mean of credit over blocks is the reward
itself, exactly. Siblings are compared block by block then. What a decision does beyond its own
block (the windows of SSIM reach five pixels) counts for its neighbors.

Dimension key:
  H, W: height and width of the picture in pixels
  Y, X: height and width of a map in places
  T: blocks, row by row
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from rtune.errors import UsageError

# Rows and columns of blocks, or the pixels of a block's side: then of pictures of any size.
Grid = Sequence[int] | int | None
Span = tuple[int, int]  # first and last of the places' edges, in pixels


class Term(NamedTuple):
  """A map whose mean a reward depends on.

  Attributes:
    values: the map.
    slope: derivative of the reward by the mean of the map.
    rows: which pixels of the picture's height the map covers, from and to, all places equally many;
      None: all. What is beyond the picture is that of its last pixels.
    columns: of its width.
  """

  values: Float[Array, "y x"]
  slope: float | Float[Array, ""] = 1.0
  rows: Span | None = None
  columns: Span | None = None


def judged(
  reward: Float[Array, ""], terms: Sequence[Term], grid: Grid, height: int, width: int
) -> dict[str, Float[Array, "..."]]:
  """A reward, and with a grid the credit of its blocks.

  Args:
    reward: the reward.
    terms: what it is made of.
    grid: (rows, columns), or the pixels of a side; None: no credit.
    height: of the picture, in pixels.
    width: of the picture, in pixels.

  Returns:
    reward, and with a grid credit [T] whose mean is the reward.

  Raises:
    UsageError: the picture cannot be cut so.
  """
  if grid is None:
    return {"reward": reward}
  rows, columns = _checked(grid, height, width)
  credit_T = jnp.broadcast_to(reward, (rows * columns,))
  for term in terms:
    over_rows = _shares(term.values.shape[0], rows, height, term.rows)
    over_columns = _shares(term.values.shape[1], columns, width, term.columns)
    extra_YX = term.values - jnp.mean(term.values)
    block = jnp.einsum(
      *("ry,yx,cx->rc", over_rows, extra_YX, over_columns), precision=jax.lax.Precision.HIGHEST
    )
    scale = rows * columns / term.values.size
    credit_T = credit_T + term.slope * scale * block.reshape(-1)
  return {"reward": reward, "credit": credit_T}


def _checked(grid: Sequence[int] | int, height: int, width: int) -> tuple[int, int]:
  if isinstance(grid, int):
    if grid < 1 or height % grid or width % grid:
      raise UsageError(
        f"config.reward.args.grid is {grid}; it must be the pixels of a block's side, and a picture"
        f" of {height} x {width} pixels must consist of whole blocks."
      )
    return height // grid, width // grid
  if len(grid) != 2 or min(grid) < 1 or height % grid[0] or width % grid[1]:
    raise UsageError(
      f"config.reward.args.grid is {tuple(grid)}; it must be (rows, columns) of blocks that a"
      f" picture of {height} x {width} pixels (height x width) can be cut into evenly."
    )
  return int(grid[0]), int(grid[1])


def _shares(
  places: int, blocks: int, length: int, span: Span | None
) -> Float32[np.ndarray, "{blocks} {places}"]:
  """What part of each place lies in each block; the parts of a place add up to 1."""
  first, last = span or (0, length)
  edges = np.minimum(first + (last - first) * np.arange(places + 1) / places, length)
  borders = np.arange(blocks + 1) * (length // blocks)
  low = np.maximum(edges[None, :-1], borders[:-1, None])
  high = np.minimum(edges[None, 1:], borders[1:, None])
  overlap = np.maximum(high - low, 0.0)
  return (overlap / overlap.sum(axis=0, keepdims=True)).astype(np.float32)
