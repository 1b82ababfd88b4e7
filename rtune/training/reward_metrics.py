"""What rewards did, for the log: their spread, how many images teach something, how many failed.

Dimension key:
  B: batch of images
  S: samples for each image
"""

import jax.numpy as jnp
from jaxtyping import Array

from rtune.display import console
from rtune.training.scoring import Scores
from rtune.training.update import Metrics

# Below reward/ in the log.
_OWN = ("mean", "std", "std_within", "min", "max", "alike", "invalid", "unjudged")


def reward_metrics(scores: Scores) -> Metrics:
  """Numbers below reward/, the reward's own parts among them."""
  valid = scores.valid
  reward = jnp.where(valid, scores.reward, 0.0)
  count = jnp.maximum(jnp.sum(valid), 1).astype(reward.dtype)
  mean = jnp.sum(reward) / count
  lowest = jnp.min(jnp.where(valid, scores.reward, jnp.inf), axis=1)
  highest = jnp.max(jnp.where(valid, scores.reward, -jnp.inf), axis=1)
  parts = {f"reward/{_free(k)}": _mean_of_known(v, valid) for k, v in scores.parts.items()}
  return parts | {
    "reward/mean": mean,
    "reward/std": jnp.sqrt(jnp.sum(jnp.where(valid, (reward - mean) ** 2, 0.0)) / count),
    "reward/std_within": _deviation_within(reward, valid),
    "reward/min": jnp.min(lowest),
    "reward/max": jnp.max(highest),
    "reward/alike": jnp.mean(lowest >= highest),
    "reward/invalid": jnp.sum(~valid),
    "reward/unjudged": jnp.sum(~jnp.any(valid, axis=1)),
  }


def _deviation_within(reward_BS: Array, valid_BS: Array) -> Array:
  """Mean over images of the deviation of its samples' rewards (n - 1), as trl's `reward_std`."""
  counts_B1 = jnp.sum(valid_BS, axis=1, keepdims=True).astype(reward_BS.dtype)
  means_B1 = jnp.sum(reward_BS, axis=1, keepdims=True) / jnp.maximum(counts_B1, 1)
  squares_B1 = jnp.sum(jnp.where(valid_BS, (reward_BS - means_B1) ** 2, 0.0), axis=1, keepdims=True)
  return jnp.mean(jnp.sqrt(squares_B1 / jnp.maximum(counts_B1 - 1, 1)))


def _free(name: str) -> str:
  """The name of a part in the log, where it does not hide a number of the trainer's own."""
  if name not in _OWN:
    return name
  console.warn_once(
    f"part {name}", f"the reward's part {name!r} is logged as reward/part_{name}: reward/{name} is "
    "a number of rtune's own."
  )  # fmt: skip
  return f"part_{name}"


def _mean_of_known(part: Array, valid: Array) -> Array:
  """Over the valid samples that have this part; NaN where none has."""
  known = valid & jnp.isfinite(part)
  total = jnp.sum(jnp.where(known, part, 0.0))
  count = jnp.maximum(jnp.sum(known), 1).astype(total.dtype)
  return jnp.where(jnp.any(known), total / count, jnp.nan)
