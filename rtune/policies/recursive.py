"""A restorer of patches that is applied again and again, and an agent that says how.

After Recursive Self-Enhancing RL (RSE-RL, 2111.07499). What is imitated are clean pictures: by
variational autoencoders of patches and a transform from noisy to clean latents. What is sampled are
K passes: in each the agent chooses a few numbers for each patch, and the picture that comes out is
what the next pass sees. It needs no reference. Tuning changes the agent alone, which at first does
what the autoencoder does by itself.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  H, W: height and width in pixels
  C: channels
  K: passes
  R, Q: rows and columns of patches; P: all of them
  T: decisions: K * P, pass by pass; of a picture that is imitated, patches
  A: numbers that are chosen for a patch
  F: features that the agent sees of a patch
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.errors import UsageError
from rtune.models.mlp import Mlp, mlp
from rtune.models.patch_autoencoder import patch_autoencoder
from rtune.policies import heads, patch_imitation, patch_passes, patch_rollout, pictures
from rtune.policies.networks import PATH
from rtune.policies.patch_passes import Setting
from rtune.policies.patch_rollout import Way, choices_of
from rtune.policies.policy import Control, Policy, Sampled, Scored
from rtune.policies.space import Image
from rtune.policies.squashed import tanh_normal

ACTIONS = ("step_and_mix", "multipliers")
_NOISE_RANGE = (-4.0, 2.0)  # how far the logarithm of a learned noise goes from its beginning


class _Parts(NamedTuple):
  """What the policy's functions share; see `recursive`."""

  way: Way
  actor: Mlp
  numbers: int
  features: int
  noise: float
  learn_noise: bool
  antithetic: bool
  imitation: patch_imitation.Setting


def recursive(
  space: Image,
  *,
  passes: int = 4,
  side: int = 16,
  overlap: int = 4,
  latent: int = 96,
  width: int = 256,
  groups: int = 0,
  agent_width: int = 64,
  acts_on: str = "step_and_mix",
  reach: float = 1.5,
  done_at: float = 0.9,
  noise: float = 0.2,
  learn_noise: bool = False,
  antithetic: bool = True,
  spread: float = 0.1,
  imitated_passes: int = 1,
) -> Policy:
  """The policy of autoencoders and an agent.

  Its inputs are {"image": float32 [B, H, W, C]}, of any size. Actions of samples are {"image": the
  last picture, "passes": that after each pass [B, S, K, H, W, C], "choices": before they are
  squashed [B, S, K, R, Q, A], "numbers": what was done to each patch, and with groups "distance":
  of latents from clean ones, before and after each pass}; a picture by itself is imitated.

  Args:
    passes: how often the picture is restored; one run's weights serve for any number.
    side: of a patch in pixels.
    overlap: pixels that neighboring patches share, at most half a side.
    latent: numbers of a latent, of each channel.
    width: of the autoencoders' hidden layers.
    groups: learned centers of clean latents; the transform sees the nearest one. 0: none.
    agent_width: of the agent's two hidden layers.
    acts_on: "step_and_mix": how far a latent goes, and how much of the patch stays as it was; or
      "multipliers": of the weights of the transform, as published.
    reach: how far numbers go: of the step around 1 and the mix around 0, or of multipliers around 1
      (published: 0.001).
    done_at: a patch is done when its mix is above this: it stays as it was, from this pass on. As
      much as `reach`, or more: none ever is.
    noise: standard deviation of choices before they are squashed.
    learn_noise: the agent says it of each patch, and begins there.
    antithetic: samples come in mirrored pairs, see gains.py.
    spread: standard deviation of pixels around what is imitated; it weighs them against latents.
    imitated_passes: imitation restores as often, with its own pictures as the next inputs: training
      pairs that are renewed with what the model has made.

  Raises:
    UsageError: a setting that is out of its range.
  """
  pictures.check_least(1, passes=passes, side=side, latent=latent, width=width)
  pictures.check_least(1, agent_width=agent_width, imitated_passes=imitated_passes)
  pictures.check_least(0, overlap=overlap, groups=groups)
  pictures.check_above(0, noise=noise, spread=spread, reach=reach, done_at=done_at)
  pictures.check_choice(ACTIONS, acts_on=acts_on)
  if 2 * overlap > side:
    raise UsageError(
      f"{PATH}.overlap is {overlap}; it must be at most half of {PATH}.side, {side}."
    )
  setting = Setting(side, overlap, float(reach), acts_on == "multipliers", float(done_at))
  channels = space.channels
  model = patch_autoencoder(channels, side * side, latent=latent, width=width, groups=groups)
  numbers = patch_passes.numbers_of(setting, channels, latent)
  features = patch_passes.features_of(channels, latent)
  # Means and logarithms of deviations, whether these are read or not: weights serve for both.
  actor = mlp((agent_width, agent_width, 2 * numbers), zero=True)
  imitation = patch_imitation.Setting(setting, float(spread), imitated_passes)
  acting = float(noise), learn_noise, antithetic
  way = Way(model, setting, passes)
  return _policy(_Parts(way, actor, numbers, features, *acting, imitation))


def _policy(parts: _Parts) -> Policy:
  way = parts.way

  def init(key, inputs):
    first, second = jax.random.split(key)
    actor = parts.actor.init(second, parts.features)
    return {"autoencoder": way.model.init(first), "actor": actor}

  def act(params, state) -> heads.Normal:
    found = parts.actor.apply(params["actor"], state)
    mean, log_scale = found[..., : parts.numbers], math.log(parts.noise)
    if parts.learn_noise:
      log_scale = log_scale + jnp.clip(found[..., parts.numbers :], *_NOISE_RANGE)
    return heads.Normal(mean, jnp.exp(jnp.broadcast_to(log_scale, mean.shape)))

  def sample(params, inputs, key, num_samples: int) -> Sampled:
    grid = patch_passes.grid_of(way.setting, inputs["image"])
    shape = (len(inputs["image"]), way.passes, grid.patches, parts.numbers)
    noise = pictures.drawn(key, jnp.zeros(shape), num_samples, parts.antithetic)

    def choose(number, state):
      at = act(params, state)
      chosen = at.mean + at.scale * noise[:, :, number].reshape(at.mean.shape)
      return chosen, jnp.sum(tanh_normal.log_prob(at, chosen), axis=-1)

    return patch_rollout.rollout(way, choose, params, inputs["image"], num_samples)

  def score(params, inputs, actions, key=None) -> Scored:
    if not isinstance(actions, Mapping):
      given = way.model, params["autoencoder"], inputs["image"], actions, key
      return patch_imitation.score(parts.imitation, *given)
    states, mask = patch_rollout.states(way, params, inputs["image"], actions)
    at = act(params, states)
    log_prob = jnp.sum(tanh_normal.log_prob(at, choices_of(actions)), axis=-1) * mask
    return Scored(log_prob, mask, {"choices": at})

  def best(params, inputs, effort: int = 1):
    def choose(number, state):
      mean = act(params, state).mean
      return mean, jnp.zeros(mean.shape[:-1])

    found = patch_rollout.rollout(way, choose, params, inputs["image"], 1).actions
    return jax.tree.map(lambda x: x[:, 0], found)

  def play(params, inputs, choices):
    samples = choices.shape[1]
    choices = choices.reshape(-1, way.passes, choices.shape[2] // way.passes, parts.numbers)

    def choose(number, state):
      chosen = choices[:, number]
      places = (len(chosen), *state.shape[1:3])
      if chosen.shape[1] == 1:
        chosen = jnp.broadcast_to(chosen, (len(chosen), places[1] * places[2], parts.numbers))
      return chosen.reshape(*places, -1), jnp.zeros(places)

    return patch_rollout.rollout(way, choose, params, inputs["image"], samples).actions

  def entropy(scored: Scored) -> Float[Array, "b s t"]:
    if "choices" not in scored.outputs:
      return patch_imitation.entropy(parts.imitation, scored)
    return jnp.sum(tanh_normal.entropy(scored.outputs["choices"]), axis=-1)

  def divergence(scored: Scored, reference: Scored) -> Float[Array, "b s t"]:
    if "choices" not in scored.outputs:
      return patch_imitation.divergence(scored, reference)
    both = scored.outputs["choices"], reference.outputs["choices"]
    return jnp.sum(tanh_normal.kl(*both), axis=-1)

  def states(params, inputs, actions):
    return patch_rollout.states(way, params, inputs["image"], actions)

  sizes = way.passes, parts.features, parts.numbers
  control = Control(*sizes, states, choices_of, act, tanh_normal, play)
  return Policy(init, sample, score, best, entropy, divergence, _describe, control=control)


def _describe(scored: Scored) -> dict[str, Float[Array, "b s"]]:
  """While tuning the share of patches that are done, and the noise; else terms of imitation."""
  if "choices" not in scored.outputs:
    return {name: jnp.mean(x, axis=-1) for name, x in scored.outputs["terms"].items()}
  at = scored.outputs["choices"]
  return {
    "done": 1 - jnp.mean(scored.mask, axis=-1),
    "choice_noise": jnp.mean(at.scale, axis=(-1, -2)),
  }
