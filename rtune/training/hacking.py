"""Signs that a reward is being hacked: it rises while what it stands for falls.

A reward is a stand-in for what a task is judged by. As far as both rise, tuning does what it is
for; where one rises and the other falls, the model has found what the reward does not see.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

from rtune import config as configs
from rtune.display import console, logs
from rtune.store import run_files
from rtune.tasks.task import Task, view

REWARD = "val/reward"
_FALL = 0.05  # of its first value, from which on it is no noise of a few images
_IN_A_ROW = 2  # evaluations

Values = Mapping[str, int | float]


class Hacked(NamedTuple):
  """A number that has fallen while the reward rose, each as (first value, last value)."""

  number: str
  step: int
  reward: tuple[float, float]
  values: tuple[float, float]

  def __str__(self) -> str:
    (low, high), (before, after) = self.reward, self.values
    return (
      f"step {self.step}: the reward has risen from {low:.4g} to {high:.4g} while {self.number} "
      f"got worse, from {before:.4g} to {after:.4g}. The reward may be hacked: look at the "
      "pictures, price what it does not see, raise reward.kl or lower the learning rate, or take "
      "the weights of an earlier evaluation (--weights best)"
    )


def watched_by(config: configs.Config, task: Task) -> tuple[str, ...]:
  """The numbers of evaluations that must not fall."""
  seen = view(task)
  own = seen.watched or seen.headline[:1]
  return config.reward.watched or tuple(f"val/{name}" for name in own)


class _Series:
  """What one watched number does as evaluations come."""

  def __init__(self, number: str, lower: Sequence[str]):
    self._number = number
    self._sign = -1.0 if number.partition("/")[2] in lower else 1.0
    self._first: tuple[float, float] | None = None
    self._bad = 0

  def look(self, row: Values) -> Hacked | None:
    """The sign that an evaluation gives; those without the number or a reward are passed over."""
    reward, value = row.get(REWARD, math.nan), row.get(self._number, math.nan)
    if not (math.isfinite(reward) and math.isfinite(value)):
      return None
    self._first = self._first or (reward, value)
    first_reward, first = self._first
    lost = self._sign * (first - value) > _FALL * abs(first)
    self._bad = self._bad + 1 if lost and reward > first_reward else 0
    if self._bad < _IN_A_ROW:
      return None
    return Hacked(self._number, int(row["step"]), (first_reward, reward), (first, value))


def found(rows: Sequence[Values], numbers: Sequence[str], lower: Sequence[str]) -> list[Hacked]:
  """What has fallen, for each number the first time.

  Args:
    rows: evaluations of one phase by rising "step", compared with the first of them.
    numbers: that are watched; those that no row has are passed over.
    lower: names, without "val/", of which less is better.
  """
  firsts = (next(filter(None, map(_Series(name, lower).look, rows)), None) for name in numbers)
  return [one for one in firsts if one]


def evaluations(
  config: configs.Config, folder: pathlib.Path, start: int, step: int
) -> list[Values]:
  """Those of a phase that are in the log, after the one that imitation has ended with.

  Args:
    start: step of the log at which the phase begins.
    step: last one that counts.
  """
  rows = [row for row in logs.read_metrics(folder) if start < row["step"] <= step and REWARD in row]
  # Within a phase they may be of fewer images: only like is compared with like.
  first = {} if config.eval_examples else run_files.read_results(folder).get("mle", {})
  return [{"step": start, **first}, *rows] if first else rows


class Hacking:
  """Tells once for each watched number of a phase that tunes.

  Args:
    start: step of the log at which the phase begins.
    step: at which it goes on.
  """

  def __init__(
    self,
    config: configs.Config,
    task: Task,
    folder: pathlib.Path,
    phase: str,
    start: int,
    step: int,
  ):
    self._phase = phase
    self._series = [_Series(name, view(task).lower) for name in watched_by(config, task)]
    if jax.process_index() == 0:  # which alone speaks
      for row in evaluations(config, folder, start, step):
        self._tell(row)

  def look(self, step: int, values: Values) -> None:
    """Warns where an evaluation is the second in a row that says so."""
    self._tell({"step": step, **values})

  def _tell(self, row: Values) -> None:
    for one in filter(None, [series.look(row) for series in self._series]):
      console.warn_once(f"{self._phase} hacked {one.number} {id(self)}", f"{self._phase} {one}.")
