"""Running statistics of the policy's own predictions, which rewards and losses may read.

A phase whose settings name one (`config.reward.running`) brings it up to date in every step, from
the likeliest answers for the batch; what a step reads is that of the steps before it.

Dimension key:
  B: batch of images
"""

from collections.abc import Callable
from typing import Any

import jax

from rtune import config as configs
from rtune.config.names import check_args, parameters_of, resolve
from rtune.errors import UsageError
from rtune.policies.policy import Inputs, Params, Policy
from rtune.rewards.mark import host_options
from rtune.rewards.running import Running
from rtune.tasks.task import Task
from rtune.training.scoring import RUNNING, with_known
from rtune.training.update import Batch, Making, State


def running_of(settings: Any, task: Task) -> Running | None:
  """The statistic that the settings of a phase name; None where they name none."""
  part = getattr(settings, "running", configs.Part())
  if not part.fn:
    return None
  build = resolve(part.fn)
  return build(**with_known(build, part.args, task))


def check(settings: Any, task: Task, key: str, readers: dict[str, Callable]) -> None:
  """UsageError where `config.<key>.running` cannot be built, or one of `readers` misses it."""
  part = getattr(settings, "running", configs.Part())
  if part.fn:
    build = resolve(part.fn)
    check_args(build, with_known(build, part.args, task), f"{key}.running")
  for name, reader in readers.items():
    if not reads(reader):
      continue
    if host_options(reader) is not None:
      raise UsageError(
        f"{name} runs on the host, where there is no running statistic; write it in jax.numpy."
      )
    if not part.fn:
      raise UsageError(
        f"config.{key}.running.fn is empty, but {name} reads a running statistic; name one, such "
        "as rtune.rewards.labels:class_confusion."
      )


def reads(fn: Callable) -> bool:
  """Whether a reward or a loss has a parameter for the statistic."""
  return RUNNING in parameters_of(fn)


def best_prediction(
  task: Task, policy: Policy, params: Params, inputs: Inputs, frozen: Any, batch: Batch
) -> Any:
  """The likeliest answers' predictions, leaves [B, ...].

  In one program with `policy.score` the compiler computes once what both need.
  """
  best = policy.best(params, inputs)
  actions = jax.tree.map(lambda x: x[:, None], best)
  predictions = task.decode(frozen, actions, batch, None)
  return jax.tree.map(lambda x: x[:, 0], predictions)


def follow(making: Making, state: State, predictions: Any, batch: Batch) -> State:
  """The state with its statistic brought up to date by what `best_prediction` has found."""
  truth = making.task.truth(batch)
  return state._replace(running=making.running.update(state.running, predictions, truth))


def teacher_decay(settings: Any) -> float:
  """What is left of the teacher's weights at each update; 0 where there is no teacher."""
  return getattr(settings, "adapt", configs.Adapt()).teacher


def averaged(state: State, decay: float) -> State:
  """The state with its teacher a step closer to its parameters (mean teacher, 1703.01780)."""
  if not decay:
    return state
  mixed = jax.tree.map(lambda t, p: decay * t + (1 - decay) * p, state.teacher, state.params)
  return state._replace(teacher=mixed)
