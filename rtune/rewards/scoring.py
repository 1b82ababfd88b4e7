"""From a reward of one prediction to the rewards of a batch of sampled answers.

Dimension key:
  B: batch of images
  S: samples for each image
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rtune import config
from rtune.errors import UsageError
from rtune.tasks.task import Task


class Scores(NamedTuple):
  """Rewards of sampled answers; where `valid` is false the reward could not be computed."""

  reward: Float[Array, "b s"]
  valid: Bool[Array, "b s"]
  parts: Mapping[str, Float[Array, "b s"]]


class Scoring(NamedTuple):
  """How answers are judged.

  Attributes:
    score: (actions [B, S, ...], batch) -> Scores.
    supervised: (Scored, actions, batch) -> scalar loss on the policy's own samples, or None.
  """

  score: Callable[..., Scores]
  supervised: Callable[..., Array] | None = None


def make_scoring(phase: config.Reward, task: Task, frozen: Any) -> Scoring:
  """The scoring that a config names: its reward mapped over B and S, jitted."""
  reward_fn = config.resolve(phase.fn)

  def one(prediction, truth):
    return _as_parts(reward_fn(prediction, truth, **phase.args), phase.fn)

  @jax.jit
  def score(actions, batch) -> Scores:
    predictions = task.decode(frozen, actions, batch, None)
    over_samples = jax.vmap(one, in_axes=(0, None))
    parts = jax.vmap(over_samples)(predictions, task.truth(batch))
    reward = parts.pop("reward")
    return Scores(reward, jnp.isfinite(reward), parts)

  return Scoring(score)


def _as_parts(result: Any, name: str) -> dict[str, Array]:
  """A reward's scalar or dict as a dict of float32 scalars."""
  parts = dict(result) if isinstance(result, Mapping) else {"reward": result}
  if "reward" not in parts:
    raise UsageError(f"{name} returned a dict without 'reward'; its keys are {sorted(parts)}.")
  parts = {key: jnp.asarray(value, jnp.float32) for key, value in parts.items()}
  for key, value in parts.items():
    if value.shape != ():
      raise UsageError(
        f"{name} must return one number for one prediction; {key!r} has shape {value.shape}. "
        "rtune maps it over images and samples itself."
      )
  return parts
