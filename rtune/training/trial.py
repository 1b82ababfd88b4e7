"""A reward is tried once, on the truth of one example, before anything is trained.

What raises, returns something else than numbers, or needs values where there are none, would
otherwise come to light after hours of imitation.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rtune import config as configs
from rtune.data.source import Example
from rtune.rewards.mark import host_options
from rtune.tasks.task import Task
from rtune.training import code_weights, follow
from rtune.training.host import HostReward
from rtune.training.scoring import named_rewards, rewards_on_device


def try_rewards(reward: configs.Reward, task: Task, raw: Example) -> None:
  """Rewards of the device are traced, those of the host are called.

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

  def truth(frozen: Any, batch: Any) -> Any:
    return jax.tree.map(lambda x: x[:, None], task.targets(frozen, batch, jax.random.key(0)))

  if inside:
    statistic = running.init() if running else None

    def judged(frozen: Any, batch: Any) -> Any:
      return rewards_on_device(inside, task)(frozen, truth(frozen, batch), batch, statistic)

    jax.eval_shape(judged, frozen, batch)
  if hosted:
    decode = jax.jit(lambda f, b: (task.decode(f, truth(f, b), b, None), task.truth(b)))
    predictions, truths = jax.tree.map(np.asarray, decode(frozen, batch))
    for one in hosted:
      skip = reward.on_error == "skip"
      HostReward(one.call, one.key, one.args, skip, reward.timeout_s)(predictions, truths)
