"""The best weights of a phase by a number of its evaluations, and when none are better any more."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from rtune import config as configs
from rtune.devices import processes, sharding
from rtune.display import console, logs
from rtune.errors import StorageError, UsageError
from rtune.store import best_weights
from rtune.tasks.task import Task, view
from rtune.training.phases import Phase


class Judge(NamedTuple):
  """What weights are judged by.

  Attributes:
    number: of an evaluation, such as "val/AR"; "": they are not judged.
    sign: 1 where more is better, else -1.
  """

  number: str
  sign: float


def judge_of(config: configs.Config, task: Task, values: Mapping[str, float]) -> Judge:
  """What the config says, or else the number that the task is judged by first.

  Args:
    values: of an evaluation.

  Raises:
    UsageError: the config names a number that evaluations do not have.
  """
  keep, seen = config.checkpoints, view(task)
  number = keep.best
  if not number:
    known = [name.removeprefix("val/") for name in values if name.startswith("val/")]
    known = [name for name in known if name != "reward"]
    names = [name for name in (*seen.headline, *known) if name in known]
    number = f"val/{names[0]}" if names else ""
  elif number not in values:
    raise UsageError(
      f"config.checkpoints.best is {number!r}; an evaluation has {', '.join(sorted(values))}."
    )
  lower = keep.best_is == "min" or (not keep.best_is and number.partition("/")[2] in seen.lower)
  return Judge(number, -1.0 if lower else 1.0)


class Best:
  """Keeps the best weights of one phase; all processes make the same calls.

  What it knows is on disk: the file of the best weights, and the log of evaluations since.

  Args:
    start: step of the log at which the phase begins.
    step: at which it goes on; evaluations behind it will come again.
  """

  def __init__(
    self,
    config: configs.Config,
    task: Task,
    folder: pathlib.Path,
    phase: Phase,
    start: int,
    step: int,
  ):
    self._config, self._task, self._folder, self._phase = config, task, folder, phase.name
    keeps = config.eval_every and config.checkpoints.best != "none" and phase.learns.answers
    self.active = bool(keeps)
    self._step, self._value, self._since = start, math.nan, 0
    if not self.active:
      return
    known: list[tuple[int, float, int]] = []
    if jax.process_index() == 0:
      rows = [row for row in logs.read_metrics(folder) if start < row["step"] <= step]
      known = [self._opened(rows)]
    self._step, self._value, self._since = processes.gather_objects(known)[0]

  def _opened(self, rows: Sequence[logs.Row]) -> tuple[int, float, int]:
    """(step, value) of the best so far, and how many evaluations came after it."""
    folder, phase = self._folder, self._phase
    best_weights.tidy(folder, phase)
    rows = [row for row in rows if any(name.startswith("val/") for name in row)]
    found = best_weights.find(folder, phase)
    wanted = self._config.checkpoints.best
    if not wanted and rows:
      values = {name: value for name, value in rows[-1].items() if name != "step"}
      wanted = judge_of(self._config, self._task, values).number
    if found and wanted and found.number != wanted:
      console.warn(f"{found.path} was best by {found.number}, not {wanted}: it is forgotten.")
      best_weights.drop(folder, phase)
      found = None
    step, value = (found.step, found.value) if found else (self._step, math.nan)
    return step, value, sum(row["step"] > step for row in rows)

  @property
  def settled(self) -> bool:
    """Whether the phase has had `checkpoints.patience` evaluations without a new best."""
    patience = self._config.checkpoints.patience
    return self.active and 0 < patience <= self._since

  def look(self, step: int, values: Mapping[str, float], params: Any) -> None:
    """Keeps the weights that an evaluation after `step` of the log is of, if they are better.

    Raises:
      UsageError: it does not have the number that the config names.
      StorageError: they could not be written.
    """
    if not self.active:
      return
    judge = judge_of(self._config, self._task, values)
    value = values.get(judge.number, math.nan)
    better = math.isfinite(value) and not judge.sign * value <= judge.sign * self._value
    if better and self._saved(step, judge.number, value, params):
      self._step, self._value = step, value
    # An evaluation that comes again after an interruption may be older than the best.
    self._since = 0 if step <= self._step else self._since + 1

  def _saved(self, step: int, number: str, value: float, params: Any) -> bool:
    """Writes them in the first process; whether it could, in all."""
    host_params, done = sharding.on_host(params), []
    if jax.process_index() == 0:
      try:
        best_weights.save(self._folder, self._phase, host_params, step, number, value)
        done = [True]
      except StorageError as error:
        if self._config.checkpoints.on_error == "stop":
          raise
        console.warn(f"{error} Training goes on.")
        done = [False]
    return processes.gather_objects(done)[0]
