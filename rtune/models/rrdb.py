"""Residual-in-residual dense blocks (ESRGAN, Wang et al. 2018): features of a low resolution.

`rrdb` is a super-resolution network of its own; SRFlow (srflow.py) sees the features alone.

Dimension key: that of restorer.py, and
  N: blocks
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models import dense, restorer, sizes, vit

SCALES = (1, 2, 3, 4, 8)
_SLOPE = 0.2
_LESS = 0.2  # how much of a dense block, and of three of them, is added to their input


def rrdb(
  channels: int,
  *,
  scale: int = 2,
  filters: int = 16,
  blocks: int = 2,
  growth: int = 8,
  dtype: str = "auto",
) -> restorer.Restorer:
  """A super-resolution network; at first it is bicubic enlargement, to which it adds.

  Args:
    channels: of pictures.
    scale: 2, 3, 4 or 8; 1 restores a picture at its own size.
    filters: channels of features. Published: 64.
    blocks: Published: 23.
    growth: channels that each convolution of a dense block adds. Published: 32.
    dtype: of compute: "float32", "bfloat16"; auto: bfloat16 except on CPU.

  Raises:
    UsageError: a setting that is out of its range.
  """
  dense.check_choice(SCALES, scale=scale)
  dense.check_least(1, filters=filters, blocks=blocks, growth=growth)
  dense.check_choice(sizes.DTYPES, dtype=dtype)
  module = Enlarger(channels, scale, filters, blocks, growth, vit.compute_dtype(dtype))
  return restorer.of_module(module, scale)


def doublings(scale: int) -> list[int]:
  """By what features grow, one step after the other, until they are `scale` times as large."""
  return [3] if scale == 3 else [2] * (scale.bit_length() - 1)


def conv(features: int, name: str, dtype: jnp.dtype, gain: float = 1.0) -> nn.Conv:
  """3 x 3, with normal weights whose variance is 2 gain / inputs."""
  if gain:
    init = nn.initializers.variance_scaling(2.0 * gain, "fan_in", "normal")
  else:
    init = nn.initializers.zeros
  return nn.Conv(features, (3, 3), padding=1, kernel_init=init, dtype=dtype, name=name)


def leaky(x: Float[Array, "b h w f"]) -> Float[Array, "b h w f"]:
  return nn.leaky_relu(x, _SLOPE)


class Enlarger(nn.Module):
  """(Image [B, H, W, C], sigma [B]) -> `Restored`."""

  channels: int
  scale: int
  filters: int
  blocks: int
  growth: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, image: Float[Array, "b h w c"], sigma: Float[Array, " b"]
  ) -> restorer.Restored:
    del sigma
    make = functools.partial(conv, dtype=self.dtype)
    x, _ = Trunk(self.filters, self.blocks, self.growth, self.dtype, name="trunk")(image)
    for number, times in enumerate(doublings(self.scale)):
      x = leaky(make(self.filters, f"up_{number}")(restorer.repeated(x, times)))
    x = leaky(make(self.filters, "fine")(x))
    change = make(self.channels, "last", gain=0.0)(x).astype(jnp.float32)
    return restorer.Restored(restorer.enlarged(image, self.scale) + change, x.astype(jnp.float32))


class Trunk(nn.Module):
  """Image [B, H, W, C] -> its features [B, H, W, F], and those after each block [N, B, H, W, F]."""

  filters: int
  blocks: int
  growth: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, image: Float[Array, "b h w c"]
  ) -> tuple[Float[Array, "b h w f"], Float[Array, "n b h w f"]]:
    x = conv(self.filters, "first", self.dtype)(image.astype(self.dtype))
    looped = nn.scan(
      Block,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      length=self.blocks,
      unroll=restorer.unrolled(self.blocks),
    )
    x, after = looped(self.growth, self.dtype, name="blocks")(x, None)
    return x + conv(self.filters, "last", self.dtype)(x), after


class Block(nn.Module):
  """Three dense blocks, and their input again; as a step of a loop."""

  growth: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w f"], _: None
  ) -> tuple[Float[Array, "b h w f"], Float[Array, "b h w f"]]:
    inner = x
    for number in range(3):
      inner = _DenseBlock(self.growth, self.dtype, name=f"dense_{number}")(inner)
    x = x + _LESS * inner
    return x, x


class _DenseBlock(nn.Module):
  """Five convolutions, each of which sees all before it."""

  growth: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "b h w f"]) -> Float[Array, "b h w f"]:
    make, seen = functools.partial(conv, dtype=self.dtype, gain=0.01), x
    for number in range(4):
      made = leaky(make(self.growth, f"conv_{number}")(seen))
      seen = jnp.concatenate([seen, made], axis=-1)
    return x + _LESS * make(x.shape[-1], "conv_4")(seen)


class Features(nn.Module):
  """Image [B, H, W, C] -> its features [B, h, w, F] for each level of a flow, the finest first.

  Level i has places of 2**(i + 1) pixels of the high resolution: features are enlarged for those
  that are smaller than a pixel of the low one, and averaged for those that are larger.
  """

  scale: int  # 2, 4 or 8
  levels: int
  filters: int
  blocks: int
  growth: int
  stacked: tuple[int, ...]  # blocks whose output is joined to the features

  @nn.compact
  def __call__(self, image: Float[Array, "b h w c"]) -> tuple[Float[Array, "b y x f"], ...]:
    dtype = jnp.dtype("float32")
    x, after = Trunk(self.filters, self.blocks, self.growth, dtype, name="trunk")(image)
    taken = [after[block] for block in self.stacked]
    found = {1: jnp.concatenate([x, *taken], axis=-1)}
    for number, times in enumerate(2 << i for i in range((self.scale // 2).bit_length() - 1)):
      before = leaky(x) if number else x
      x = conv(self.filters, f"up_{number}", dtype)(restorer.repeated(before, 2))
      larger = [restorer.repeated(block, times) for block in taken]
      found[times] = jnp.concatenate([x, *larger], axis=-1)
    levels = []
    for level in range(self.levels):
      times, place = self.scale >> (level + 1), 2 ** (level + 1) // self.scale
      levels.append(found[times] if times else _averaged(found[1], place))
    return tuple(levels)


def _averaged(x: Float[Array, "b h w f"], side: int) -> Float[Array, "b h2 w2 f"]:
  """side x side pixels become one."""
  batch, height, width, features = x.shape
  parts = x.reshape(batch, height // side, side, width // side, side, features)
  return jnp.mean(parts, axis=(2, 4))
