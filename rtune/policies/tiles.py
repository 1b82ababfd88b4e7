"""Pictures of any size through a network that restores them: padded by reflection, and in tiles.

`windows` averages what windows say of a pixel, those at whose border it lies too. Here each pixel
is taken from the tile in whose middle it is, so that a network that looks no further than half an
overlap gives in tiles what it gives of the whole.

Dimension key:
  B: batch of pictures
  H, W: height and width in pixels
  Y, X: those of the result, `scale` times as large
  C: channels
  N: tiles
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rtune.errors import UsageError
from rtune.policies import windows

Restore = Callable[[Float[Array, "b h w c"]], Float[Array, "b y x c2"]]


def fitted(restore: Restore, multiple: int, scale: int = 1) -> Restore:
  """`restore` for pictures of any size: mirrored at the right and below to multiples, then cut.

  Args:
    restore: takes sides that are multiples of `multiple`, gives sides `scale` times as large.
  """

  def whole(image: Float[Array, "b h w c"]) -> Float[Array, "b y x c2"]:
    height, width = image.shape[1:3]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
      return restore(image)
    padded = jnp.pad(image, ((0, 0), (0, below), (0, right), (0, 0)), mode="reflect")
    return restore(padded)[:, : scale * height, : scale * width]

  return whole


def tiled(
  restore: Restore,
  tile: tuple[int, int],
  overlap: int,
  *,
  fade: int = 0,
  multiple: int = 1,
  scale: int = 1,
) -> Restore:
  """`restore` for large pictures, one tile after the other: the memory of a tile.

  Equal to `fitted(restore, multiple, scale)` where a pixel of the result depends on nothing further
  away than (overlap - fade) / 2 pixels. A picture that fits into a tile is seen as a whole.

  Args:
    restore: as in `fitted`; of several tiles it sees the same picture at the same multiples.
    tile: height and width, multiples of `multiple`.
    overlap: pixels that neighboring tiles share, a multiple of `multiple`.
    fade: pixels over which one tile turns into the next one, in the middle of the overlap; 0: at
      once. It hides seams of networks that look further.
    multiple: what sides and places of tiles are multiples of: the product of a network's strides.
    scale: of super-resolution.

  Raises:
    UsageError: tiles that cannot be laid out so.
  """
  if not 0 <= fade <= overlap < min(tile):
    raise UsageError(
      f"tiles of {tile} with overlap {overlap} and fade {fade}: write fade <= overlap < tile"
    )
  if any(size % multiple for size in (*tile, overlap)):
    raise UsageError(f"tile {tile} and overlap {overlap} must be multiples of {multiple}")

  def pieces(image: Float[Array, "b h w c"]) -> Float[Array, "b y x c2"]:
    size = image.shape[1:3]
    shown = tuple(min(pair) for pair in zip(size, tile, strict=True))
    if shown == size:
      return restore(image)
    axes = [_axis(*sides, overlap, fade, scale) for sides in zip(size, shown, strict=True)]
    return _laid(restore, image, axes, shown, scale)

  return fitted(pieces, multiple, scale)


def _laid(
  restore: Restore,
  image: Float[Array, "b h w c"],
  axes: Sequence["_Axis"],
  shown: tuple[int, ...],
  scale: int,
) -> Float[Array, "b y x c2"]:
  """The sum of all tiles, each by its weights."""
  (tops, weights_NY), (lefts, weights_NX) = axes
  places = [*itertools.product(range(len(tops)), range(len(lefts)))]
  corners = jnp.asarray([(tops[row], lefts[column]) for row, column in places], jnp.int32)
  rows_NY = jnp.asarray(weights_NY[[row for row, _ in places]])
  columns_NX = jnp.asarray(weights_NX[[column for _, column in places]])

  def one(corner):
    part = jax.lax.dynamic_slice(image, (0, *corner, 0), (len(image), *shown, image.shape[-1]))
    return restore(part)

  def add(total, at):
    corner, row_Y, column_X = at
    found = one(corner)
    weight_BYXC = (row_Y[:, None] * column_X[None, :])[None, :, :, None].astype(found.dtype)
    place = (0, *(scale * corner), 0)
    before = jax.lax.dynamic_slice(total, place, found.shape)
    return jax.lax.dynamic_update_slice(total, before + weight_BYXC * found, place), None

  shape = jax.eval_shape(one, corners[0])
  sides = (scale * image.shape[1], scale * image.shape[2])
  empty = jnp.zeros((shape.shape[0], *sides, shape.shape[3]), shape.dtype)
  return jax.lax.scan(add, empty, (corners, rows_NY, columns_NX))[0]


class _Axis(NamedTuple):
  """One side of the picture.

  Attributes:
    starts: where its tiles begin.
    weights: what the rows of each tile's result count for, [N, scale * tile].
  """

  starts: list[int]
  weights: np.ndarray


def _axis(size: int, tile: int, overlap: int, fade: int, scale: int) -> _Axis:
  """Where tiles begin along one side, and the weights of their rows; at each pixel they make 1."""
  starts = windows.starts(size, tile, tile - overlap) if tile < size else [0]
  within = np.arange(scale * tile) + 0.5
  turns = [scale * (after + start + tile) / 2 for start, after in itertools.pairwise(starts)]
  weights = []
  for place, start in enumerate(starts):
    here = scale * start + within
    begun = _past(here, turns[place - 1], scale * fade) if place else np.ones_like(here)
    over = _past(here, turns[place], scale * fade) if place < len(turns) else np.zeros_like(here)
    weights.append(begun - over)
  return _Axis(starts, np.asarray(weights, np.float32))


def _past(place: np.ndarray, turn: float, fade: int) -> np.ndarray:
  """0 before a turn, 1 past it, rising over `fade` pixels."""
  return np.clip((place - turn) / fade + 0.5, 0, 1) if fade else (place >= turn).astype(np.float64)
