"""Networks that say something of each pixel: the record they all are, and what they share.

A config names a function of the number of classes, such as `rtune.models.unet:unet`. None of these
networks has batch normalization: what it says of an image would depend on the images beside it, so
that samples and their update are of two distributions; and running means would be a state that is
neither a parameter nor trained by REINFORCE.

Dimension key:
  B: batch of images
  H, W: height and width in pixels
  C: channels; of logits, classes
"""

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from rtune.errors import UsageError

PATH = "config.policy.args.network.args"
NORMS = ("group", "affine", "none")


class Dense(NamedTuple):
  """A network for label maps: pure functions of parameters, which are nested dicts.

  Attributes:
    init: (key, image uint8 [B, H, W, 3]) -> parameters, float32.
    apply: (parameters, image, key=None) -> {"logits": float32 [B, H, W, C]} at the resolution of
      the image, whatever its size; with an auxiliary head also "auxiliary" of the same shape. The
      key is of dropout; None: there is none.
  """

  init: Callable[..., dict[str, Any]]
  apply: Callable[..., dict[str, Float[Array, "b h w c"]]]


def of_module(module: nn.Module) -> Dense:
  """The network of a module: (pixels in [-1, 1], deterministic) -> {name: [B, H, W, C]}."""

  def init(key: Array, image: UInt8[Array, "b h w 3"]) -> dict[str, Any]:
    return module.init(key, pixels(image))["params"]

  def apply(
    params: dict[str, Any], image: UInt8[Array, "b h w 3"], key: Array | None = None
  ) -> dict[str, Float[Array, "b h w c"]]:
    rngs = None if key is None else {"dropout": key}
    return module.apply({"params": params}, pixels(image), key is None, rngs=rngs)

  return Dense(init, apply)


def pixels(image: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
  """8-bit images with values in [-1, 1]."""
  return image.astype(jnp.float32) / 127.5 - 1.0


def padded(x_BHWC: Float[Array, "b h w c"], multiple: int) -> Float[Array, "b h2 w2 c"]:
  """Repeats the last row and column until both sides are multiples of `multiple`."""
  height, width = (-size % multiple for size in x_BHWC.shape[1:3])
  if not height and not width:
    return x_BHWC
  return jnp.pad(x_BHWC, ((0, 0), (0, height), (0, width), (0, 0)), mode="edge")


def resized(x_BHWC: Float[Array, "b h w c"], height: int, width: int) -> Float[Array, "b h2 w2 c"]:
  """Bilinear, in float32; pixels are areas, whose centers are compared."""
  batch, _, _, channels = x_BHWC.shape
  return jax.image.resize(x_BHWC.astype(jnp.float32), (batch, height, width, channels), "linear")


class Logits(nn.Module):
  """A linear head, zero at first, so that training starts from even predictions.

  It computes in float32, as all that follows it does.
  """

  classes: int

  @nn.compact
  def __call__(self, x_BHWC: Float[Array, "b h w c"]) -> Float[Array, "b h w k"]:
    head = nn.Dense(self.classes, kernel_init=nn.initializers.zeros, name="head")
    return head(x_BHWC.astype(jnp.float32))


class GroupNorm(nn.GroupNorm):
  """Flax's, where JAX's promotion is strict: it subtracts a float32 mean from halves."""

  def __call__(self, x):
    with jax.numpy_dtype_promotion("standard"):
      return super().__call__(x)


class Affine(nn.Module):
  """A scale and a bias of each channel: batch norm with its statistics folded in."""

  scale_init: Callable[..., Array] = nn.initializers.ones

  @nn.compact
  def __call__(self, x_BHWC):
    shape = (x_BHWC.shape[-1],)
    scale_C = self.param("scale", self.scale_init, shape)
    bias_C = self.param("bias", nn.initializers.zeros, shape)
    scale, bias = (x.astype(x_BHWC.dtype)[None, None, None] for x in (scale_C, bias_C))
    return x_BHWC * scale + bias


def normalized(
  x_BHWC: Float[Array, "b h w c"],
  norm: str,
  name: str,
  scale_init: Callable[..., Array] = nn.initializers.ones,
) -> Float[Array, "b h w c"]:
  """What the norm of a module's layer `name` makes of it.

  "group" has 32 groups (Wu & He 2018), fewer where they would have less than 8 channels: a group of
  one channel of one pixel, which pooling leaves, is always zero. "affine" only scales and shifts,
  "none" leaves it.
  """
  if norm == "none":
    return x_BHWC
  if norm == "affine":
    return Affine(scale_init, name=name)(x_BHWC)
  channels = x_BHWC.shape[-1]
  groups = math.gcd(32, channels, max(channels // 8, 1))
  layer = GroupNorm(groups, dtype=x_BHWC.dtype, scale_init=scale_init, name=name)
  return layer(x_BHWC)


def check_least(least: int, **values: int) -> None:
  """UsageError for the first setting below `least`."""
  for name, value in values.items():
    if value < least:
      raise UsageError(f"{PATH}.{name} is {value}; it must be at least {least}.")


def check_choice(choices: Collection[Any], **values: Any) -> None:
  """UsageError for the first setting that is none of the choices."""
  for name, value in values.items():
    if value not in choices:
      raise UsageError(f"{PATH}.{name} is {value!r}; it must be one of {tuple(choices)}.")


def check_dropout(dropout: float) -> None:
  """UsageError for a rate outside [0, 1)."""
  if not 0 <= dropout < 1:
    raise UsageError(f"{PATH}.dropout is {dropout}; it must be at least 0 and less than 1.")
