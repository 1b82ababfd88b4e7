"""An image encoder and a token decoder as one model with one parameter tree.

Dimension key: that of vit.py and decoder.py.
"""

import flax.linen as nn
from jaxtyping import Array, Float, Int

from rtune.models import encoders, vit
from rtune.models.decoder import Decoder
from rtune.models.encoders import Features, Images
from rtune.models.sizes import Model


class EncoderDecoder(nn.Module):
  """Parameters: {"encoder": a ViT or a ConvEncoder, "decoder": a Decoder}."""

  encoder: encoders.Net
  decoder: Decoder

  def encode(self, given: Images | Features, deterministic: bool = True) -> Float[Array, "b n d"]:
    """8-bit images, or what `features` has made of them, -> memory tokens."""
    return encoders.encode(self.encoder, given, deterministic)

  def features(self, image_BIIC: Images) -> Features:
    """What a backbone says of 8-bit images."""
    return encoders.features(self.encoder, image_BIIC)

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


def build(model: Model, vocab_size: int, max_length: int) -> EncoderDecoder:
  """The model that a config describes, for a task's vocabulary and longest sequence."""
  encoder = encoders.build(model.encoder, model.dtype, model.remat, model.scan_layers)
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
