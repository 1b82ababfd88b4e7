"""Residual networks (He et al. 2015, 1512.03385): features of four stages.

Layers, their names and their sizes are those of torchvision; in place of batch norm, for the reason
that dense.py gives, there is group norm, or the scale and bias alone that a frozen batch norm
amounts to.

Dimension key: that of dense.py.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models import dense


class ResNet(NamedTuple):
  """Sizes of a backbone.

  Attributes:
    blocks: of each of its stages, four in all.
    bottleneck: whether a block is 1 x 1, 3 x 3, 1 x 1 with four times the channels at its ends, or
      two 3 x 3.
    width: channels of the 3 x 3 convolutions of the first stage; each stage doubles them.
  """

  blocks: tuple[int, ...]
  bottleneck: bool = False
  width: int = 64


# Table 1 of "Deep Residual Learning for Image Recognition" (1512.03385), and one for small images.
VARIANTS = {
  "small": ResNet((1, 1, 1, 1), width=16),
  "resnet18": ResNet((2, 2, 2, 2)),
  "resnet34": ResNet((3, 4, 6, 3)),
  "resnet50": ResNet((3, 4, 6, 3), bottleneck=True),
  "resnet101": ResNet((3, 4, 23, 3), bottleneck=True),
}


class Layers(NamedTuple):
  """How all layers of a network compute."""

  norm: str
  dtype: jnp.dtype

  def conv(
    self,
    x_BHWC: Float[Array, "b h w c"],
    names: tuple[str, str],
    channels: int,
    size: int = 3,
    stride: int = 1,
    dilation: int = 1,
    scale_init: Callable[..., Array] = nn.initializers.ones,
  ) -> Float[Array, "b h2 w2 c2"]:
    """A convolution and its norm, in the module that calls it; padded as torch does."""
    reach = dilation * (size // 2)
    x = nn.Conv(
      channels,
      (size, size),
      stride,
      ((reach, reach), (reach, reach)),
      kernel_dilation=dilation,
      use_bias=False,
      kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
      dtype=self.dtype,
      name=names[0],
    )(x_BHWC)
    return dense.normalized(x, self.norm, names[1], scale_init)


class Backbone(nn.Module):
  """Image [B, H, W, 3] -> features of the stages.

  Strides are 4, 8, 16 and 32, but no larger than `output_stride`: what has been reached is kept by
  dilation, which computes the same features in more places.
  """

  sizes: ResNet
  output_stride: int
  layers: Layers

  @nn.compact
  def __call__(self, image_BHWC: Float[Array, "b h w 3"]) -> Sequence[Float[Array, "b _h _w _c"]]:
    its = self.sizes
    x = image_BHWC.astype(self.layers.dtype)
    x = nn.relu(self.layers.conv(x, ("conv1", "norm1"), its.width, size=7, stride=2))
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    stages, reached, dilation = [], 4, 1
    for stage, blocks in enumerate(its.blocks):
      stride, before = (1 if stage == 0 else 2), dilation
      if reached * stride > self.output_stride:
        stride, dilation = 1, dilation * stride
      reached *= stride
      for place in range(blocks):
        x = Block(
          its.width << stage,
          its.bottleneck,
          stride if place == 0 else 1,
          # The first block still sees the grid of the stage before it.
          (before if place == 0 else dilation, dilation),
          self.layers,
          name=f"layer{stage + 1}_{place}",
        )(x)
      stages.append(x)
    return stages


class Block(nn.Module):
  """A residual block. Its last norm starts at zero (Goyal et al. 2017), so it starts as nothing."""

  width: int
  bottleneck: bool
  stride: int
  dilations: tuple[int, int]  # up to the stride, and behind it
  layers: Layers

  @nn.compact
  def __call__(self, x_BHWC: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
    conv, last = self.layers.conv, nn.initializers.zeros
    strided = {"stride": self.stride, "dilation": self.dilations[0]}
    x = x_BHWC
    if self.bottleneck:
      channels = 4 * self.width
      x = nn.relu(conv(x, ("conv1", "norm1"), self.width, size=1))
      x = nn.relu(conv(x, ("conv2", "norm2"), self.width, **strided))
      x = conv(x, ("conv3", "norm3"), channels, size=1, scale_init=last)
    else:
      channels = self.width
      x = nn.relu(conv(x, ("conv1", "norm1"), channels, **strided))
      x = conv(x, ("conv2", "norm2"), channels, dilation=self.dilations[1], scale_init=last)
    if self.stride > 1 or x_BHWC.shape[-1] != channels:
      names = ("downsample_conv", "downsample_norm")
      x_BHWC = conv(x_BHWC, names, channels, size=1, stride=self.stride)
    return nn.relu(x + x_BHWC)
