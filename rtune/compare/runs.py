"""Runs as they are compared: where they were trained by rtune, and where by MMEngine."""

import glob
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rtune import config as configs
from rtune.compare import mmengine, names, origins
from rtune.compare.logs import read_log, settle
from rtune.config.names import build_part
from rtune.display import console
from rtune.display.logs import JSONL, parse_line
from rtune.errors import RtuneError, UsageError
from rtune.report.curves import Branch, branches_of, move
from rtune.report.phase_view import known
from rtune.store import run_files
from rtune.tasks.task import view
from rtune.training.phases import PHASES

TRAIN = "train"  # the only phase of a run of MMEngine
_BY_NAME = {phase.name: phase for phase in PHASES}


class Run(NamedTuple):
  """One run.

  Attributes:
    path: as the user gave it.
    name: of its folder.
    task: the code of its task; "" for a run of MMEngine.
    settings: all by dotted name that make it what it is: not the seed, nor what changes no number,
      nor those of phases that it does not run. Where one names another run, that run's settings
      stand for it, as text.
    shown: how to write the settings that are not written as they are.
    seed: None where nobody knows it.
    branches: its phases in the log, those of one model side by side.
    final: phase -> metric -> value at its end; of the phases that have been evaluated.
    unfinished: phases in `final` that have not come to their end.
    headline: the metrics that matter for its task, without "val/".
  """

  path: str
  name: str
  task: str
  settings: Mapping[str, Any]
  shown: Mapping[str, str]
  seed: int | None
  branches: list[Branch]
  final: Mapping[str, dict[str, float]]
  unfinished: tuple[str, ...]
  headline: tuple[str, ...]


def label(phase: str) -> str:
  """What tables call a phase."""
  return _BY_NAME[phase].label if phase in _BY_NAME else phase


def is_coded(phase: str) -> bool:
  """Whether a phase trains a code model: its values stand apart from those of answers."""
  return phase in _BY_NAME and not _BY_NAME[phase].learns.answers


def branches_off(phase: str) -> bool:
  """Whether a phase begins where imitation has ended."""
  return phase in _BY_NAME and _BY_NAME[phase].branches


def read_runs(patterns: Sequence[str]) -> list[Run]:
  """The runs that paths and globs name, each once, in this order.

  Raises:
    UsageError: a path that is no run, or runs that have nothing in common.
    DataError: a log without a readable line.
  """
  runs = [_read(path) for path in expand(patterns)]
  tasks = {run.task: run.path for run in runs if run.task}
  if len(tasks) > 1:
    said = ", ".join(f"{path} has {task}" for task, path in tasks.items())
    raise UsageError(f"Runs of different tasks cannot be compared: {said}.")
  if tasks and any(not run.task for run in runs):
    runs = [run if run.task else _in_shares(run) for run in runs]
  _check_common(runs)
  return runs


def expand(patterns: Sequence[str]) -> list[pathlib.Path]:
  """The folders and files that paths and globs name; UsageError where one names none."""
  found: dict[pathlib.Path, pathlib.Path] = {}
  for pattern in patterns:
    path = pathlib.Path(pattern).expanduser()
    if path.exists():
      paths = [path]
    elif glob.has_magic(pattern):
      paths = [pathlib.Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
      paths = [p for p in paths if _is_rtune(p) or mmengine.find_files(p)]
      if not paths:
        raise UsageError(f"{pattern} matches no run.")
    else:
      raise UsageError(f"{pattern} does not exist.")
    for one in paths:
      one = one.parent if one.name == JSONL else one
      found.setdefault(one.resolve(), one)
  return list(found.values())


def _is_rtune(path: pathlib.Path) -> bool:
  return any((path / file).is_file() for file in (run_files.CONFIG, JSONL))


def _read(path: pathlib.Path) -> Run:
  if _is_rtune(path):
    return _read_rtune(path)
  files = mmengine.find_files(path)
  if not files:
    raise UsageError(
      f"{path} is no run: it has neither {run_files.CONFIG} of rtune nor {mmengine.FILE} of "
      "MMEngine."
    )
  log = mmengine.read_scalars(files)
  _warn_of_broken(path, log.broken)
  settings, seed = mmengine.read_settings(files)
  final = {TRAIN: _last(log.rows)} if _last(log.rows) else {}
  branches = [Branch(TRAIN, "", 0, log.rows)]
  name = mmengine.name_of(path)
  return Run(str(path), name, "", settings, {}, seed, branches, final, (), mmengine.PERCENT[:3])


def _read_rtune(folder: pathlib.Path) -> Run:
  config = origins.read_config(folder)
  log = read_log(folder / JSONL, parse_line)
  _warn_of_broken(folder / JSONL, log.broken)
  shift = origins.imitated_before(config)
  branches = [
    move(branch, branch.start + shift) if branches_off(branch.name) else branch
    for branch in branches_of(settle(log.rows), config)
  ]
  finished = run_files.read_results(folder)
  final, unfinished = {}, []
  rows = {branch.name: branch.rows for branch in branches}
  for phase in config.phases:
    values = finished.get(phase) or _last(rows.get(phase, ()))
    if values:
      final[phase] = {k: float(v) for k, v in values.items() if known(values, k) is not None}
      unfinished += [] if phase in finished else [phase]
  settings, shown = origins.settings_of(config)
  task = settings["task.fn"]
  name = folder.absolute().name
  return Run(
    *(str(folder), name, task, settings, shown, config.seed),
    *(branches, final, tuple(unfinished), _headline(config)),
  )


def _headline(config: configs.Config) -> tuple[str, ...]:
  """The metrics that the task finds most important; () where its code is not there."""
  try:
    return view(build_part(config.task, "task")).headline
  except RtuneError:
    return ()


def _last(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """The last value of each metric."""
  last: dict[str, float] = {}
  for row in rows:
    last |= {k: float(v) for k, v in row.items() if names.is_metric(k)}
  return {k: v for k, v in last.items() if known(last, k) is not None}


def _in_shares(run: Run) -> Run:
  """A run of MMEngine beside runs of rtune, whose metrics are no percent."""
  branches = [b._replace(rows=[mmengine.as_shares(row) for row in b.rows]) for b in run.branches]
  final = {phase: mmengine.as_shares(values) for phase, values in run.final.items()}
  return run._replace(branches=branches, final=final)


def logged(run: Run) -> list[str]:
  """All names in a run's log."""
  return list(dict.fromkeys(k for b in run.branches for row in b.rows for k in row if k != "step"))


def _check_common(runs: Sequence[Run]) -> None:
  metrics = {run.path: {n for n in logged(run) if names.is_metric(n)} for run in runs}
  judged = {path: found for path, found in metrics.items() if found}
  if len(judged) > 1 and not set.intersection(*judged.values()):
    said = "; ".join(
      f"{path} has {', '.join(map(names.short, sorted(found)[:4]))}"
      for path, found in judged.items()
    )
    raise UsageError(f"The runs have no metric in common: {said}.")


def _warn_of_broken(path: pathlib.Path, count: int) -> None:
  if count:
    said = "line could not be read and is" if count == 1 else "lines could not be read and are"
    console.warn(f"{path}: {count} {said} left out.")
