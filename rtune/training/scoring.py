"""From a reward of one prediction to the rewards of a batch of sampled answers.

Dimension key:
  B: batch of images
  S: samples for each image
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from rtune import config as configs
from rtune.config.names import resolve
from rtune.devices import sharding
from rtune.errors import UsageError
from rtune.rewards.mark import host_options
from rtune.tasks.task import Task
from rtune.training.host import HostReward

_NEEDS_VALUES = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)


class Scores(NamedTuple):
  """Rewards of sampled answers; where `valid` is false the reward could not be computed."""

  reward: Float[Array, "b s"]
  valid: Bool[Array, "b s"]
  parts: Mapping[str, Float[Array, "b s"]]


class Scoring(NamedTuple):
  """How answers are judged.

  Attributes:
    score: (actions [B, S, ...], batch) -> Scores: a function of (frozen, actions, batch) with
      `frozen` bound, so that it is an argument of what is compiled, not a constant in it.
    supervised: (frozen, Scored, actions [B, S, L], batch) -> scalar loss on the policy's own
      samples, or None. jit, with gradient.
  """

  score: Callable[..., Scores]
  supervised: Callable[..., Array] | None = None


class Lesson(NamedTuple):
  """What imitation teaches beside the truth.

  Attributes:
    mistakes: (batch, key) -> actions [B, L] with mistakes. jit.
    loss: (frozen, Scored, actions [B, 1, L], batch) -> scalar loss on them. jit, with gradient.
  """

  mistakes: Callable[..., Array]
  loss: Callable[..., Array]


def make_scoring(phase: configs.Reward, task: Task, frozen: Any, mesh: Mesh) -> Scoring:
  """The scoring that a config names: on the device, or on the host where it is marked so."""
  reward_fn = resolve(phase.fn)
  phase = dataclasses.replace(phase, args=with_known(reward_fn, phase.args, task))
  if host_options(reward_fn) is None:
    score = _on_device(reward_fn, phase, task)
  else:
    call = HostReward(reward_fn, phase.fn, phase.args, phase.on_error == "skip", phase.timeout_s)
    score = _on_host(call, task, mesh)
  scoring = Scoring(functools.partial(score, frozen))
  return scoring._replace(supervised=_supervised(phase, task)) if phase.supervised.fn else scoring


def with_frozen(scoring: Scoring, frozen: Any) -> Scoring:
  """The same scoring with another code model; nothing is compiled again."""
  return scoring._replace(score=functools.partial(scoring.score.func, frozen))


def make_lesson(phase: configs.Imitate, task: Task) -> Lesson | None:
  """The lesson that a phase of imitation names, if it names one."""
  if not phase.supervised.fn:
    return None
  make = functools.partial(resolve(phase.mistakes.fn), task, **phase.mistakes.args)
  return Lesson(make, _supervised(phase, task))


def with_known(fn: Callable, args: Mapping[str, Any], task: Task) -> dict[str, Any]:
  """Arguments for a reward, and with them what the task knows and the reward has a name for."""
  known = task.knows(inspect.signature(fn).parameters.keys())
  return {**known, **args}


def _on_device(reward_fn, phase: configs.Reward, task: Task):
  """One jitted program: decode, then the reward mapped over B and S."""

  def one(prediction, truth):
    try:
      return _as_parts(reward_fn(prediction, truth, **phase.args), phase.fn)
    except _NEEDS_VALUES as error:
      raise UsageError(
        f"{phase.fn} needs concrete numbers (numpy, if, float()). Mark it with @on_host from "
        "rtune.training.host, or write it in jax.numpy."
      ) from error
    except TypeError as error:
      raise UsageError(
        f"{phase.fn} cannot be called so: {error}. See config.reward.args."
      ) from error

  @jax.jit
  def score(frozen, actions, batch) -> Scores:
    predictions = task.decode(frozen, actions, batch, None)
    over_samples = jax.vmap(one, in_axes=(0, None))
    parts = jax.vmap(over_samples)(predictions, task.truth(batch))
    return _scores(parts)

  return score


def _on_host(call: HostReward, task: Task, mesh: Mesh):
  """Decode on the device, judge on the host, every process its own images."""

  @jax.jit
  def decode(frozen, actions, batch):
    return task.decode(frozen, actions, batch, None), task.truth(batch)

  def score(frozen, actions, batch) -> Scores:
    predictions, truths = jax.tree.map(sharding.local_rows, decode(frozen, actions, batch))
    return _scores(sharding.put_batch(mesh, call(predictions, truths)))

  return score


def _supervised(phase: configs.Imitate | configs.Reward, task: Task):
  """The extra loss, mapped over B and S and averaged."""
  extra_fn = resolve(phase.supervised.fn)

  def one(logits, actions, prediction, truth):
    return extra_fn(logits, actions, prediction, truth, **phase.supervised.args)

  def loss(frozen, scored, actions, batch):
    predictions = task.decode(frozen, actions, batch, None)
    over_samples = jax.vmap(one, in_axes=(0, 0, 0, None))
    losses_BS = jax.vmap(over_samples)(scored.logits, actions, predictions, task.truth(batch))
    return phase.supervised_weight * jnp.mean(losses_BS)

  return loss


def _scores(parts: Mapping[str, Array]) -> Scores:
  parts = dict(parts)
  reward = parts.pop("reward")
  return Scores(reward, jnp.isfinite(reward), parts)


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
