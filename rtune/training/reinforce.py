"""REINFORCE: what an update of the phase reward does, `(state, batch) -> (state, metrics)`.

Dimension key:
  B: batch of images
  S: samples for each image
  L: positions of an answer
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from rtune import config
from rtune.devices import sharding
from rtune.policies.policy import Policy, Sampled, Scored
from rtune.tasks.task import Task
from rtune.training import losses
from rtune.training.scoring import Scores, Scoring
from rtune.training.update import Batch, Metrics, State, Step, accumulate, apply_update, by_position


def reward_step(
  task: Task,
  policy: Policy,
  optimizer: optax.GradientTransformation,
  phase: config.Reward,
  frozen: Any,
  key: Array,
  scoring: Scoring,
  reference: Any,
  clock: Callable[[str], Any],
  shardings: Any,
) -> Step:
  """REINFORCE: sample -> score -> update, three device programs, so that the time of each shows.

  Args:
    scoring: gives rewards to actions, on the device or on the host.
    reference: parameters that KL is measured from; not read where `phase.kl` is 0.
    clock: context manager that adds up seconds under a name.
    shardings: where the state lives, before and after.
  """

  parts = phase.overlap
  decoding = functools.partial(jax.jit, compiler_options=policy.compiler_options)

  @decoding
  def sample(params, step, images, part) -> Sampled:
    sample_key = jax.random.fold_in(key, step)
    if parts > 1:
      sample_key = jax.random.fold_in(sample_key, part)
    params = sharding.whole(params, shardings)
    return policy.sample(params, images, sample_key, phase.num_samples)

  mode = decoding(lambda params, images: policy.mode(sharding.whole(params, shardings), images))
  update = jax.jit(
    reward_update(task, policy, optimizer, phase, scoring, shardings),
    donate_argnums=1,
    out_shardings=(shardings, None),
  )

  def step(state: State, batch: Batch) -> tuple[State, Metrics]:
    slices = _split(batch, parts)
    # All are dispatched at once: while the host scores one, the device samples the next.
    pending = [sample(state.params, state.step, x["image"], i) for i, x in enumerate(slices)]
    scores = []
    for inputs, sampled in zip(slices, pending, strict=True):
      with clock("sample"):
        jax.block_until_ready(sampled)
      with clock("score"):
        scores.append(jax.block_until_ready(scoring.score(sampled.actions, inputs)))
    greedy_B = None
    if phase.baseline == "greedy":
      with clock("sample"):
        greedy = jax.block_until_ready(mode(state.params, batch["image"]))
      with clock("score"):
        greedy_B = scoring.score(greedy[:, None], batch).reward[:, 0]
    return jax.block_until_ready(
      update(frozen, state, batch, _join(pending), _join(scores), greedy_B, reference)
    )

  return step


@functools.partial(jax.jit, static_argnums=1)
def _split(tree: Any, parts: int) -> list[Any]:
  """A batch as `parts` strided slices: on a mesh every slice has examples of every device."""
  return [jax.tree.map(lambda x, i=i: x[i::parts], tree) for i in range(parts)]


@jax.jit
def _join(slices: Sequence[Any]) -> Any:
  """What `_split` took apart."""
  return jax.tree.map(lambda *x: jnp.stack(x, axis=1).reshape(-1, *x[0].shape[1:]), *slices)


def reward_update(task, policy, optimizer, phase: config.Reward, scoring: Scoring, shardings: Any):
  """The part of a reward step with gradients."""
  credit_L = task.credit()

  def loss_fn(params, part):
    scored: Scored = policy.log_prob(params, part["batch"]["image"], part["actions"])
    credited = scored._replace(log_prob=scored.log_prob * credit_L)
    terms = {"reinforce": losses.reinforce(credited, part["advantages"])}
    if phase.entropy:
      terms["entropy_bonus"] = -phase.entropy * jnp.mean(scored.entropy)
    if phase.kl:
      reference = policy.log_prob(part["reference"], part["batch"]["image"], part["actions"])
      kl = losses.kl_divergence(scored, reference)
      terms["kl_term"] = phase.kl * kl
    if scoring.supervised is not None:
      given = part["frozen"], scored, part["actions"], part["batch"]
      terms["supervised"] = scoring.supervised(*given)
    aux = {name: jnp.asarray(value) for name, value in terms.items()}
    if phase.kl:
      aux["kl"] = kl
    aux |= {"entropy": jnp.mean(scored.entropy), "alive": jnp.mean(scored.mask)}
    aux |= {"length": jnp.mean(jnp.sum(scored.mask, axis=-1))}
    return sum(terms.values()), aux | {"log_prob": scored.log_prob}

  def update(frozen, state: State, batch, sampled: Sampled, scores: Scores, greedy_B, reference):
    advantages_BS = losses.advantages(
      scores.reward, scores.valid, phase.baseline, greedy_B, phase.normalize
    )
    inputs = {"batch": dict(batch), "actions": sampled.actions, "advantages": advantages_BS}
    shared = {"frozen": frozen}
    shared |= {"reference": sharding.whole(reference, shardings)} if phase.kl else {}
    params = sharding.whole(state.params, shardings)
    grads, loss, aux = accumulate(loss_fn, params, inputs, phase.accumulate, None, shared)
    gap = jnp.max(jnp.abs(aux.pop("log_prob") - sampled.log_prob))
    state, metrics = apply_update(state, optimizer, grads, loss, jnp.any(scores.valid))
    metrics |= by_position(aux, ("entropy", "kl")) | {"log_prob_gap": gap}
    metrics |= _reward_metrics(scores, advantages_BS)
    return state, metrics | {"unique": _unique_share(sampled.actions)}

  return update


def _reward_metrics(scores: Scores, advantages_BS) -> Metrics:
  """What rewards did: their spread, how many images teach something, how many failed."""
  valid = scores.valid
  reward = jnp.where(valid, scores.reward, 0.0)
  count = jnp.maximum(jnp.sum(valid), 1)
  mean = jnp.sum(reward) / count
  lowest = jnp.min(jnp.where(valid, scores.reward, jnp.inf), axis=1)
  highest = jnp.max(jnp.where(valid, scores.reward, -jnp.inf), axis=1)
  parts = {
    f"reward/{k}": jnp.sum(jnp.where(valid, v, 0.0)) / count for k, v in scores.parts.items()
  }
  return parts | {
    "reward/mean": mean,
    "reward/std": jnp.sqrt(jnp.sum(jnp.where(valid, (reward - mean) ** 2, 0.0)) / count),
    "reward/min": jnp.min(lowest),
    "reward/max": jnp.max(highest),
    "reward/alike": jnp.mean(lowest >= highest),
    "reward/invalid": jnp.sum(~valid),
    "advantage_std": jnp.std(advantages_BS),
  }


def _unique_share(actions_BSL: Int[Array, "b s l"]) -> Array:
  """Distinct answers of an image as a share of its samples."""
  equal_BSS = jnp.all(actions_BSL[:, :, None] == actions_BSL[:, None, :], axis=-1)
  first = ~jnp.any(jnp.tril(equal_BSS, -1), axis=-1)
  return jnp.mean(first)
