"""A small convolutional U-Net (Ronneberger et al. 2015), made for two cores and small images.

Convolutions with stride halve the resolution, and skips are added, not joined: both halve what the
finest level costs, and nothing else of a U-Net costs as much.

Dimension key: that of dense.py.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models import dense, sizes, vit


def unet(
  classes: int,
  *,
  width: int = 16,
  depth: int = 3,
  norm: str = "none",
  dropout: float = 0.0,
  dtype: str = "auto",
) -> dense.Dense:
  """A U-Net.

  Args:
    width: channels at full resolution; each halving doubles them.
    depth: how often the resolution is halved. Images of any size work: those that are no multiple
      of 2**depth are padded and their logits cropped.
    norm: "none", or "group" before each activation.
    dropout: of the coarsest features, while imitating only.
    dtype: of compute: "float32", "bfloat16"; auto: bfloat16 except on CPU.

  Raises:
    UsageError: a setting that is out of its range.
  """
  dense.check_least(1, width=width)
  dense.check_least(0, depth=depth)
  dense.check_choice(("none", "group"), norm=norm)
  dense.check_choice(sizes.DTYPES, dtype=dtype)
  dense.check_dropout(dropout)
  return dense.of_module(UNet(classes, width, depth, norm, dropout, vit.compute_dtype(dtype)))


class UNet(nn.Module):
  """Image [B, H, W, 3] with values in [-1, 1] -> {"logits": [B, H, W, C]}."""

  classes: int
  width: int
  depth: int
  norm: str
  dropout: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, image_BHWC: Float[Array, "b h w 3"], deterministic: bool = True
  ) -> dict[str, Float[Array, "b h w c"]]:
    height, width = image_BHWC.shape[1:3]
    conv = functools.partial(Conv, norm=self.norm, dtype=self.dtype)
    x = dense.padded(image_BHWC, 2**self.depth).astype(self.dtype)
    skips = []
    for level in range(self.depth):
      channels = self.width << level
      x = conv(channels, name=f"encode_{level}")(x)
      skips.append(x)
      x = conv(2 * channels, stride=2, name=f"down_{level}")(x)
    x = nn.Dropout(self.dropout)(x, deterministic)
    for level in reversed(range(self.depth)):
      channels = self.width << level
      x = nn.Dense(channels, dtype=self.dtype, name=f"up_{level}")(x)
      x = conv(channels, name=f"decode_{level}")(_doubled(x) + skips[level])
    logits_BHWC = dense.Logits(self.classes, name="logits")(x)
    return {"logits": logits_BHWC[:, :height, :width]}


class Conv(nn.Module):
  """A 3 x 3 convolution, a norm or none, and ReLU."""

  channels: int
  norm: str
  dtype: jnp.dtype
  stride: int = 1

  @nn.compact
  def __call__(self, x_BHWC: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
    x = nn.Conv(
      self.channels,
      (3, 3),
      self.stride,
      use_bias=self.norm == "none",
      kernel_init=nn.initializers.he_normal(),
      dtype=self.dtype,
      name="conv",
    )(x_BHWC)
    return nn.relu(dense.normalized(x, self.norm, "norm"))


def _doubled(x_BHWC: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
  """Each pixel becomes 2 x 2."""
  batch, height, width, channels = x_BHWC.shape
  x = jnp.broadcast_to(x_BHWC[:, :, None, :, None], (batch, height, 2, width, 2, channels))
  return x.reshape(batch, 2 * height, 2 * width, channels)
