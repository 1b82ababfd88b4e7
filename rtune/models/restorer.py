"""Networks that give a picture back restored: the record they all are, and what they share.

A config names a function of the number of channels, such as `rtune.models.rdunet:rdunet`. None has
batch normalization, as in dense.py.

Dimension key:
  B: batch of pictures
  H, W: height and width in pixels
  Y, X: those of the restored picture, `scale` times as large
  C: channels of a picture
  F: features
  K: numbers that are said of each block
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Restored(NamedTuple):
  """What a network makes of a degraded picture.

  Attributes:
    image: float32, as the network has it: not clipped to [0, 1].
    features: what the last layers see of each pixel, float32.
  """

  image: Float[Array, "b y x c"]
  features: Float[Array, "b y x f"]


class Restorer(NamedTuple):
  """A network that restores pictures: pure functions of parameters, which are nested dicts.

  Attributes:
    init: (key, image float32 [B, H, W, C] in [0, 1], sigma [B]) -> parameters, float32.
    apply: (parameters, image, sigma) -> `Restored`, whatever the size of the picture. `sigma` is
      the level of the noise over 255, 0 where it is unknown; blind networks do not read it.
    scale: how much larger the restored picture is.
    multiple: pictures whose sides are multiples of it are seen without padding.
  """

  init: Callable[..., dict[str, Any]]
  apply: Callable[..., Restored]
  scale: int = 1
  multiple: int = 1


def of_module(module: nn.Module, scale: int = 1, multiple: int = 1) -> Restorer:
  """The network of a module: (image, sigma) -> `Restored`, for sides that are multiples."""

  def init(key: Array, image: Float[Array, "b h w c"], sigma: Float[Array, " b"]) -> dict[str, Any]:
    return module.init(key, mirrored(image, multiple), sigma)["params"]

  def apply(
    params: dict[str, Any], image: Float[Array, "b h w c"], sigma: Float[Array, " b"]
  ) -> Restored:
    height, width = image.shape[1:3]
    found = module.apply({"params": params}, mirrored(image, multiple), sigma)
    return Restored(*(x[:, : scale * height, : scale * width] for x in found))

  return Restorer(init, apply, scale, multiple)


def mirrored(image: Float[Array, "b h w c"], multiple: int) -> Float[Array, "b h2 w2 c"]:
  """Mirrored at the right and below until both sides are multiples of `multiple`."""
  below, right = (-side % multiple for side in image.shape[1:3])
  if not below and not right:
    return image
  return jnp.pad(image, ((0, 0), (0, below), (0, right), (0, 0)), mode="symmetric")


def enlarged(image: Float[Array, "b h w c"], scale: int) -> Float[Array, "b y x c"]:
  """Bicubic (Keys, a = -0.5); pixels are areas, whose centers are compared."""
  if scale == 1:
    return image
  batch, height, width, channels = image.shape
  return jax.image.resize(image, (batch, scale * height, scale * width, channels), "cubic")


def repeated(x: Float[Array, "b h w f"], times: int) -> Float[Array, "b y x f"]:
  """Each pixel becomes times x times of them."""
  batch, height, width, channels = x.shape
  shape = (batch, height, times, width, times, channels)
  blocks = jnp.broadcast_to(x[:, :, None, :, None], shape)
  return blocks.reshape(batch, times * height, times * width, channels)


def unrolled(steps: int) -> int:
  """How many steps of a loop over convolutions are compiled one after the other: on CPU all.

  There the gradient of a convolution within a loop takes 18 times as long (jax 0.10).
  """
  return max(steps, 1) if jax.default_backend() == "cpu" else 1


class BlockHead(nn.Module):
  """K numbers for each block, of what is known of it; zero at first."""

  outputs: int
  width: int

  @nn.compact
  def __call__(self, x: Float[Array, "b h w f"]) -> Float[Array, "b h w k"]:
    x = nn.Conv(self.width, (3, 3), kernel_init=nn.initializers.he_normal(), name="hidden")(x)
    return nn.Conv(self.outputs, (1, 1), kernel_init=nn.initializers.zeros, name="out")(nn.relu(x))


class Head(NamedTuple):
  """A head as pure functions: init (key, features) -> parameters; apply (parameters, features)."""

  init: Callable[..., dict[str, Any]]
  apply: Callable[..., Float[Array, "b h w k"]]


def block_head(outputs: int, width: int) -> Head:
  """Features [B, H, W, F] -> [B, H, W, outputs]; it sees the neighbors of each place too."""
  module = BlockHead(outputs, width)

  def init(key: Array, features: Float[Array, "b h w f"]) -> dict[str, Any]:
    return module.init(key, features)["params"]

  def apply(params: dict[str, Any], features: Float[Array, "b h w f"]) -> Float[Array, "b h w k"]:
    return module.apply({"params": params}, features)

  return Head(init, apply)
