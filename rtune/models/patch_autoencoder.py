"""Variational autoencoders of patches, one for each channel, and a map from noisy to clean latents.

The structure is that of github.com/yunhaoyang234/RSE-RL (2111.07499): an encoder that gives a
normal distribution, a decoder, and a transform of three layers as wide as the latent. Here they are
dense, and the transform adds to its input; at first it changes nothing.

Dimension key:
  N: patches, any leading dimensions
  C: channels
  D: pixels of a patch
  L: numbers of a latent
  G: centers of groups
  M: numbers that multiply the units that the transform's layers are given: 3 * L
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LAYERS = 3  # of the transform
_LEAST_LOG_SCALE, _MOST_LOG_SCALE = -7.0, 3.0


class Latent(NamedTuple):
  """A normal distribution over latents.

  Attributes:
    mean: [..., C, L].
    log_scale: logarithm of the standard deviation.
  """

  mean: Float[Array, "*n c l"]
  log_scale: Float[Array, "*n c l"]


class PatchAutoencoder(NamedTuple):
  """Pure functions of parameters, which are nested dicts.

  Attributes:
    init: key -> parameters, float32.
    encode: (parameters, patches [..., C, D] in [0, 1]) -> `Latent`.
    transform: (parameters, latents [..., C, L], multipliers [..., C, M] or None) -> latents of
      clean patches. With groups it sees the nearest center of clean latents beside each latent.
    decode: (parameters, latents) -> patches.
    nearest: (parameters, latents) -> the nearest centers [..., C, L]; None without groups.
    latent: L.
  """

  init: Callable[..., dict[str, Any]]
  encode: Callable[..., Latent]
  transform: Callable[..., Float[Array, "*n c l"]]
  decode: Callable[..., Float[Array, "*n c d"]]
  nearest: Callable[..., Float[Array, "*n c l"]] | None
  latent: int


def patch_autoencoder(
  channels: int, pixels: int, *, latent: int = 96, width: int = 256, groups: int = 0
) -> PatchAutoencoder:
  """Autoencoders and transforms of all channels, each with parameters of its own.

  Args:
    pixels: of a patch.
    latent: numbers of a latent.
    width: of the hidden layers of encoder and decoder.
    groups: centers of clean latents, learned; 0: there are none.
  """
  over_channels = nn.vmap(
    OneChannel,
    variable_axes={"params": 0},
    split_rngs={"params": True},
    in_axes=-2,
    out_axes=-2,
    axis_size=channels,
    methods=("everything", "encode", "transform", "decode", "nearest"),
  )
  module = over_channels(pixels, latent, width, groups)

  def init(key: Array) -> dict[str, Any]:
    blank = jnp.zeros((1, channels, pixels))
    return module.init(key, blank, method="everything")["params"]

  def method(name: str) -> Callable[..., Any]:
    def call(params, *given):
      return module.apply({"params": params}, *given, method=name)

    return call

  def encode(params: dict[str, Any], patches: Float[Array, "*n c d"]) -> Latent:
    return Latent(*method("encode")(params, patches))

  def transform(params: dict[str, Any], latents, multipliers=None) -> Float[Array, "*n c l"]:
    if multipliers is None:
      return method("transform")(params, latents)
    return method("transform")(params, latents, multipliers)

  nearest = method("nearest") if groups else None
  return PatchAutoencoder(init, encode, transform, method("decode"), nearest, latent)


class OneChannel(nn.Module):
  """The autoencoder of one channel; patches [..., D]."""

  pixels: int
  latent: int
  width: int
  groups: int

  def setup(self):
    he, zeros = nn.initializers.he_normal(), nn.initializers.zeros
    self.encoder_hidden = nn.Dense(self.width, kernel_init=he)
    self.encoder_mean = nn.Dense(self.latent)
    self.encoder_log_scale = nn.Dense(
      self.latent, kernel_init=zeros, bias_init=nn.initializers.constant(-2.0)
    )
    self.transform_layers = [
      nn.Dense(self.latent, kernel_init=zeros if number == LAYERS - 1 else he)
      for number in range(LAYERS)
    ]
    self.decoder_hidden = nn.Dense(self.width, kernel_init=he)
    self.decoder_out = nn.Dense(self.pixels)
    if self.groups:
      shape = (self.groups, self.latent)
      self.centers = self.param("centers", nn.initializers.normal(0.5), shape)
      self.toward = nn.Dense(self.latent, use_bias=False, kernel_init=zeros)

  def everything(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """All layers once, so that all have parameters."""
    mean, _ = self.encode(x)
    return self.decode(self.transform(mean))

  def encode(self, x: Float[Array, "*n d"]) -> tuple[Array, Array]:
    hidden = nn.relu(self.encoder_hidden(x - 0.5))
    log_scale = jnp.clip(self.encoder_log_scale(hidden), _LEAST_LOG_SCALE, _MOST_LOG_SCALE)
    return self.encoder_mean(hidden), log_scale

  def transform(
    self, z: Float[Array, "*n l"], multipliers: Float[Array, "*n m"] | None = None
  ) -> Float[Array, "*n l"]:
    x = z
    parts = [None] * LAYERS if multipliers is None else jnp.split(multipliers, LAYERS, axis=-1)
    for number, (layer, part) in enumerate(zip(self.transform_layers, parts, strict=True)):
      x = layer(x if part is None else x * part)
      x = nn.relu(x) if number < LAYERS - 1 else x
    return z + x + (self.toward(self.nearest(z)) if self.groups else 0.0)

  def decode(self, z: Float[Array, "*n l"]) -> Float[Array, "*n d"]:
    return self.decoder_out(nn.relu(self.decoder_hidden(z))) + 0.5

  def nearest(self, z: Float[Array, "*n l"]) -> Float[Array, "*n l"]:
    """The nearest of the centers, by Euclidean distance."""
    flat_NL = jax.lax.stop_gradient(z).reshape(-1, self.latent)
    squares_G = jnp.sum(self.centers**2, axis=-1)
    apart_NG = squares_G[None] - 2 * flat_NL @ self.centers.T
    return self.centers[jnp.argmin(apart_NG, axis=-1)].reshape(z.shape)
