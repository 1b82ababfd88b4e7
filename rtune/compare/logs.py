"""Lines of a log as they should have been: each step once, unreadable lines left out."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from rtune.display.logs import Row
from rtune.errors import DataError


class Log(NamedTuple):
  """What a file held: rows with "step" first, steps rising, and how many lines were unreadable."""

  rows: list[Row]
  broken: int


def read_log(path: pathlib.Path, parse: Callable[[bytes], Row | None]) -> Log:
  """Reads a log of one line a step.

  The last line may be half-written, because the run goes on or was killed; it is not counted.

  Args:
    parse: a line -> its row; None where it cannot be read.

  Raises:
    DataError: the file cannot be read, or no line of it.
  """
  try:
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.strip()]
  except OSError as error:
    raise DataError(f"{path} cannot be read: {error.strerror}.") from error
  parsed = [parse(line) for line in lines]
  torn = bool(parsed) and parsed[-1] is None and not lines[-1].endswith(b"\n")
  rows = [row for row in parsed if row is not None]
  if not rows:
    why = "no line of it can be read" if len(lines) > torn else "it is empty"
    raise DataError(f"{path} says nothing: {why}. Give a run that has logged a step.")
  return Log(rows, parsed.count(None) - torn)


def settle(rows: list[Row]) -> list[Row]:
  """Each step once, steps rising.

  A step back means that the run was resumed from there: what it had logged of later steps is not
  part of it. Lines of one step are joined.
  """
  kept: list[Row] = []
  for row in rows:
    while kept and kept[-1]["step"] > row["step"]:
      kept.pop()
    if kept and kept[-1]["step"] == row["step"]:
      kept[-1] = kept[-1] | row
    else:
      kept.append(row)
  return kept
