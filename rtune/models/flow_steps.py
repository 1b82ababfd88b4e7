"""The steps of a conditional normalizing flow: what SRFlow (srflow.py) is made of.

All of them take S samples of each picture at once. What a step knows of the low resolution is
computed once for all samples of it: the first convolution of a coupling is linear, so what it makes
of the features is added to what it makes of the sample.

`mixed` and `coupled` go from pictures to latents, `unmixed` and `uncoupled` back. Actnorm has no
statistics of a batch: it begins as the identity.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  N: steps of a level, one after the other
  H, W: places of a level
  C: channels of a level
  F: features of the low resolution
  K: twice the channels that are scaled and shifted
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_OPEN = 2.0  # scales begin at sigmoid(2), as in Glow
# And are never below this. With SRFlow's 1e-4 the inverse of a trained flow blew up: of 100 samples
# 3 left the range of pictures, 2 by a factor of 100 to 1e10, and their gradients were not finite.
_LEAST = 0.1


class Mix(NamedTuple):
  """Actnorm and the invertible 1 x 1 convolution of N steps.

  Attributes:
    log_scale, bias: [N, C]; (x + bias) exp(log_scale).
    kernel: [N, C, C], right of a row of channels; at first a rotation.
  """

  log_scale: Float[Array, "*n c"]
  bias: Float[Array, "*n c"]
  kernel: Float[Array, "*n c c"]


class Net(nn.Module):
  """Scale and shift from features, and from half of a sample where it is given."""

  hidden: int
  outputs: int

  @nn.compact
  def __call__(
    self, features: Float[Array, "b h w f"], half: Float[Array, "b s h w c"] | None = None
  ) -> Float[Array, "b s2 h w k"]:
    init = nn.initializers.normal(0.05)
    x = nn.Conv(self.hidden, (3, 3), kernel_init=init, name="features")(features)[:, None]
    if half is not None:
      x = x + nn.Conv(self.hidden, (3, 3), use_bias=False, kernel_init=init, name="half")(half)
    x = nn.Conv(self.hidden, (1, 1), kernel_init=init, name="middle")(nn.relu(x))
    last = nn.Conv(self.outputs, (3, 3), kernel_init=nn.initializers.zeros, name="last")
    return last(nn.relu(x))


class Prior(nn.Module):
  """Mean and log-scale of the channels that leave, from those that stay."""

  outputs: int

  @nn.compact
  def __call__(self, x: Float[Array, "b s h w c"]) -> Float[Array, "b s h w k"]:
    return nn.Conv(self.outputs, (3, 3), kernel_init=nn.initializers.zeros, name="last")(x)


def init_mix(key: Array, steps: int, channels: int) -> dict[str, Array]:
  """Of so many steps."""
  rotation = nn.initializers.orthogonal()
  kernel = jax.vmap(lambda key: rotation(key, (channels, channels)))(jax.random.split(key, steps))
  zeros = jnp.zeros((steps, channels))
  return {"log_scale": zeros, "bias": jnp.zeros_like(zeros), "kernel": kernel}


def init_couplings(
  key: Array, steps: int, channels: int, features: int, hidden: int
) -> dict[str, Any]:
  """Injector and coupling of so many steps, leaves [N, ...]."""
  seen = jnp.zeros((1, 1, 1, features))
  half = jnp.zeros((1, 1, 1, 1, channels // 2))
  injector, coupling = _nets(channels, hidden)

  def one(key):
    first, second = jax.random.split(key)
    return {
      "injector": injector.init(first, seen)["params"],
      "coupling": coupling.init(second, seen, half)["params"],
    }

  return jax.vmap(one)(jax.random.split(key, steps))


def mix_log_det(params: dict[str, Array]) -> Float[Array, ""]:
  """What all steps' mixing adds to the log-determinant of every place."""
  return jnp.sum(params["log_scale"]) + jnp.sum(jnp.linalg.slogdet(params["kernel"])[1])


def mixed(mix: Mix, x: Float[Array, "b s h w c"]) -> Float[Array, "b s h w c"]:
  """One step's actnorm and 1 x 1 convolution."""
  x = (x + mix.bias[None, None, None, None]) * jnp.exp(mix.log_scale)[None, None, None, None]
  return jnp.matmul(x, mix.kernel, precision="highest")  # of halves there would be no inverse


def unmixed(mix: Mix, x: Float[Array, "b s h w c"]) -> Float[Array, "b s h w c"]:
  """The inverse of `mixed`, for a mix whose kernel was inverted already."""
  x = jnp.matmul(x, mix.kernel, precision="highest")
  return x * jnp.exp(-mix.log_scale)[None, None, None, None] - mix.bias[None, None, None, None]


def coupled(
  params: dict[str, Any], features: Float[Array, "b h w f"], x: Float[Array, "b s h w c"]
) -> tuple[Float[Array, "b s h w c"], Float[Array, "b s h w"]]:
  """Affine injector and conditional affine coupling: the sample, and the log-determinant."""
  injector, coupling = _nets(x.shape[-1], _hidden(params))
  scale, shift = _affine(injector.apply({"params": params["injector"]}, features))
  x = (x + shift) * scale
  kept, changed = _halves(x)
  own, own_shift = _affine(coupling.apply({"params": params["coupling"]}, features, kept))
  changed = (changed + own_shift) * own
  log_det = jnp.sum(jnp.log(scale), axis=-1) + jnp.sum(jnp.log(own), axis=-1)
  return jnp.concatenate([kept, changed], axis=-1), log_det


def uncoupled(
  params: dict[str, Any], features: Float[Array, "b h w f"], x: Float[Array, "b s h w c"]
) -> tuple[Float[Array, "b s h w c"], Float[Array, "b s h w"]]:
  """The inverse of `coupled`, with the log-determinant of `coupled`."""
  injector, coupling = _nets(x.shape[-1], _hidden(params))
  kept, changed = _halves(x)
  own, own_shift = _affine(coupling.apply({"params": params["coupling"]}, features, kept))
  x = jnp.concatenate([kept, changed / own - own_shift], axis=-1)
  scale, shift = _affine(injector.apply({"params": params["injector"]}, features))
  log_det = jnp.sum(jnp.log(scale), axis=-1) + jnp.sum(jnp.log(own), axis=-1)
  return x / scale - shift, log_det


def squeezed(x: Float[Array, "b s h w c"]) -> Float[Array, "b s h2 w2 c2"]:
  """2 x 2 pixels become one with four times the channels."""
  batch, samples, height, width, channels = x.shape
  x = x.reshape(batch, samples, height // 2, 2, width // 2, 2, channels)
  x = x.transpose(0, 1, 2, 4, 6, 3, 5)
  return x.reshape(batch, samples, height // 2, width // 2, 4 * channels)


def unsqueezed(x: Float[Array, "b s h w c"]) -> Float[Array, "b s h2 w2 c2"]:
  """The inverse of `squeezed`."""
  batch, samples, height, width, channels = x.shape
  x = x.reshape(batch, samples, height, width, channels // 4, 2, 2)
  x = x.transpose(0, 1, 2, 5, 3, 6, 4)
  return x.reshape(batch, samples, 2 * height, 2 * width, channels // 4)


def _nets(channels: int, hidden: int) -> tuple[Net, Net]:
  return Net(hidden, 2 * channels), Net(hidden, 2 * (channels - channels // 2))


def _hidden(params: dict[str, Any]) -> int:
  return params["injector"]["middle"]["bias"].shape[-1]


def _halves(x: Float[Array, "b s h w c"]) -> tuple[Array, Array]:
  half = x.shape[-1] // 2
  return x[..., :half], x[..., half:]


def _affine(said: Float[Array, "b s h w k"]) -> tuple[Array, Array]:
  """Scale and shift."""
  raw, shift = jnp.split(said, 2, axis=-1)
  return _LEAST + (1 - _LEAST) * nn.sigmoid(raw + _OPEN), shift
