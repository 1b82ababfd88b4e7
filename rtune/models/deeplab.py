"""DeepLabV3 (Chen et al. 2017, 1706.05587) on a ResNet, with an auxiliary FCN head.

Layers, their names and their sizes are those of torchvision's `deeplabv3_resnet50` and its kin; in
place of batch norm, for the reason that dense.py gives, there is group norm, or the scale and bias
alone that a frozen batch norm amounts to.

Dimension key: that of dense.py.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models import dense, resnet, sizes, vit
from rtune.rewards.plain_nets import standardized

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
  dense.check_choice(resnet.VARIANTS, backbone=backbone)
  dense.check_choice(OUTPUT_STRIDES, output_stride=output_stride)
  dense.check_choice(dense.NORMS, norm=norm)
  dense.check_choice(sizes.DTYPES, dtype=dtype)
  dense.check_least(1, width=width)
  dense.check_least(1, **{f"rates[{place}]": rate for place, rate in enumerate(rates)})
  dense.check_dropout(dropout)
  rates = tuple(rates) or tuple(rate * 16 // output_stride for rate in (6, 12, 18))
  layers = resnet.Layers(norm, vit.compute_dtype(dtype))
  return dense.of_module(
    DeepLab(
      classes, resnet.VARIANTS[backbone], output_stride, width, rates, auxiliary, dropout, layers
    )
  )


class DeepLab(nn.Module):
  """Image [B, H, W, 3] with values in [-1, 1] -> {"logits" and, asked for, "auxiliary"}."""

  classes: int
  backbone: resnet.ResNet
  output_stride: int
  width: int
  rates: tuple[int, ...]
  auxiliary: bool
  dropout: float
  layers: resnet.Layers

  @nn.compact
  def __call__(
    self, image_BHWC: Float[Array, "b h w 3"], deterministic: bool = True
  ) -> dict[str, Float[Array, "b h w c"]]:
    size = image_BHWC.shape[1:3]
    trunk = resnet.Backbone(self.backbone, self.output_stride, self.layers, name="backbone")
    stages = trunk(standardized(image_BHWC))

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
  layers: resnet.Layers

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
