"""A reward is tried once, on one example, before anything is trained.

What raises, returns something else than numbers, or needs values where there are none, would
otherwise come to light after hours of imitation.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rtune import config as configs
from rtune.data.source import Example
from rtune.policies.policy import Policy
from rtune.rewards.mark import host_options
from rtune.tasks.task import Task
from rtune.training import code_weights, follow
from rtune.training.scoring import host_rewards, named_rewards, rewards_on_device


def try_rewards(reward: configs.Reward, task: Task, policy: Policy, raw: Example) -> None:
  """Rewards of the device are traced, those of the host are called with the truth.

  Where what is drawn is of another kind than what is imitated, they are called with zeros.

  Raises:
    UsageError: a reward that cannot be called, or whose result is none.
    RewardError: a reward that raises, with the line of its own file.
  """
  rewards = named_rewards(reward, task)
  hosted = [one for one in rewards if host_options(one.call) is not None]
  inside = [one for one in rewards if host_options(one.call) is None]
  batch = {k: jnp.asarray(v)[None] for k, v in task.example(raw, None).items()}
  # Codes of a model that is not trained yet are as good as any.
  frozen = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), code_weights.shapes(task))
  running = follow.running_of(reward, task)
  drawn = _drawn(policy, task, batch)
  if inside:
    statistic = running.init() if running else None
    jax.eval_shape(rewards_on_device(inside, task), frozen, drawn, batch, statistic)
  if hosted:
    actions = jax.tree.map(lambda x: x[:, None], task.targets(frozen, batch, jax.random.key(0)))
    if jax.tree.structure(actions) != jax.tree.structure(drawn):
      actions = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), drawn)
    decode = jax.jit(lambda f, a, b: (task.decode(f, a, b, None), task.truth(b)))
    predictions, truths = jax.tree.map(np.asarray, decode(frozen, actions, batch))
    for call in host_rewards(hosted, reward).values():
      call(predictions, truths)


def _drawn(policy: Policy, task: Task, batch: Any) -> Any:
  """What one sample of a policy looks like: shapes of its actions, leaves [1, 1, ...]."""

  def draw(batch: Any) -> Any:
    inputs, key = task.inputs(batch), jax.random.key(0)
    return policy.sample(policy.init(key, inputs), inputs, key, 1).actions

  return jax.eval_shape(draw, batch)
