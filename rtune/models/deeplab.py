"""DeepLabV3 (Chen et al. 2017, 1706.05587) on a ResNet, with an auxiliary FCN head.

Layers, their names and their sizes are those of torchvision's `deeplabv3_resnet50` and its kin; in
place of batch norm, for the reason that dense.py gives, there is group norm, or the scale and bias
alone that a frozen batch norm amounts to.

Dimension key: that of dense.py.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models import dense, sizes, vit


class ResNet(NamedTuple):
  """Sizes of a backbone.

  Attributes:
    blocks: of each of its four stages.
    bottleneck: whether a block is 1 x 1, 3 x 3, 1 x 1 with four times the channels at its ends, or
      two 3 x 3.
    width: channels of the 3 x 3 convolutions of the first stage; each stage doubles them.
  """

  blocks: tuple[int, int, int, int]
  bottleneck: bool = False
  width: int = 64


# Table 1 of "Deep Residual Learning for Image Recognition" (1512.03385), and one for small images.
BACKBONES = {
  "small": ResNet((1, 1, 1, 1), width=16),
  "resnet18": ResNet((2, 2, 2, 2)),
  "resnet34": ResNet((3, 4, 6, 3)),
  "resnet50": ResNet((3, 4, 6, 3), bottleneck=True),
  "resnet101": ResNet((3, 4, 23, 3), bottleneck=True),
}
OUTPUT_STRIDES = (8, 16, 32)


def deeplab(
  classes: int,
  *,
  backbone: str = "resnet50",
  output_stride: int = 8,
  width: int = 256,
  rates: tuple[int, ...] = (),
  auxiliary: bool = True,
  norm: str = "group",
  dropout: float = 0.0,
  dtype: str = "auto",
) -> dense.Dense:
  """DeepLabV3. Images of any size work: features are of ceil(size / output_stride).

  Args:
    backbone: "small", "resnet18", "resnet34", "resnet50" or "resnet101".
    output_stride: pixels of the image for one of the last features, 8, 16 or 32: later stages are
      dilated in place of a stride.
    width: channels of the head.
    rates: dilations of the head's 3 x 3 convolutions; (): the paper's 6, 12 and 18 for an
      `output_stride` of 16, and as many pixels of the image for the others.
    auxiliary: whether a head on the third stage gives logits of its own, "auxiliary", for an extra
      loss.
    norm: "group" (Wu & He 2018), or "affine", a scale and a bias of each channel: for weights that
      were trained with batch norm, whose statistics are folded into them.
    dropout: before each classifier, while imitating only.
    dtype: of compute: "float32", "bfloat16"; auto: bfloat16 except on CPU.

  Raises:
    UsageError: a setting that is out of its range.
  """
  dense.check_choice(BACKBONES, backbone=backbone)
  dense.check_choice(OUTPUT_STRIDES, output_stride=output_stride)
  dense.check_choice(dense.NORMS, norm=norm)
  dense.check_choice(sizes.DTYPES, dtype=dtype)
  dense.check_least(1, width=width)
  dense.check_least(1, **{f"rates[{place}]": rate for place, rate in enumerate(rates)})
  dense.check_dropout(dropout)
  rates = tuple(rates) or tuple(rate * 16 // output_stride for rate in (6, 12, 18))
  layers = _Layers(norm, vit.compute_dtype(dtype))
  return dense.of_module(
    DeepLab(classes, BACKBONES[backbone], output_stride, width, rates, auxiliary, dropout, layers)
  )


class _Layers(NamedTuple):
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


class DeepLab(nn.Module):
  """Image [B, H, W, 3] with values in [-1, 1] -> {"logits" and, asked for, "auxiliary"}."""

  classes: int
  backbone: ResNet
  output_stride: int
  width: int
  rates: tuple[int, ...]
  auxiliary: bool
  dropout: float
  layers: _Layers

  @nn.compact
  def __call__(
    self, image_BHWC: Float[Array, "b h w 3"], deterministic: bool = True
  ) -> dict[str, Float[Array, "b h w c"]]:
    size = image_BHWC.shape[1:3]
    stages = Backbone(self.backbone, self.output_stride, self.layers, name="backbone")(image_BHWC)

    def classified(x, name):
      x = nn.Dropout(self.dropout)(x, deterministic)
      return dense.resized(dense.Logits(self.classes, name=name)(x), *size)

    x = Aspp(self.width, self.rates, self.layers, name="aspp")(stages[3])
    x = nn.relu(self.layers.conv(x, ("conv", "norm"), self.width))
    outputs = {"logits": classified(x, "logits")}
    if self.auxiliary:
      x = stages[2]
      x = nn.relu(self.layers.conv(x, ("auxiliary_conv", "auxiliary_norm"), x.shape[-1] // 4))
      outputs["auxiliary"] = classified(x, "auxiliary_logits")
    return outputs


class Aspp(nn.Module):
  """Atrous spatial pyramid pooling: several dilations and the mean of the image, side by side."""

  width: int
  rates: tuple[int, ...]
  layers: _Layers

  @nn.compact
  def __call__(self, x_BHWC: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
    conv = functools.partial(self.layers.conv, channels=self.width)
    branches = [conv(x_BHWC, ("conv_0", "norm_0"), size=1)]
    for place, rate in enumerate(self.rates, 1):
      branches.append(conv(x_BHWC, (f"conv_{place}", f"norm_{place}"), dilation=rate))
    mean = jnp.mean(x_BHWC, axis=(1, 2), keepdims=True, dtype=jnp.float32).astype(x_BHWC.dtype)
    pooled = conv(mean, ("pool_conv", "pool_norm"), size=1)
    branches.append(jnp.broadcast_to(pooled, branches[0].shape))
    joined = nn.relu(jnp.concatenate(branches, axis=-1))
    return nn.relu(conv(joined, ("project", "project_norm"), size=1))


class Backbone(nn.Module):
  """Image [B, H, W, 3] -> features of the four stages.

  Strides are 4, 8, 16 and 32, but no larger than `output_stride`: what has been reached is kept by
  dilation, which computes the same features in more places.
  """

  sizes: ResNet
  output_stride: int
  layers: _Layers

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
  layers: _Layers

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
