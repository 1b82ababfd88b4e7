"""Convolutional backbones, as they were trained on ImageNet: AlexNet, VGG16, and ResNets.

Dimension key: that of dense.py, and
  S: pixels of the image for one place of a map
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.data.files.lpips_weights import LAYERS
from rtune.models import resnet
from rtune.rewards import plain_nets

_PLAIN = {"alexnet": "alex", "vgg16": "vgg"}
_STAGES = {4: 0, 8: 1, 16: 2, 32: 3}  # S -> the stage of a ResNet


class Plain(nn.Module):
  """AlexNet or VGG16: standardized image [B, H, W, 3] -> what each layer says, [B, H/S, W/S, C].

  Parameters: kernel_0, bias_0, ..., up to the last layer with maps of this S.
  """

  net: str
  stride: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, image_BHWC: Float[Array, "b h w 3"]) -> Sequence[Float[Array, "b _h _w _c"]]:
    last, weights = plain_nets.LAYER_AT[self.net][self.stride], {}
    for layer, (size, before, after) in enumerate(LAYERS[self.net][: last + 1]):
      shape = (size, size, before, after)
      weights[f"kernel_{layer}"] = self.param(f"kernel_{layer}", nn.initializers.he_normal(), shape)
      weights[f"bias_{layer}"] = self.param(f"bias_{layer}", nn.initializers.zeros, (after,))
    weights = {name: value.astype(self.dtype) for name, value in weights.items()}
    return plain_nets.features(image_BHWC.astype(self.dtype), weights, self.net, last)


def backbone(name: str, stride: int, dtype: jnp.dtype) -> nn.Module:
  """A module for standardized images, whose last output are the maps of one place for S x S pixels.

  Batch norms of a ResNet are folded into scales and biases.
  """
  if name in _PLAIN:
    return Plain(_PLAIN[name], stride, dtype)
  sizes = resnet.VARIANTS[name]
  sizes = sizes._replace(blocks=sizes.blocks[: _STAGES[stride] + 1])
  return resnet.Backbone(sizes, stride, resnet.Layers("affine", dtype))
