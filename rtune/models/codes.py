"""The code model of dense labels, a VQ-VAE that sees the image on both sides (UViM, 2205.10337).

Labels, as patches, and the image -> L codes -> labels. Parameter names, layouts and numerics are
those of the published stage I, so its checkpoints load by name.

Dimension key:
  B: batch of images
  S: samples for each image
  I: image height and width in pixels
  N: patches, row by row
  P: pixels of a patch, row by row
  C: channels of one kind of label (its classes, or color)
  D: width
  L: codes of an image
  E: width of a codeword
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from rtune.errors import UsageError
from rtune.models import dictionary, vit
from rtune.models.sizes import CodeSizes

Labels = Mapping[str, Float[Array, "b n c p"]]


class Bottleneck(NamedTuple):
  """What a dictionary learns from: codes, and the vectors that they stand for. No gradient."""

  codes: Int[Array, "b l"]
  vectors: Float[Array, "b l e"]


class CodeModel(NamedTuple):
  """A code model: pure functions of variables {"params": ..., "state": of the dictionary}.

  Labels are {name: [B, N, C, P]} float, one-hot over C or values; images [B, I, I, 3] uint8.

  Attributes:
    init: key -> variables.
    encode: (variables, labels, images) -> codes [B, L] from 0 on.
    decode: (variables, codes [B, *S, L], images) -> {name: [B, *S, N, C, P]}: logits, or values.
      The image enters once, whatever S.
    train: (variables, labels, images, key) -> ({name: [B, N, C, P]}, Bottleneck), differentiable
      in variables["params"]; past the dictionary by the straight-through gradient.
    learn: (variables["state"], Bottleneck, key) -> (state, metrics), see `dictionary.learn`.
  """

  init: Callable[..., dict[str, Any]]
  encode: Callable[..., Int[Array, "b l"]]
  decode: Callable[..., dict[str, Array]]
  train: Callable[..., tuple[dict[str, Array], Bottleneck]]
  learn: Callable[..., tuple[dict[str, Array], dict[str, Array]]]


@functools.lru_cache
def code_model(
  settings: CodeSizes, image_size: int, channels: tuple[tuple[str, int], ...]
) -> CodeModel:
  """The code model of a task.

  Args:
    channels: the kinds of label with their number of channels, such as (("semantics", 134), ...).

  Raises:
    UsageError: the patches do not fill the image.
  """
  if image_size % settings.patch_size:
    raise UsageError(
      f"config.task.args.image_size={image_size} is not a multiple of "
      f"config.task.args.codes.patch_size={settings.patch_size}."
    )
  network = Network(settings, image_size // settings.patch_size, channels)

  def init(key):
    params_key, words_key = jax.random.split(key)
    patches = (1, network.side**2)
    labels = {k: jnp.zeros((*patches, c, settings.patch_size**2)) for k, c in channels}
    images = jnp.zeros((1, image_size, image_size, 3), jnp.uint8)
    return {
      "params": network.init(params_key, labels, images)["params"],
      "state": dictionary.init(words_key, settings.dict_size, settings.codeword_dim),
    }

  def apply(variables, *args, method: str):
    return network.apply({"params": variables["params"]}, *args, method=method)

  def encode(variables, labels, images):
    vectors_BLE = apply(variables, labels, images, method="encode")
    return dictionary.nearest(vectors_BLE, dictionary.codewords(variables["state"]))

  def decode(variables, codes, images):
    words = dictionary.codewords(variables["state"])[codes]
    return _decode(variables, words, images)

  def _decode(variables, words, images):
    samples = words.shape[1:-2]
    words_BSLE = words.reshape(words.shape[0], -1, *words.shape[-2:])
    context_BND = apply(variables, images, method="context")
    decoded = apply(variables, words_BSLE, context_BND, method="decode")
    return {k: v.reshape(v.shape[0], *samples, *v.shape[2:]) for k, v in decoded.items()}

  def train(variables, labels, images, key):
    vectors_BLE = apply(variables, labels, images, method="encode")
    words_KE = jax.lax.stop_gradient(dictionary.codewords(variables["state"]))
    found = Bottleneck(dictionary.nearest(vectors_BLE, words_KE), vectors_BLE)
    found = jax.lax.stop_gradient(found)
    # The value of the word, the gradient of the vector.
    words_BLE = vectors_BLE + jax.lax.stop_gradient(words_KE[found.codes] - vectors_BLE)
    if settings.code_dropout == "random":
      words_BLE = words_BLE * kept(key, *found.codes.shape)[..., None]
    return _decode(variables, words_BLE, images), found

  def learn(state, found, key):
    return dictionary.learn(
      state, found.codes, found.vectors, settings.momentum, settings.min_count, key
    )

  return CodeModel(init, encode, decode, train, learn)


def kept(key: Array, batch: int, length: int) -> Float[Array, "b l"]:
  """Code dropout: 1 for a random number of places of each image, evenly from 0 to all of them."""
  number_key, place_key = jax.random.split(key)
  number_B = jax.random.randint(number_key, (batch, 1), 0, length + 1)
  rank_BL = jnp.argsort(jax.random.uniform(place_key, (batch, length)), axis=-1)
  return (rank_BL < number_B).astype(jnp.float32)


class Network(nn.Module):
  """Both halves of a code model, without the dictionary."""

  settings: CodeSizes
  side: int  # patches of a row
  channels: tuple[tuple[str, int], ...]

  def setup(self):
    its, patches, init = self.settings, self.side**2, nn.initializers.xavier_uniform()
    dtype = self.dtype = vit.compute_dtype(its.dtype)
    self.embeddings = {
      name: nn.DenseGeneral(its.width, axis=(-2, -1), dtype=dtype, name=f"embedding_{name}")
      for name, _ in self.channels
    }
    self.contexts = [self._context(f"ctx_{half}") for half in ("enc", "dec")]
    position = ("pos_embedding_encoder", "pos_embedding_decoder")
    self.positions = [self.param(n, vit.sincos_2d, (1, patches, its.width)) for n in position]
    sizes = (its.num_heads, its.mlp_dim, dtype, 0.0, 0.0, its.remat)
    self.encoder = vit.Stack(its.encoder_depth, *sizes)
    self.decoder = vit.Stack(its.decoder_depth, *sizes)
    if not its.resize:
      self.down = self.param("bottleneck_downsample", init, (patches, its.code_length))
      self.up = self.param("bottleneck_upsample", init, (its.code_length, patches))
    self.encoder_head = nn.Dense(its.codeword_dim, dtype=dtype)
    self.decoder_stem = nn.Dense(its.width, dtype=dtype)
    # Zeros, so that training starts from even predictions.
    self.heads = {
      name: nn.DenseGeneral(
        (count, its.patch_size**2),
        dtype=dtype,
        kernel_init=nn.initializers.zeros,
        name=f"head_{name}",
      )
      for name, count in self.channels
    }

  def _context(self, name: str) -> nn.Module:
    its, patch = self.settings, (self.settings.patch_size,) * 2
    if its.conv_context:
      return vit.ConvStem(its.patch_size, its.width, self.dtype, name=f"{name}_stem")
    return nn.Conv(its.width, patch, patch, "VALID", dtype=self.dtype, name=f"{name}_embedding")

  def _see(self, image_BIIC, half: int):
    image = (image_BIIC.astype(jnp.float32) / 127.5 - 1.0).astype(self.dtype)
    return self.contexts[half](image).reshape(image.shape[0], self.side**2, -1)

  def encode(self, labels: Labels, image_BIIC: UInt8[Array, "b i i 3"]) -> Float[Array, "b l e"]:
    """Vectors to be quantized: each of mean 0 and variance 1."""
    x_BND = sum(embed(labels[name]) for name, embed in self.embeddings.items())
    x_BND = x_BND + self._see(image_BIIC, 0) + self.positions[0].astype(self.dtype)
    x_BND = self.encoder(x_BND, True)
    if self.settings.resize:
      x_BLD = _resize(x_BND, self.settings.code_length)
    else:
      x_BLD = jnp.einsum("bnd,nl->bld", x_BND, self.down.astype(self.dtype))
    vectors_BLE = self.encoder_head(x_BLD.astype(self.dtype))
    return jax.nn.standardize(vectors_BLE.astype(jnp.float32), axis=-1)

  def context(self, image_BIIC: UInt8[Array, "b i i 3"]) -> Float[Array, "b n d"]:
    """What the decoder sees of the images, once for all their samples."""
    return self._see(image_BIIC, 1) + self.positions[1].astype(self.dtype)

  def decode(
    self, words_BSLE: Float[Array, "b s l e"], context_BND: Float[Array, "b n d"]
  ) -> dict[str, Float[Array, "b s n c p"]]:
    """Words at each place -> logits or values of every pixel."""
    batch, samples, length, _ = words_BSLE.shape
    x_RLD = self.decoder_stem(words_BSLE.astype(self.dtype)).reshape(batch * samples, length, -1)
    if self.settings.resize:
      x_RND = _resize(x_RLD, self.side**2)
    else:
      x_RND = jnp.einsum("rld,ln->rnd", x_RLD, self.up.astype(self.dtype))
    x_BSND = x_RND.reshape(batch, samples, *x_RND.shape[1:])
    x_BSND = x_BSND + context_BND[:, None].astype(x_BSND.dtype)
    x_RND = self.decoder(x_BSND.reshape(x_RND.shape).astype(self.dtype), True)
    heads = {name: head(x_RND).astype(jnp.float32) for name, head in self.heads.items()}
    return {name: x.reshape(batch, samples, *x.shape[1:]) for name, x in heads.items()}

  def __call__(self, labels, image_BIIC):
    # As many codewords as the encoder gives, to make the parameters of both halves.
    words_BSLE = self.encode(labels, image_BIIC)[:, None]
    return self.decode(words_BSLE, self.context(image_BIIC))


def _resize(x_BND, places: int):
  """Bilinear, from one square grid of places to another."""
  batch, old, width = x_BND.shape
  old, new = math.isqrt(old), math.isqrt(places)
  grid = x_BND.astype(jnp.float32).reshape(batch, old, old, width)
  return jax.image.resize(grid, (batch, new, new, width), "linear").reshape(batch, places, width)
