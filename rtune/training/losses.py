"""Imitation and REINFORCE as functions of log-probabilities.

Dimension key:
  B: batch of images
  S: samples for each image
  L: positions of an answer
  V: vocabulary
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rtune.policies.policy import Scored


def imitation(scored: Scored) -> Float[Array, ""]:
  """Negative log-likelihood of the target, averaged over all positions of all answers.

  Positions after the end count as zeros: the divisor is the same for every slice of a batch.
  """
  return -jnp.mean(scored.log_prob)


def advantages(
  rewards_BS: Float[Array, "b s"],
  valid_BS: Bool[Array, "b s"],
  baseline: str,
  greedy_B: Float[Array, "b"] | None = None,
  normalize: bool = False,
) -> Float[Array, "b s"]:
  """How much better each sample did than what it is compared with.

  Args:
    rewards_BS: rewards of the samples.
    valid_BS: false for a sample whose reward could not be computed: its advantage is 0 and it
      leaves the baseline of its siblings.
    baseline: "leave_one_out", the mean of the siblings (RLOO, 2402.14740); "paper", the same for
      the first sample, which alone carries gradient (2302.08242 and its released reward); "greedy",
      the reward of greedy decoding (SCST, 1612.00563); "batch", the mean of all samples of all
      images; "none".
    greedy_B: rewards of greedy decoding, for "greedy"; not finite where there is none.
    normalize: divide by the standard deviation of the image's rewards (GRPO, 2402.03300).

  Returns:
    Advantages, scaled so that the mean over S of advantage x log-probability is the estimator. An
    image with fewer than two valid samples has no leave-one-out baseline, and one without a greedy
    reward no greedy one: its advantages are 0.
  """
  valid = valid_BS.astype(rewards_BS.dtype)
  rewards_BS = jnp.where(valid_BS, rewards_BS, 0.0)
  count_B1 = jnp.sum(valid, axis=1, keepdims=True)
  mean_B1 = _mean(rewards_BS, valid_BS, axis=1)
  if baseline in ("leave_one_out", "paper"):
    # A reward minus the mean of the others, written with the mean of all.
    scale_B1 = jnp.where(count_B1 > 1, count_B1 / jnp.maximum(count_B1 - 1, 1.0), 0.0)
    result = (rewards_BS - mean_B1) * scale_B1
    if baseline == "paper":
      samples = rewards_BS.shape[1]
      result = jnp.where(jnp.arange(samples) == 0, result * samples, 0.0)
  elif baseline == "greedy":
    known_B1 = jnp.isfinite(greedy_B)[:, None]
    result = jnp.where(known_B1, rewards_BS - greedy_B[:, None], 0.0)
  elif baseline == "batch":
    result = rewards_BS - _mean(rewards_BS, valid_BS, axis=None)
  else:
    result = rewards_BS
  if normalize:
    deviation_B1 = jnp.sqrt(_mean((rewards_BS - mean_B1) ** 2, valid_BS, axis=1))
    result = jnp.where(deviation_B1 > 0, result / (deviation_B1 + 1e-6), 0.0)
  return result * valid


def _mean(
  values_BS: Float[Array, "b s"], valid_BS: Bool[Array, "b s"], axis: int | None
) -> Float[Array, "means 1"]:
  """Mean of the valid values, 0 of none.

  Counted from the lowest, so that the mean of equal values is exactly theirs: what rounding leaves
  of their difference would be an advantage, and a large one after division by the deviation.
  """
  lowest = jnp.min(jnp.where(valid_BS, values_BS, jnp.inf), axis, keepdims=True)
  total = jnp.sum(jnp.where(valid_BS, values_BS - lowest, 0.0), axis, keepdims=True)
  count = jnp.sum(valid_BS, axis, keepdims=True)
  return jnp.where(count > 0, lowest + total / jnp.maximum(count, 1), 0.0)


def reinforce(scored: Scored, advantages_BS: Float[Array, "b s"]) -> Float[Array, ""]:
  """Its gradient is the negative REINFORCE estimate of the gradient of the expected reward.

  Divided by L, as the released docstring's mean over positions does, so that learning rates carry
  over between answer lengths.
  """
  log_prob_BS = jnp.sum(scored.log_prob, axis=-1)
  weighted = jax.lax.stop_gradient(advantages_BS) * log_prob_BS
  return -jnp.mean(weighted) / scored.log_prob.shape[-1]


def kl_divergence(scored: Scored, reference: Scored) -> Float[Array, ""]:
  """KL(policy || reference) of the next token, averaged over all positions of the samples.

  Exact in each position's distribution, sampled in the prefixes. Divided as `reinforce` is, so that
  its weight trades it against the reward of a whole answer.
  """
  log_p = jax.nn.log_softmax(scored.logits)
  log_q = jax.nn.log_softmax(jax.lax.stop_gradient(reference.logits))
  kl_BSL = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
  return jnp.mean(kl_BSL * scored.mask)
