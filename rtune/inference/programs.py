"""The compiled parts of a loaded model.

Dimension key:
  S: samples of the first image of a batch
  T: decisions of an answer
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rtune.policies.policy import Policy
from rtune.tasks.task import Task


def drawing(task: Task, policy: Policy, n: int) -> Callable[..., Any]:
  """(frozen, params, batch, key) -> actions, predictions and log-probabilities of `n` samples."""

  @functools.partial(jax.jit, compiler_options=policy.compiler_options)
  def draw(frozen, params, batch, key):
    inputs = task.inputs(batch)
    actions, log_prob_BST = policy.sample(params, inputs, key, n)
    scored = policy.score(params, inputs, actions)
    return actions, task.decode(frozen, actions, batch, scored), jnp.sum(log_prob_BST, axis=-1)

  return draw


def scoring(task: Task, policy: Policy) -> Callable[..., Any]:
  """(params, batch, actions [1, S, ...]) -> log-probabilities [S] of the first image."""

  @jax.jit
  def score(params, batch, actions):
    inputs = jax.tree.map(lambda x: x[:1], task.inputs(batch))
    log_prob_ST = policy.score(params, inputs, actions).log_prob[0]
    return jnp.sum(log_prob_ST, axis=-1)

  return score
