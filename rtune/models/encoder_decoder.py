"""An image encoder and a token decoder as one model with one parameter tree.

Dimension key: that of vit.py and decoder.py.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from rtune.errors import UsageError
from rtune.models import vit
from rtune.models.conv_encoder import ConvEncoder
from rtune.models.decoder import Decoder
from rtune.models.sizes import Model

Images = UInt8[Array, "b i i c"]
Features = Float[Array, "b n f"]  # of a backbone, kept


class EncoderDecoder(nn.Module):
  """Parameters: {"encoder": a ViT or a ConvEncoder, "decoder": a Decoder}."""

  encoder: vit.ViT | ConvEncoder
  decoder: Decoder

  def encode(self, given: Images | Features, deterministic: bool = True) -> Float[Array, "b n d"]:
    """8-bit images, or what `features` has made of them, -> memory tokens."""
    if given.ndim == 3:
      return self.encoder.of_features(given, deterministic)
    return self.encoder(_signed(given), deterministic)

  def features(self, image_BIIC: Images) -> Features:
    """What a backbone says of 8-bit images."""
    return self.encoder.features(_signed(image_BIIC))

  def decode(self, memory_BND, tokens_BSL, deterministic: bool = True):
    return self.decoder(memory_BND, tokens_BSL, deterministic)

  def of_memory(self, memory_BND):
    return self.decoder.of_memory(memory_BND)

  def step(self, token_BS, position, memory, caches):
    return self.decoder.step(token_BS, position, memory, caches)

  def __call__(
    self,
    given: Images | Features,
    tokens_BSL: Int[Array, "b s l"],
    deterministic: bool = True,
  ) -> Float[Array, "b s l v"]:
    return self.decode(self.encode(given, deterministic), tokens_BSL, deterministic)


def _signed(image_BIIC: Images) -> Float[Array, "b i i c"]:
  return image_BIIC.astype(jnp.float32) / 127.5 - 1.0


def check_image_size(model: EncoderDecoder, image_size: int) -> None:
  """Raises UsageError where patches do not fill the image."""
  if image_size % model.encoder.patch_size:
    raise UsageError(
      f"config.task.args.image_size={image_size} is not a multiple of "
      f"config.model.encoder.patch_size={model.encoder.patch_size}."
    )


def build(model: Model, vocab_size: int, max_length: int) -> EncoderDecoder:
  """The model that a config describes, for a task's vocabulary and longest sequence."""
  encoder = _encoder(model)
  decoder = Decoder(
    vocab_size=vocab_size,
    max_length=max_length,
    width=model.decoder.width,
    depth=model.decoder.depth,
    num_heads=model.decoder.num_heads,
    mlp_dim=model.decoder.mlp_dim,
    dtype=vit.compute_dtype(model.dtype),
    dropout=model.decoder.dropout,
    drop_path=model.decoder.drop_path,
    remat=model.remat,
    scan=model.scan_layers,
  )
  return EncoderDecoder(encoder, decoder)


def _encoder(model: Model) -> vit.ViT | ConvEncoder:
  size = model.encoder
  width, depth, mlp_dim, heads = vit.VARIANTS.get(
    size.variant, (size.width, size.depth, size.mlp_dim, size.num_heads)
  )
  shared = {
    "patch_size": size.patch_size,
    "width": width,
    "depth": depth,
    "num_heads": heads,
    "mlp_dim": mlp_dim,
    "dtype": vit.compute_dtype(model.dtype),
    "dropout": size.dropout,
    "drop_path": size.drop_path,
    "remat": model.remat,
    "scan": model.scan_layers,
  }
  if size.backbone:
    return ConvEncoder(net=size.backbone, **shared)
  of_vit = {name: getattr(size, name) for name in ("conv_stem", "layer_scale", "registers", "gelu")}
  return vit.ViT(**shared, **of_vit)
