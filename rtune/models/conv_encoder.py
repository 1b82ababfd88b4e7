"""An encoder that rests on a convolutional backbone: its features, projected, with positions.

A small Transformer above it lets places see each other, as in DETR (Carion et al. 2020).

Dimension key:
  B: batch
  I: image height and width in pixels
  C: channels of the features
  N: places of the features, row by row
  D: width
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models import vit
from rtune.models.backbones import backbone
from rtune.models.layers import LayerNorm
from rtune.rewards.plain_nets import standardized


class ConvEncoder(nn.Module):
  """Image [B, I, I, 3] with values in [-1, 1] -> tokens [B, N, D].

  Parameters: {"backbone": features, "neck": all else}. Where the backbone is not trained, features
  can be given in place of images: they are always the same.
  """

  net: str
  patch_size: int
  width: int
  depth: int
  num_heads: int
  mlp_dim: int
  dtype: jnp.dtype
  dropout: float = 0.0
  drop_path: float = 0.0
  remat: bool = False
  scan: bool = False

  def setup(self):
    self.backbone = backbone(self.net, self.patch_size, self.dtype)
    sizes = (self.width, self.depth, self.num_heads, self.mlp_dim, self.dtype)
    self.neck = Neck(*sizes, self.dropout, self.drop_path, self.remat, self.scan)

  def features(self, image_BIIC: Float[Array, "b i i 3"]) -> Float[Array, "b n c"]:
    """What the backbone says of each place."""
    maps = self.backbone(standardized(image_BIIC))[-1]
    return maps.reshape(maps.shape[0], -1, maps.shape[-1])

  def of_features(
    self, features_BNC: Float[Array, "b n c"], deterministic: bool = True
  ) -> Float[Array, "b n d"]:
    """Tokens of features."""
    return self.neck(features_BNC, deterministic)

  def __call__(
    self, image_BIIC: Float[Array, "b i i 3"], deterministic: bool = True
  ) -> Float[Array, "b n d"]:
    return self.of_features(self.features(image_BIIC), deterministic)


class Neck(nn.Module):
  """Features [B, N, C] -> tokens [B, N, D]."""

  width: int
  depth: int
  num_heads: int
  mlp_dim: int
  dtype: jnp.dtype
  dropout: float
  drop_path: float
  remat: bool
  scan: bool

  @nn.compact
  def __call__(
    self, features_BNC: Float[Array, "b n c"], deterministic: bool
  ) -> Float[Array, "b n d"]:
    # Behind a ReLU, features of some channels are far larger than others.
    x_BNC = LayerNorm(dtype=self.dtype, name="norm")(features_BNC.astype(self.dtype))
    x_BND = nn.Dense(self.width, dtype=self.dtype, name="project")(x_BNC)
    position = self.param("pos_embedding", vit.sincos_2d, (1, x_BND.shape[1], self.width))
    x_BND = nn.Dropout(self.dropout)(x_BND + position.astype(self.dtype), deterministic)
    return vit.Stack(
      self.depth,
      self.num_heads,
      self.mlp_dim,
      self.dtype,
      self.dropout,
      self.drop_path,
      self.remat,
      self.scan,
      name="Transformer",
    )(x_BND, deterministic)
