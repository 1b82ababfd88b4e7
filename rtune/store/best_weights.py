"""The weights of a phase that were best so far, beside the last: weights/<phase>_best_<step>.

Number and weights are one file, and its name has its step: a new one is written and listed in the
manifest before the old one goes, so that a kill leaves the old one, the new one, or both. A file
that no manifest lists is of a save that was cut short, whose evaluation will come again.
"""

import json
import pathlib
from typing import Any, NamedTuple

import safetensors

from rtune.errors import StorageError
from rtune.store import manifest, run_files, weights

_RECORD = "best"  # one entry: safetensors writes several in any order
_DAMAGED = (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError)


class BestWeights(NamedTuple):
  """A file of weights.

  Attributes:
    step: of the log, after which they were evaluated.
    number: what they were judged by, such as "val/AR".
    value: of it.
  """

  path: pathlib.Path
  step: int
  number: str
  value: float


def find(folder: pathlib.Path, phase: str) -> BestWeights | None:
  """The best weights that a phase has had in a workdir; None where it has kept none.

  Raises:
    StorageError: they were altered since they were written.
  """
  listed = [path for path in _files(folder, phase) if manifest.lists(path)]
  return _read(listed[-1]) if listed else None


def save(
  folder: pathlib.Path, phase: str, params: Any, step: int, number: str, value: float
) -> BestWeights:
  """Writes weights that are better than those before, which then go.

  Args:
    params: nested dicts of arrays on the host.

  Raises:
    StorageError: the file could not be written; those before stay.
  """
  path = run_files.weights_path(folder, f"{phase}_best_{step}")
  record = json.dumps({"step": step, "number": number, "value": value})
  weights.save_weights(path, params, {_RECORD: record})
  manifest.add(path)
  tidy(folder, phase)
  return BestWeights(path, step, number, value)


def tidy(folder: pathlib.Path, phase: str) -> None:
  """Leaves the newest whole file alone; others are of saves that were cut short."""
  files = _files(folder, phase)
  newest = next((path for path in reversed(files) if manifest.lists(path)), None)
  for path in files:
    if path != newest:
      path.unlink()
      manifest.drop(path)


def drop(folder: pathlib.Path, phase: str) -> None:
  """Forgets the best weights of a phase."""
  for path in _files(folder, phase):
    path.unlink()
    manifest.drop(path)


def _files(folder: pathlib.Path, phase: str) -> list[pathlib.Path]:
  """By step, rising."""
  pattern = run_files.weights_path(folder, f"{phase}_best_*")
  found = {path: path.stem.rpartition("_")[2] for path in pattern.parent.glob(pattern.name)}
  return sorted((path for path in found if found[path].isdigit()), key=lambda p: int(found[p]))


def _read(path: pathlib.Path) -> BestWeights:
  run_files.whole(path)
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      record = json.loads(file.metadata()[_RECORD])
    return BestWeights(path, int(record["step"]), str(record["number"]), float(record["value"]))
  except _DAMAGED as error:
    raise StorageError(
      f"weights {path} do not say what they were judged by ({error}). Delete the file: the run "
      "keeps others when it goes on."
    ) from error
