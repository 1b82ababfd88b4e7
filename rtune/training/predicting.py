"""From parameters to predictions: the best answers of a policy, and how it finds the truth."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from rtune.errors import UsageError
from rtune.policies.policy import Policy
from rtune.tasks.task import Task

# (frozen, params, batch) -> (actions [B, 1, ...], predictions [B, ...])
Predict = Callable[..., tuple[Any, Any]]
# (frozen, params, batch) -> {name: [B]}
Describe = Callable[..., dict[str, Any]]


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


def truth_described(task: Task, policy: Policy) -> Describe | None:
  """What a policy says of the truth, jitted; None for policies that say nothing of it.

  A likelihood that needs noise, as of a density of 8-bit pictures, gets the same in all calls.
  """
  if not policy.describes_truth:
    return None

  @jax.jit
  def describe(frozen, params, batch):
    target_key, key = jax.random.split(jax.random.key(0))
    actions = jax.tree.map(lambda x: x[:, None], task.targets(frozen, batch, target_key))
    described = policy.describe(policy.score(params, task.inputs(batch), actions, key))
    return {name: values[:, 0] for name, values in described.items()}

  return describe
