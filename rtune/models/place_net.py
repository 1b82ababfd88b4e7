"""An encoder and a convolutional head that says of each place of a grid what is there.

As in detectors without anchors (CenterNet, 1904.07850): an object is told by the place of its
center.

Dimension key:
  B: batch
  R, C: rows and columns of places, the patches of the encoder
  N: places, row by row
  D: width
  K: classes
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models import encoders
from rtune.models.encoders import Features, Images
from rtune.models.layers import LayerNorm

_RARE = -4.0  # logit at first: most places are empty, and should not cost the first steps
BOX = 4


class Seen(NamedTuple):
  """What is said of each place."""

  present: Float[Array, "b n"]  # logits
  label: Float[Array, "b n k"]  # logits
  box: Float[Array, "b n 4"]  # center and log size, see `policies.space.Places`
  log_scale: Float[Array, "b n 4"]  # of the box's numbers


class PlaceNet(nn.Module):
  """Images, or features of the encoder's backbone, -> `Seen`. Parameters: encoder and head."""

  encoder: encoders.Net
  rows: int
  columns: int
  classes: int
  width: int
  depth: int

  def setup(self):
    self.head = Head(self.classes, self.width, self.depth, self.encoder.dtype)

  def features(self, image_BIIC: Images) -> Features:
    """What a backbone says of 8-bit images."""
    return encoders.features(self.encoder, image_BIIC)

  def __call__(self, given: Images | Features, deterministic: bool = True) -> Seen:
    tokens_BND = encoders.encode(self.encoder, given, deterministic)
    batch, _, width = tokens_BND.shape
    return self.head(tokens_BND.reshape(batch, self.rows, self.columns, width))


class Head(nn.Module):
  """Tokens on their grid -> `Seen`, by convolutions that look at neighbors."""

  classes: int
  width: int
  depth: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x_BRCD: Float[Array, "b r c d"]) -> Seen:
    for layer in range(self.depth):
      conv = nn.Conv(self.width, (3, 3), padding=1, dtype=self.dtype, name=f"conv_{layer}")
      x_BRCD = nn.gelu(LayerNorm(dtype=self.dtype, name=f"norm_{layer}")(conv(x_BRCD)))
    x_BND = x_BRCD.reshape(x_BRCD.shape[0], -1, x_BRCD.shape[-1])

    def said(size: int, name: str, first: float = 0.0) -> Float[Array, "b n size"]:
      bias = nn.initializers.constant(first)
      return nn.Dense(size, bias_init=bias, name=name)(x_BND.astype(jnp.float32))

    present_BN = said(1, "present", _RARE)[..., 0]
    return Seen(present_BN, said(self.classes, "label"), said(BOX, "box"), said(BOX, "log_scale"))
