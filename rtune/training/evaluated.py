"""What a phase does with its evaluations: keeps the best weights, and tells of a hacked reward."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rtune import config as configs
from rtune.errors import UsageError
from rtune.tasks.task import Task
from rtune.training.best import Best, judge_of
from rtune.training.hacking import Hacking
from rtune.training.phases import Phase

TUNING = ("reward", "actor_critic")  # phases that have a reward


class Evaluated(NamedTuple):
  """What looks at each evaluation of one phase; all processes make the same calls."""

  best: Best
  hacking: Hacking | None

  def look(self, step: int, values: Mapping[str, float], params: Any) -> None:
    """Takes an evaluation after `step` of the log, of these parameters."""
    self.best.look(step, values, params)
    if self.hacking is not None:
      self.hacking.look(step, values)


def check_names(
  config: configs.Config, task: Task, evaluate: Callable[[], Mapping[str, float]]
) -> None:
  """UsageError where the config names numbers that evaluations do not have.

  Only an evaluation knows its names, so one is made, before training and only for these settings.
  """
  best, watched = config.checkpoints.best, config.reward.watched
  if best in ("", "none") and not watched:
    return
  values = evaluate()
  judge_of(config, task, values)
  for number in watched:
    if number not in values:
      raise UsageError(
        f"config.reward.watched names {number!r}; an evaluation has {', '.join(sorted(values))}."
      )


def opened(
  config: configs.Config, task: Task, folder: pathlib.Path, phase: Phase, start: int, step: int
) -> Evaluated:
  """That of a phase which begins after step `start` of the log and goes on after `step`."""
  best = Best(config, task, folder, phase, start, step)
  if phase.name not in TUNING:
    return Evaluated(best, None)
  return Evaluated(best, Hacking(config, task, folder, phase.name, start, step))
