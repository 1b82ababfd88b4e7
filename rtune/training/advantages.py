"""How much better each sample did than what it is compared with.

A config names one of these functions (`reward.baseline`), or a user's own as "module:function".
Each takes `rewards` and `valid`, and may ask for more by the name of a parameter:

  greedy: rewards of greedy decoding [B] ([B, T] of credit), NaN where there is none
  sampled: the `Sampled` that were judged

Rewards are [B, S], or [B, S, T] where a reward says what each decision earned: then siblings are
compared decision by decision. Advantages have the shape of the rewards; their scale is such that
the mean over S of advantage x log-probability is the estimator.

Dimension key:
  B: batch of images
  S: samples for each image
  T: decisions of an answer
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rtune.config.names import resolve
from rtune.errors import UsageError

Rewards = Float[Array, "b s *t"]
_EPSILON = 1e-6


def leave_one_out(rewards: Rewards, valid: Bool[Array, "b s"]) -> Rewards:
  """Minus the mean of the siblings (RLOO, 2402.14740); 0 where there are none."""
  count_B1 = jnp.sum(_beside(valid, rewards).astype(rewards.dtype), axis=1, keepdims=True)
  # A reward minus the mean of the others, written with the mean of all.
  scale_B1 = jnp.where(count_B1 > 1, count_B1 / jnp.maximum(count_B1 - 1, 1.0), 0.0)
  return group_mean(rewards, valid) * scale_B1


def paper(rewards: Rewards, valid: Bool[Array, "b s"]) -> Rewards:
  """`leave_one_out` of the first sample, which alone carries gradient (2302.08242)."""
  samples = rewards.shape[1]
  first = _beside((jnp.arange(samples) == 0)[None], rewards)
  return jnp.where(first, leave_one_out(rewards, valid) * samples, 0.0)


def group_mean(rewards: Rewards, valid: Bool[Array, "b s"]) -> Rewards:
  """Minus the mean of all samples of the image, itself among them; normalized: GRPO, 2402.03300.

  It shrinks the gradient by 1 - 1 / S.
  """
  return rewards - mean(rewards, _beside(valid, rewards), axis=1)


def greedy(
  rewards: Rewards, valid: Bool[Array, "b s"], *, greedy: Float[Array, " b *t"]
) -> Rewards:
  """Minus the reward of greedy decoding (SCST, 1612.00563); 0 where that has none."""
  del valid
  baseline_B1 = greedy[:, None]
  return jnp.where(jnp.isfinite(baseline_B1), rewards - baseline_B1, 0.0)


def batch(rewards: Rewards, valid: Bool[Array, "b s"]) -> Rewards:
  """Minus the mean of all other samples of all images."""
  beside = _beside(valid, rewards)
  count = jnp.sum(valid).astype(rewards.dtype)
  scale = jnp.where(count > 1, count / jnp.maximum(count - 1, 1.0), 0.0)
  return (rewards - mean(rewards, beside, axis=(0, 1))) * scale


def none(rewards: Rewards, valid: Bool[Array, "b s"]) -> Rewards:
  """The rewards themselves."""
  del valid
  return rewards


def named(name: str) -> Callable[..., Rewards]:
  """The function that `config.reward.baseline` names: one of these, or code of the user's."""
  return resolve(name if ":" in name else f"{__name__}:{name}")


def asks_for(function: Callable[..., Any], what: str) -> bool:
  """Whether an advantage function has a parameter of this name."""
  return what in inspect.signature(function).parameters


def advantages(
  function: Callable[..., Rewards],
  rewards: Rewards,
  valid: Bool[Array, "b s"],
  normalize: bool = False,
  **offered: Any,
) -> Rewards:
  """Calls an advantage function.

  Args:
    rewards: of the samples; what is not valid may be anything.
    valid: false for a sample whose reward could not be computed: its advantage is 0 and it leaves
      the baseline of its siblings.
    normalize: divide by the standard deviation of the image's rewards. With `group_mean` that is
      GRPO's advantage, with `leave_one_out` n / (n - 1) times it.
    offered: what the function may ask for.
  """
  beside = _beside(valid, rewards)
  rewards = jnp.where(beside, rewards, 0.0)
  given = {name: value for name, value in offered.items() if asks_for(function, name)}
  result = function(rewards, valid, **given)
  if result.shape[:2] != rewards.shape[:2]:
    raise UsageError(
      f"config.reward.baseline: {function.__name__} returned advantages of shape {result.shape} "
      f"for rewards of shape {rewards.shape}; give one for each of them."
    )
  if normalize:
    squares = (rewards - mean(rewards, beside, axis=1)) ** 2
    deviation_B1 = jnp.sqrt(mean(squares, beside, axis=1))
    result = jnp.where(deviation_B1 > 0, result / (deviation_B1 + _EPSILON), 0.0)
  return result * _beside(valid, result).astype(result.dtype)


def mean(
  values: Rewards, valid: Bool[Array, "b s *v"], axis: int | tuple[int, ...]
) -> Float[Array, "..."]:
  """Mean of the valid values with `axis` kept, 0 of none.

  Counted from the lowest, so that the mean of equal values is exactly theirs: what rounding leaves
  of their difference would be an advantage, and a large one after division by the deviation.
  """
  lowest = jnp.min(jnp.where(valid, values, jnp.inf), axis, keepdims=True)
  total = jnp.sum(jnp.where(valid, values - lowest, 0.0), axis, keepdims=True)
  count = jnp.sum(valid, axis, keepdims=True)
  divisor = jnp.maximum(count, 1).astype(total.dtype)
  return jnp.where(count > 0, lowest + total / divisor, 0.0)


def _beside(valid_BS: Bool[Array, "b s"], values: Array) -> Bool[Array, "b s *one"]:
  """As many dimensions as `values`."""
  return valid_BS.reshape(*valid_BS.shape, *[1] * (values.ndim - valid_BS.ndim))
