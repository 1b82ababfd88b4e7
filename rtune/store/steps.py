"""The folder of checkpoints: which steps it has, which of them are whole, what else lies there."""

import logging
import pathlib
import re
import shutil

from rtune.errors import StorageError
from rtune.store import manifest

NONE = -1  # instead of a step

_log = logging.getLogger(__name__)


def newest(directory: pathlib.Path) -> int:
  """The newest whole step or NONE; makes the folder, renames damaged steps on the way.

  Raises:
    StorageError: the folder cannot be used, or none of its steps is whole.
    UsageError: the newest step was written by a newer rtune.
  """
  try:
    directory.mkdir(parents=True, exist_ok=True)
    remove_unfinished(directory)
    _tell_strange(directory)
    steps = [int(path.name) for path in directory.iterdir() if is_step(path)]
    for step in sorted(steps, reverse=True):
      problem = manifest.problem(directory / str(step))
      if problem is None:
        return step
      _set_aside(directory / str(step), problem)
    damaged = [path.name for path in directory.iterdir() if _is_damaged(path)]
  except OSError as error:
    raise StorageError(f"checkpoints in {directory} cannot be used: {error}") from error
  if damaged:
    raise StorageError(
      f"{directory} has no whole checkpoint, only {', '.join(sorted(damaged))}. Restore one from a "
      "backup, or delete these to start over."
    )
  return NONE


def remove_unfinished(directory: pathlib.Path) -> None:
  """Removes what saves that were interrupted or failed have left behind."""
  for path in directory.glob("*.orbax-checkpoint-tmp*"):
    shutil.rmtree(path, ignore_errors=True)
    _log.warning("removed %s, left by a save that did not finish", path)


def is_step(path: pathlib.Path) -> bool:
  """Whether a path is a folder that is called as a step is."""
  return re.fullmatch(r"0|[1-9]\d{0,17}", path.name) is not None and path.is_dir()


def _is_damaged(path: pathlib.Path) -> bool:
  return re.match(r"\d+\.corrupt", path.name) is not None


def _tell_strange(directory: pathlib.Path) -> None:
  strange = [p.name for p in directory.iterdir() if not (is_step(p) or _is_damaged(p))]
  if strange:
    _log.warning("%s: no checkpoints, left alone: %s", directory, ", ".join(sorted(strange)[:10]))


def _set_aside(folder: pathlib.Path, problem: str) -> None:
  target, count = folder.with_name(f"{folder.name}.corrupt"), 1
  while target.exists():
    count += 1
    target = folder.with_name(f"{folder.name}.corrupt{count}")
  folder.rename(target)
  _log.warning("checkpoint %s: %s. Renamed to %s.", folder, problem, target.name)
