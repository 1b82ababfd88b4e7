"""Label maps from a ViT: a linear head (SETR's plainest, as in Segmenter), or a mask transformer.

"Segmenter: Transformer for Semantic Segmentation" (Strudel et al. 2021, 2105.05633). The encoder is
that of vit.py, its parameters are called "encoder", and published weights load into it.

Dimension key: that of dense.py, and
  N: patches
  D: width
  K: classes
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.config.build import as_kind
from rtune.models import dense, sizes, vit
from rtune.models.layers import LayerNorm


def linear(
  classes: int,
  *,
  encoder: Mapping[str, Any] = {},
  dtype: str = "auto",
  remat: bool = False,
  scan_layers: bool = False,
) -> dense.Dense:
  """A ViT, a linear layer on each of its patches, and bilinear interpolation.

  Images of any size work: they are padded to whole patches, and positions are interpolated.

  Args:
    encoder: the fields of `rtune.models.sizes.Encoder` that differ from its defaults (ViT-B/16).
    dtype: of compute: "float32", "bfloat16"; auto: bfloat16 except on CPU.
    remat: recompute activations in the backward pass: less memory, more time.
    scan_layers: training runs layers as a loop: deep models compile far sooner.

  Raises:
    UsageError: a setting that is unknown or out of its range.
  """
  return _network(classes, encoder, dtype, remat, scan_layers, layers=0)


def segmenter(
  classes: int,
  *,
  encoder: Mapping[str, Any] = {},
  layers: int = 2,
  dtype: str = "auto",
  remat: bool = False,
  scan_layers: bool = False,
) -> dense.Dense:
  """A ViT and a mask transformer: patches are compared with a token of each class.

  Args:
    layers: of the mask transformer, in which patches and classes see each other; it is as wide as
      the encoder.
    encoder, dtype, remat, scan_layers: as in `linear`.

  Raises:
    UsageError: a setting that is unknown or out of its range.
  """
  dense.check_least(1, layers=layers)
  return _network(classes, encoder, dtype, remat, scan_layers, layers)


def _network(
  classes: int,
  encoder: Mapping[str, Any],
  dtype: str,
  remat: bool,
  scan_layers: bool,
  layers: int,
) -> dense.Dense:
  size = as_kind(sizes.Encoder, encoder, f"{dense.PATH}.encoder")
  model = sizes.Model(encoder=size, dtype=dtype, remat=remat, scan_layers=scan_layers)
  sizes.check_model(model, dense.PATH)
  return dense.of_module(VitDense(classes, model, layers))


class VitDense(nn.Module):
  """Image [B, H, W, 3] with values in [-1, 1] -> {"logits": [B, H, W, C]}."""

  classes: int
  model: sizes.Model
  layers: int  # of the mask transformer; 0: a linear head

  @nn.compact
  def __call__(
    self, image_BHWC: Float[Array, "b h w 3"], deterministic: bool = True
  ) -> dict[str, Float[Array, "b h w c"]]:
    height, width = image_BHWC.shape[1:3]
    x_BHWC = dense.padded(image_BHWC, self.model.encoder.patch_size)
    grid_BHWD = GridEncoder(self.model, name="encoder")(x_BHWC, deterministic)
    if self.layers:
      logits = MaskTransformer(self.classes, self.model, self.layers, name="decoder")(
        grid_BHWD, deterministic
      )
    else:
      logits = dense.Logits(self.classes, name="logits")(grid_BHWD)
    logits_BHWC = dense.resized(logits, *x_BHWC.shape[1:3])
    return {"logits": logits_BHWC[:, :height, :width]}


class GridEncoder(nn.Module):
  """The ViT of vit.py over a grid of any shape: [B, H, W, 3] -> [B, H/P, W/P, D].

  Positions are those of a square, as in published weights, interpolated where the grid is none.
  """

  model: sizes.Model

  @nn.compact
  def __call__(
    self, image_BHWC: Float[Array, "b h w 3"], deterministic: bool
  ) -> Float[Array, "b h2 w2 d"]:
    size, dtype = self.model.encoder, vit.compute_dtype(self.model.dtype)
    width, depth, mlp_dim, heads = sizes_of(size)
    image = image_BHWC.astype(dtype)
    if size.conv_stem:
      grid = vit.ConvStem(size.patch_size, width, dtype, name="stem")(image)
    else:
      patch = (size.patch_size,) * 2
      grid = nn.Conv(width, patch, patch, "VALID", dtype=dtype, name="embedding")(image)
    grid = grid + self._positions(*grid.shape[1:]).astype(dtype)
    x_BND = nn.Dropout(size.dropout)(grid.reshape(len(grid), -1, width), deterministic)
    x_BND = vit.Stack(
      depth,
      heads,
      mlp_dim,
      dtype,
      size.dropout,
      size.drop_path,
      self.model.remat,
      self.model.scan_layers,
      size.layer_scale,
      size.registers,
      size.gelu,
      name="Transformer",
    )(x_BND, deterministic)
    return x_BND.reshape(grid.shape)

  def _positions(self, height: int, width: int, channels: int) -> Float[Array, "1 h w d"]:
    name = "pos_embedding"
    if self.is_initializing():
      side = round((height * width) ** 0.5)
      position = self.param(name, vit.sincos_2d, (1, side**2, channels))
    else:  # of another image size, as it was when these were made
      position = self.get_variable("params", name)
    side = round(position.shape[1] ** 0.5)
    square = position.reshape(1, side, side, channels)
    if (height, width) == (side, side):
      return square
    return dense.resized(square, height, width)


class MaskTransformer(nn.Module):
  """Segmenter's decoder: the logit of a class is the product of two unit vectors, normalized.

  Grid [B, H, W, D] -> logits [B, H, W, K], float32.
  """

  classes: int
  model: sizes.Model
  layers: int

  @nn.compact
  def __call__(
    self, grid_BHWD: Float[Array, "b h w d"], deterministic: bool
  ) -> Float[Array, "b h w k"]:
    size, dtype = self.model.encoder, vit.compute_dtype(self.model.dtype)
    _, _, mlp_dim, heads = sizes_of(size)
    batch, height, width, channels = grid_BHWD.shape
    x_BND = nn.Dense(channels, dtype=dtype, name="proj_dec")(grid_BHWD)
    x_BND = x_BND.reshape(batch, -1, channels)
    classes_KD = self.param(
      "cls_emb", nn.initializers.truncated_normal(0.02), (1, self.classes, channels)
    )
    classes_BKD = jnp.broadcast_to(classes_KD.astype(dtype), (batch, self.classes, channels))
    x_BND = jnp.concatenate([x_BND, classes_BKD], axis=1)
    x_BND = vit.Stack(
      self.layers,
      heads,
      mlp_dim,
      dtype,
      size.dropout,
      remat=self.model.remat,
      scan=self.model.scan_layers,
      name="Transformer",
    )(x_BND, deterministic)
    # From here on in float32: products of unit vectors are small, and what differs in them counts.
    patches, classes = jnp.split(x_BND.astype(jnp.float32), [height * width], axis=1)
    patches_BND = self._projected(patches, "proj_patch")
    classes_BKD = self._projected(classes, "proj_classes")
    masks_BNK = jnp.einsum("bnd,bkd->bnk", patches_BND, classes_BKD)
    masks_BNK = LayerNorm(name="mask_norm")(masks_BNK)
    return masks_BNK.reshape(batch, height, width, self.classes)

  def _projected(self, x_BND: Float[Array, "b n d"], name: str) -> Float[Array, "b n d"]:
    channels = x_BND.shape[-1]
    init = nn.initializers.normal(channels**-0.5)
    x_BND = x_BND @ self.param(name, init, (channels, channels))
    square_BN1 = jnp.sum(x_BND**2, axis=-1, keepdims=True)
    return x_BND * jax.lax.rsqrt(square_BN1 + 1e-12)  # a zero vector has no direction, nor a slope


def sizes_of(size: sizes.Encoder) -> tuple[int, int, int, int]:
  """Width, depth, hidden width of the MLPs and heads of an encoder."""
  own = (size.width, size.depth, size.mlp_dim, size.num_heads)
  return vit.VARIANTS.get(size.variant, own)
