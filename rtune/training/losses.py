"""Imitation, REINFORCE and extra losses, as functions of what a policy says of given answers.

An extra loss is any function that a config names (`reward.losses`, `mle.losses`, with a weight
each; `reward.kl`, `.entropy` and `.supervised` are short for three of them). Either it takes whole
batches, and then its first parameter is `scored`; it may ask for `policy`, `reference` (the same
answers as the model before tuning scores them), `actions`, `predictions`, `truth`, `best` (the
predictions of the policy's best answers, with gradient), and `running` (what
`config.<phase>.running` follows). Or it takes one sample, `(outputs, actions, prediction,
truth)`, and is mapped over B and S, such as `rtune.tasks.confidence:expected_iou`.

Dimension key:
  B: batch of images
  S: samples for each image
  T: decisions of an answer
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune import config as configs
from rtune.config.names import resolve
from rtune.errors import UsageError
from rtune.policies.policy import Policy, Scored

OFFERED = frozenset(
  ("scored", "policy", "reference", "actions", "predictions", "truth", "best", "running")
)


def imitation(scored: Scored) -> Float[Array, ""]:
  """Negative log-likelihood of the target, averaged over all decisions of all answers.

  Decisions after the end count as zeros: the divisor is the same for every slice of a batch.
  """
  return -jnp.mean(counted(scored))


def counted(scored: Scored) -> Float[Array, "b s t"]:
  """Log-probabilities of the decisions that count, 0 for the others."""
  return jnp.where(scored.mask > 0, scored.log_prob, 0.0)


def reinforce(
  scored: Scored, advantages: Float[Array, "b s *t"], weights: Sequence[float] = ()
) -> Float[Array, ""]:
  """Its gradient is the negative REINFORCE estimate of the gradient of the expected reward.

  Divided by T, as the released docstring's mean over positions does, so that learning rates carry
  over between answer lengths.

  Args:
    advantages: of whole answers [B, S], or of each decision [B, S, T].
    weights: of each decision; (): all 1.
  """
  log_prob_BST = counted(scored)
  if len(weights) not in (0, log_prob_BST.shape[-1]):
    raise UsageError(
      f"The task's space has {len(weights)} weights for {log_prob_BST.shape[-1]} decisions; give "
      "one for each, or none."
    )
  if len(weights):
    log_prob_BST = log_prob_BST * jnp.asarray(weights, log_prob_BST.dtype)[None, None]
  advantages = jax.lax.stop_gradient(advantages)
  if advantages.ndim == 2:
    weighted_BS = advantages * jnp.sum(log_prob_BST, axis=-1)
  else:
    weighted_BS = jnp.sum(advantages * log_prob_BST, axis=-1)
  return -jnp.mean(weighted_BS) / log_prob_BST.shape[-1]


def kl(scored: Scored, policy: Policy, reference: Scored) -> Float[Array, ""]:
  """KL(policy || reference) of whole answers, per decision: a sum over T, divided by T.

  Exact in each decision's distribution, sampled in the decisions before it. Its gradient is that of
  the expected KL: where decisions depend on earlier ones, each also answers for the KL after it.
  """
  return jnp.mean(_with_later(scored, policy, _divergence(scored, policy, reference)))


def kl_of_next(scored: Scored, policy: Policy, reference: Scored) -> Float[Array, ""]:
  """`kl` with a shorter gradient, as many implementations have it: of each decision by itself.

  It leaves out how the decisions before depend on the parameters: 8 % off near the reference, more
  than the gradient itself far from it; in return it adds no noise.
  """
  return jnp.mean(_divergence(scored, policy, reference))


def entropy(scored: Scored, policy: Policy) -> Float[Array, ""]:
  """Minus the entropy of whole answers, divided by T, with the gradient of its expectation."""
  entropy_BST = policy.entropy(scored) * scored.mask
  return -jnp.mean(_with_later(scored, policy, entropy_BST))


def entropy_of_next(scored: Scored, policy: Policy) -> Float[Array, ""]:
  """`entropy` with the gradient of each decision by itself; see `kl_of_next`."""
  return -jnp.mean(policy.entropy(scored) * scored.mask)


def _divergence(scored: Scored, policy: Policy, reference: Scored) -> Float[Array, "b s t"]:
  return policy.divergence(scored, jax.lax.stop_gradient(reference)) * scored.mask


def _with_later(
  scored: Scored, policy: Policy, values_BST: Float[Array, "b s t"]
) -> Float[Array, "b s t"]:
  """The same values, with the gradient of their expectation.

  A decision changes which later ones are met, so it answers for their values: the score function of
  REINFORCE, compared with the siblings, which changes no expectation and takes noise away.
  """
  if not policy.sequential:
    return values_BST
  fixed = jax.lax.stop_gradient(values_BST)
  later = jnp.flip(jnp.cumsum(jnp.flip(fixed, -1), -1), -1) - fixed
  samples = later.shape[1]
  if samples > 1:
    later = (later - jnp.mean(later, axis=1, keepdims=True)) * samples / (samples - 1)
  term = later * counted(scored)
  return values_BST + term - jax.lax.stop_gradient(term)


def reward_of_best(
  scored: Scored, best: Any, truth: Any, *, reward: str, args: Mapping[str, Any]
) -> Float[Array, ""]:
  """Minus the mean reward of the best answers: the gradient of a reward that has one.

  What REINFORCE estimates from samples is then had without any, where the path from parameters to
  the best answer is smooth: of pictures, not of tokens.

  Args:
    reward: name of a function that runs on the device, and its `args`.
  """
  del scored
  one = functools.partial(resolve(reward), **args)
  found = jax.vmap(one)(best, truth)
  return -jnp.mean(found["reward"] if isinstance(found, Mapping) else found)


class Extra(NamedTuple):
  """An extra loss.

  Attributes:
    name: of its term in the log, weight included.
    weight: what it is multiplied by.
    loss: called with those of the things offered that it needs, by name.
    needs: their names.
    measure: what its value before the weight is called in the log; "": it is not logged.
  """

  name: str
  weight: float
  loss: Callable[..., Float[Array, ""]]
  needs: frozenset[str]
  measure: str = ""


def extra_losses(
  settings: configs.Imitate | configs.Reward | configs.ActorCritic,
) -> tuple[Extra, ...]:
  """The extra losses of a phase, in the order in which they are added; some phases take none."""
  found = []
  if getattr(settings, "entropy", 0):
    found.append(_extra("entropy_bonus", entropy, settings.entropy))
  if getattr(settings, "kl", 0):
    found.append(_extra("kl_term", kl, settings.kl)._replace(measure="kl"))
  supervised = getattr(settings, "supervised", configs.Part())
  if supervised.fn:
    loss = resolve(supervised.fn)
    found.append(_extra("supervised", loss, settings.supervised_weight, supervised.args))
  taken = {extra.name for extra in found}
  for part in getattr(settings, "losses", ()):
    stem = name = part.fn.rpartition(":")[2]
    count = 1
    while name in taken:
      count += 1
      name = f"{stem}_{count}"
    taken.add(name)
    found.append(_extra(name, resolve(part.fn), part.weight, part.args))
  return tuple(found)


def _extra(
  name: str, loss: Callable[..., Any], weight: float, args: Mapping[str, Any] = {}
) -> Extra:
  parameters = [p for p in inspect.signature(loss).parameters if p not in args]
  if parameters[0] == "scored":
    needs = frozenset(parameters) & OFFERED
    return Extra(name, weight, lambda **given: loss(**given, **args), needs)

  def one(outputs, actions, prediction, truth):
    return loss(outputs, actions, prediction, truth, **args)

  def mapped(scored, actions, predictions, truth):
    over_samples = jax.vmap(one, in_axes=(0, 0, 0, None))
    return jnp.mean(jax.vmap(over_samples)(scored.outputs, actions, predictions, truth))

  return Extra(name, weight, mapped, frozenset(("scored", "actions", "predictions", "truth")))


def needed(extras: Sequence[Extra]) -> frozenset[str]:
  """What any of the extra losses asks for."""
  return frozenset().union(*(extra.needs for extra in extras))


def terms(
  extras: Sequence[Extra], offered: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Array]]:
  """Weighted terms of the loss by name, and what is measured beside."""
  weighted, measured = {}, {}
  for extra in extras:
    value = extra.loss(**{name: offered[name] for name in extra.needs})
    weighted[extra.name] = extra.weight * value
    if extra.measure:
      measured[extra.measure] = value
  return weighted, measured
