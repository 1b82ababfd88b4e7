"""Large images through windows of one size: the memory of one window, whatever the image.

Dimension key:
  B: batch of images
  H, W: height and width in pixels
  K: channels of what is seen
"""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt8

from rtune.models.dense import Dense


def windowed(network: Dense, window: tuple[int, int], stride: tuple[int, int]) -> Dense:
  """The network, which sees images that are larger than a window through windows; see `averaged`.

  Its parameters are made for a window: a ViT has positions for as many patches.
  """

  def init(key, image):
    return network.init(key, image[:, : window[0], : window[1]])

  def apply(params, image, key=None):
    return averaged(functools.partial(network.apply, params), image, key, window, stride)

  return Dense(init, apply)


def averaged(
  see: Callable[..., PyTree],
  image: UInt8[Array, "b h w c"],
  key: Array | None,
  window: tuple[int, int],
  stride: tuple[int, int],
) -> PyTree:
  """What `see` says of every pixel: the mean over the windows that hold it.

  Args:
    see: (image, key) -> arrays [B, H, W, K] of the size of the image.
    key: of dropout, or None; each window gets one of its own.
    window: height and width; an image that fits is seen as a whole.
    stride: rows and columns from one window to the next, at most those of the window.
  """
  size = image.shape[1:3]
  window = tuple(min(pair) for pair in zip(size, window, strict=True))
  if window == size:
    return see(image, key)
  corners = [starts(*axis) for axis in zip(size, window, stride, strict=True)]
  places = jnp.asarray([*itertools.product(*corners)], jnp.int32)

  def one(place, number):
    part = jax.lax.dynamic_slice(image, (0, *place, 0), (len(image), *window, image.shape[-1]))
    return see(part, None if key is None else jax.random.fold_in(key, number))

  def add(total, at):
    place, number = at

    def added(total, found):
      corner = (0, *place, 0)
      before = jax.lax.dynamic_slice(total, corner, found.shape)
      return jax.lax.dynamic_update_slice(total, before + found, corner)

    return jax.tree.map(added, total, one(place, number)), None

  numbers = jnp.arange(len(places))
  shapes = jax.eval_shape(one, places[0], numbers[0])
  empty = jax.tree.map(lambda x: jnp.zeros((x.shape[0], *size, x.shape[3]), x.dtype), shapes)
  total, _ = jax.lax.scan(add, empty, (places, numbers))
  rows, columns = (_times(*axis) for axis in zip(size, window, corners, strict=True))
  times_BHWK = np.outer(rows, columns)[None, :, :, None]
  return jax.tree.map(lambda x: x / jnp.asarray(times_BHWK, x.dtype), total)


def starts(size: int, window: int, stride: int) -> list[int]:
  """Where windows begin along one side; the last one ends where the image does."""
  last = size - window
  return [*range(0, last, stride), last]


def _times(size: int, window: int, corners: list[int]) -> np.ndarray:
  """In how many windows each row, or each column, is."""
  times = np.zeros(size, np.int64)
  for corner in corners:
    times[corner : corner + window] += 1
  return times
