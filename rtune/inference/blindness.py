"""Whether a reward looks at no truth, so that answers can be scored that nobody has annotated."""

from typing import Any, NoReturn

import jax
import numpy as np

from rtune import config as configs
from rtune.rewards.mark import host_options
from rtune.tasks.task import Task
from rtune.training.scoring import Named, named_rewards


class _Unknown:
  """Stands for a truth; whoever looks at it raises."""

  def __getattr__(self, name: str) -> NoReturn:
    raise LookupError(f"the truth is asked for its {name}")


def is_blind(reward: configs.Reward, task: Task, predictions: Any) -> bool:
  """Tries the rewards of a config on a prediction alone.

  Args:
    predictions: leaves [B, S, ...].
  """
  one = jax.tree.map(lambda x: x[0, 0], predictions)
  return all(_does_without(named, one) for named in named_rewards(reward, task))


def _does_without(reward: Named, prediction: Any) -> bool:
  def call(prediction):
    return reward.call(prediction, _Unknown(), **reward.args)

  try:
    if host_options(reward.call) is not None:
      call(jax.tree.map(np.asarray, prediction))
    else:
      jax.eval_shape(call, prediction)
  except Exception:  # whatever a reward does that is given something else than a truth
    return False
  return True
