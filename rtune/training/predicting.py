"""From parameters to predictions: the best answers of a policy."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from rtune.errors import UsageError
from rtune.policies.policy import Policy
from rtune.tasks.task import Task

# (frozen, params, batch) -> (actions [B, 1, ...], predictions [B, ...])
Predict = Callable[..., tuple[Any, Any]]


def best_answers(task: Task, policy: Policy, effort: int = 1) -> Predict:
  """The likeliest answers that a policy finds, jitted.

  Raises:
    UsageError: the policy knows no other effort than 1.
  """
  if effort > 1 and not policy.search:
    raise UsageError(f"A beam of {effort} is asked for, but this policy has no beam search.")

  @functools.partial(jax.jit, compiler_options=policy.compiler_options)
  def predict(frozen, params, batch):
    inputs = task.inputs(batch)
    best = policy.best(params, inputs, effort)
    actions = jax.tree.map(lambda x: x[:, None], best)
    scored = policy.score(params, inputs, actions)
    predictions = task.decode(frozen, actions, batch, scored)
    return actions, jax.tree.map(lambda x: x[:, 0], predictions)

  return predict
