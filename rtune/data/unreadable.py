"""Examples that cannot be read and are left out: counted, listed, and not too many of them."""

import json
import math
import os
import pathlib
import threading

from rtune import config as configs
from rtune.data.cached import source_name
from rtune.data.source import Example, Source
from rtune.disk import parse_json, refusals
from rtune.display import console
from rtune.errors import DataError

FILE = "unreadable.jsonl"
_SHOWN = 10


def first(source: Source, skip: bool) -> Example:
  """The first example of a source; with `skip` the first that can be read."""
  for index in range(len(source) if skip else 1):
    try:
      return source[index]
    except DataError:
      if not skip:
        raise
  raise DataError(f"{source_name(source)} has no example that can be read.")


def left_out(
  data: configs.Data, name: str, source: Source, folder: pathlib.Path | None = None
) -> "Unreadable | None":
  """What takes the examples of a source that cannot be read; None where they are errors.

  Args:
    name: what messages call the source.
    folder: of the run, where they are listed; None: nowhere.
  """
  if data.on_error != "skip":
    return None
  return Unreadable(name, len(source), data.skip_at_most, data.skip_share, folder)


class Unreadable:
  """What is left out of one source; the threads of a loader share it.

  Args:
    name: what messages call the source.
    total: its number of examples.
    most, share: more than so many, or than this share of all, end the run.
    folder: of the run, where they are listed; None: nowhere.
  """

  def __init__(
    self, name: str, total: int, most: int, share: float, folder: pathlib.Path | None = None
  ):
    self._name, self._total = name, total
    self._limit = min(most, math.ceil(share * total))
    self._file = folder / FILE if folder else None
    self._problems = self._listed()
    self._lock = threading.Lock()

  def leave_out(self, index: int, error: DataError) -> None:
    """Counts and lists an example; DataError where there are too many."""
    with self._lock:
      if index in self._problems:
        return
      self._problems[index] = str(error)
      self._list(index, str(error))
      count = len(self._problems)
    if count > self._limit:
      first = "; ".join(list(self._problems.values())[:_SHOWN])
      raise DataError(
        f"{count} of {self._total} examples of {self._name} cannot be read, more than "
        f"{self._limit} (config.data.skip_at_most, config.data.skip_share). The first: {first}"
      )
    if count <= _SHOWN:
      console.warn(f"{self._name}: left out: {error}")

  def _listed(self) -> dict[int, str]:
    """Those that this run has met before."""
    if self._file is None or not self._file.is_file():
      return {}
    found = {}
    for line in self._file.read_bytes().splitlines():
      try:
        row = parse_json(line)
        if row["source"] == self._name:
          found[int(row["example"])] = str(row["problem"])
      except (ValueError, KeyError, TypeError, OverflowError):
        continue  # a line that was cut off
    return found

  def _list(self, index: int, problem: str) -> None:
    if self._file is not None:
      line = json.dumps({"source": self._name, "example": index, "problem": problem}) + "\n"
      with refusals(self._file, len(line)):
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
          os.write(descriptor, line.encode())
        finally:
          os.close(descriptor)
