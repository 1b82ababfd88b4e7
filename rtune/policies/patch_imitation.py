"""What a recursive restorer imitates: the log-likelihood of clean patches, given the noisy ones.

Of each patch there are, as in 2111.07499: the evidence lower bound of the clean patch in the
autoencoder (reconstruction and KL), the likelihood of the clean patch as it is decoded from the
transformed latent of the noisy one, and the distance of this latent from the clean one, which
teaches the transform alone. Pixels and latents are normal around what is imitated.

Dimension key:
  B: batch of pictures
  S: answers of each picture
  N: B * S
  H, W: height and width in pixels
  C: channels
  R, Q: rows and columns of patches
  D: pixels of a patch
  L: numbers of a latent
  T: patches of all passes
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models.patch_autoencoder import Latent, PatchAutoencoder
from rtune.policies import patch_passes
from rtune.policies.policy import Scored

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Setting(NamedTuple):
  """How pictures are imitated.

  Attributes:
    patches: how they are cut.
    spread: standard deviation of pixels.
    passes: how often a picture is restored; later ones see what the model has made.
  """

  patches: patch_passes.Setting
  spread: float
  passes: int


def score(
  setting: Setting,
  model: PatchAutoencoder,
  params: Any,
  image: Float[Array, "b h w c"],
  clean: Float[Array, "b s h w c"],
  key: Array | None,
) -> Scored:
  """Of clean pictures, patch by patch.

  Args:
    key: of the latents that are drawn; None: their means are taken.
  """
  batch, samples = clean.shape[:2]
  size = image.shape[1:3]
  image = jnp.repeat(image, samples, axis=0)
  wanted = patch_passes.patches_of(setting.patches, clean.reshape(-1, *clean.shape[2:]))
  keys = [None] * (setting.passes + 1)
  if key is not None:
    keys = jax.random.split(key, setting.passes + 1)
  own = model.encode(params, wanted)
  shared = {
    "reconstruction": _pixels(setting, model.decode(params, _drawn(own, keys[0])), wanted),
    "latent_kl": -_kl(own),
  }
  if model.nearest:
    fixed = jax.lax.stop_gradient(own.mean)
    shared["grouping"] = _distance(model.nearest(params, fixed), fixed)
  terms: dict[str, list[Array]] = {}
  for number in range(setting.passes):
    patches = patch_passes.patches_of(setting.patches, image)
    latent = model.encode(params, patches)
    restored = model.decode(params, model.transform(params, _drawn(latent, keys[number + 1])))
    toward = model.transform(params, jax.lax.stop_gradient(latent.mean))
    found = {
      **shared,
      "restoration": _pixels(setting, restored, wanted),
      "matching": _distance(toward, jax.lax.stop_gradient(own.mean)),
    }
    for name, value in found.items():
      terms.setdefault(name, []).append(value.reshape(batch, samples, -1))
    if number < setting.passes - 1:
      made = model.decode(params, model.transform(params, latent.mean))
      image = jax.lax.stop_gradient(patch_passes.picture_of(setting.patches, made, *size))
  every = {name: jnp.concatenate(values, axis=-1) for name, values in terms.items()}
  log_prob = sum(every.values())
  pixels = float(math.prod(wanted.shape[3:]))
  return Scored(
    log_prob, jnp.ones_like(log_prob), {"terms": every, "pixels": jnp.full_like(log_prob, pixels)}
  )


def entropy(setting: Setting, scored: Scored) -> Float[Array, "b s t"]:
  """Of the pixels of a restored patch, which is the same for all."""
  return scored.outputs["pixels"] * (0.5 + _HALF_LOG_2PI + math.log(setting.spread))


def divergence(scored: Scored, reference: Scored) -> Float[Array, "b s t"]:
  """An estimate: how much less likely the reference takes the picture to be."""
  return scored.log_prob - reference.log_prob


def _drawn(at: Latent, key: Array | None) -> Array:
  if key is None:
    return at.mean
  return at.mean + jnp.exp(at.log_scale) * jax.random.normal(key, at.mean.shape)


def _pixels(
  setting: Setting, made: Float[Array, "n r q c d"], wanted: Float[Array, "n r q c d"]
) -> Float[Array, "n r q"]:
  squares = 0.5 * ((made - wanted) / setting.spread) ** 2
  return jnp.sum(-squares - math.log(setting.spread) - _HALF_LOG_2PI, axis=(-1, -2))


def _kl(at: Latent) -> Float[Array, "n r q"]:
  """KL(latent || standard normal)."""
  parts = jnp.exp(2 * at.log_scale) + at.mean**2 - 1 - 2 * at.log_scale
  return 0.5 * jnp.sum(parts, axis=(-1, -2))


def _distance(one: Float[Array, "n r q c l"], other: Float[Array, "n r q c l"]):
  """Minus half the squared distance, a normal's logarithm without its constant."""
  return -0.5 * jnp.sum((one - other) ** 2, axis=(-1, -2))
