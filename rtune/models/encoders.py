"""Image encoders: a ViT, or a small one above a convolutional backbone.

Dimension key: that of vit.py and conv_encoder.py.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from rtune.errors import UsageError
from rtune.models import vit
from rtune.models.conv_encoder import ConvEncoder
from rtune.models.sizes import Encoder

Net = vit.ViT | ConvEncoder
Images = UInt8[Array, "b i i c"]
Features = Float[Array, "b n f"]  # of a backbone, kept


def encode(
  encoder: Net, given: Images | Features, deterministic: bool = True
) -> Float[Array, "b n d"]:
  """8-bit images, or what `features` has made of them, -> tokens."""
  if given.ndim == 3:
    return encoder.of_features(given, deterministic)
  return encoder(_signed(given), deterministic)


def features(encoder: Net, image_BIIC: Images) -> Features:
  """What a backbone says of 8-bit images."""
  return encoder.features(_signed(image_BIIC))


def _signed(image_BIIC: Images) -> Float[Array, "b i i c"]:
  return image_BIIC.astype(jnp.float32) / 127.5 - 1.0


def check_image_size(encoder: Net, image_size: int) -> None:
  """Raises UsageError where patches do not fill the image."""
  if image_size % encoder.patch_size:
    raise UsageError(
      f"config.task.args.image_size={image_size} is not a multiple of "
      f"config.model.encoder.patch_size={encoder.patch_size}."
    )


def build(size: Encoder, dtype: str, remat: bool = False, scan: bool = False) -> Net:
  """The encoder of these sizes; for the others see `rtune.models.sizes.Model`."""
  width, depth, mlp_dim, heads = vit.VARIANTS.get(
    size.variant, (size.width, size.depth, size.mlp_dim, size.num_heads)
  )
  shared = {
    "patch_size": size.patch_size,
    "width": width,
    "depth": depth,
    "num_heads": heads,
    "mlp_dim": mlp_dim,
    "dtype": vit.compute_dtype(dtype),
    "dropout": size.dropout,
    "drop_path": size.drop_path,
    "remat": remat,
    "scan": scan,
  }
  if size.backbone:
    return ConvEncoder(net=size.backbone, **shared)
  of_vit = {name: getattr(size, name) for name in ("conv_stem", "layer_scale", "registers", "gelu")}
  return vit.ViT(**shared, **of_vit)
