"""All passes of a recursive restorer, and what its agent saw in each: what is done is given.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  N: B * S
  H, W: height and width in pixels
  C: channels
  K: passes
  R, Q: rows and columns of patches
  T: decisions: K * R * Q, pass by pass
  A: numbers that are chosen for a patch
  F: features that the agent sees of a patch
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models.patch_autoencoder import PatchAutoencoder
from rtune.policies import patch_passes
from rtune.policies.policy import Actions, Params, Sampled

# (number of a pass, what is seen) -> choices and their log-probabilities.
Choose = Callable[[int, Float[Array, "n r q f"]], tuple[Array, Array]]


class Way(NamedTuple):
  """How pictures are restored: by which autoencoder, in what passes, and how many."""

  model: PatchAutoencoder
  setting: patch_passes.Setting
  passes: int


def rollout(
  way: Way, choose: Choose, params: Params, image: Float[Array, "b h w c"], samples: int
) -> Sampled:
  """All passes: the only thing that is chosen is what is done to the patches.

  Args:
    choose: (number of the pass, states [N, R, Q, F]) -> choices [N, R, Q, A] and their
      log-probabilities [N, R, Q], where N are the samples of all pictures.
  """
  batch, *size = image.shape[:3]
  frozen = jax.lax.stop_gradient(params["autoencoder"])
  grid = patch_passes.grid_of(way.setting, image)
  done = jnp.zeros((batch * samples, grid.rows, grid.columns), bool)
  made, choices, log_probs, numbers, latents = [], [], [], [], []
  for number in range(way.passes):
    # Of all samples the first pass sees the same picture.
    seen = patch_passes.see(way.setting, way.model, frozen, image, number)
    if not number:
      seen = jax.tree.map(lambda x: jnp.repeat(x, samples, axis=0), seen)
    chosen, log_prob = choose(number, seen.state)
    log_probs.append(jnp.where(done, 0.0, log_prob))
    given = seen, chosen, done, (size[0], size[1])
    found = patch_passes.go(way.setting, way.model, frozen, *given)
    image, done = found.image, found.done
    latents.append(seen.latents)
    made.append(image)
    choices.append(chosen)
    numbers.append(found.numbers)

  def joined(values):
    stacked = jnp.stack(values, axis=1)
    return stacked.reshape(batch, samples, *stacked.shape[1:])

  passes = joined(made)
  actions = {
    **{"image": passes[:, :, -1], "passes": passes},
    **{"choices": joined(choices), "numbers": joined(numbers)},
  }
  if way.model.nearest:
    patches = patch_passes.patches_of(way.setting, image)
    latents.append(way.model.encode(frozen, patches).mean)
    apart = [patch_passes.distance(way.model, frozen, latent) for latent in latents]
    actions["distance"] = joined(apart)
  return Sampled(actions, joined(log_probs).reshape(batch, samples, -1))


def states(
  way: Way, params: Params, image: Float[Array, "b h w c"], actions: Actions
) -> tuple[Float[Array, "b s t f"], Float[Array, "b s t"]]:
  """What the agent saw before each decision [B, S, T, F], and the mask of those that counted."""
  passes, choices = actions["passes"], actions["choices"]
  batch, samples, number = passes.shape[:3]
  frozen = jax.lax.stop_gradient(params["autoencoder"])
  found = []
  for place in range(number):
    given = passes[:, :, place - 1].reshape(-1, *passes.shape[3:]) if place else image
    state = patch_passes.see(way.setting, way.model, frozen, given, place).state
    found.append(state if place else jnp.repeat(state, samples, axis=0))
  every = jnp.stack(found, axis=1).reshape(batch, samples, -1, found[0].shape[-1])
  done = patch_passes.done_before(way.setting, choices, passes.shape[-1])
  mask = 1.0 - done.reshape(batch, samples, -1).astype(every.dtype)
  return jax.lax.stop_gradient(every), mask


def choices_of(actions: Actions) -> Float[Array, "b s t a"]:
  """What was chosen, by decision."""
  choices = actions["choices"]
  return choices.reshape(*choices.shape[:2], -1, choices.shape[-1])
