"""A run's record on disk.

`metrics.jsonl` is the truth: one JSON object a step, "step" first, steps rising. `metrics.csv`, the
TensorBoard events and other trackers (rtune/display/trackers) say the same. Names that begin with
`TIME` ("time/") are wall-clock values: they differ between two runs of one command. Everything else
is bitwise equal on CPU, whether the run was killed and resumed or not.

JSON has no NaN and no infinity: such values are the strings "NaN", "Infinity" and "-Infinity",
which `float()` reads; `read_metrics` gives them back as floats.
"""

import csv
import io
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import SupportsFloat

from rtune.disk import FULL, free_bytes, parse_json, refusals, write_whole
from rtune.display import console
from rtune.display.tensorboard import Events
from rtune.display.trackers.tracker import Follower
from rtune.errors import StorageError, UsageError

TIME = "time/"
JSONL = "metrics.jsonl"
CSV = "metrics.csv"
TENSORBOARD = "tensorboard"
# One line of the log: "step", an int, and the values of that step.
Row = dict[str, int | float]
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def read_metrics(workdir: str | os.PathLike, *, times: bool = True) -> list[Row]:
  """The lines of a run's log, also while it runs; [] where there is none. "step" is an int.

  With `times=False` wall-clock values are left out: what remains is the same for the same command.
  """
  path = pathlib.Path(workdir) / JSONL
  if not path.exists():
    return []
  with open(path, "rb") as file:
    rows = [row for row in map(parse_line, file) if row is not None]
  if times:
    return rows
  return [{name: v for name, v in row.items() if not name.startswith(TIME)} for row in rows]


class MetricLog:
  """Writes `metrics.jsonl`, `metrics.csv` and TensorBoard events; each write is flushed.

  Values for the step written last join its line, so every step has one line. A run that resumes
  drops all later lines, and the half-written one that a kill may have left. To lose none, write a
  step's metrics before its checkpoint is committed (and call `sync` first, where the machine
  itself may go away).

  Args:
    workdir: the run's folder, made if it is missing.
    resume_step: the step the training state comes from; later lines are dropped. -1: a new run.
    process_index: only process 0 writes; in the others every call does nothing.
    tensorboard: whether to write TensorBoard events.

  Raises:
    UsageError: the folder cannot be written to.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    resume_step: int,
    process_index: int,
    tensorboard: bool = True,
  ):
    self._silent = process_index != 0
    if self._silent:
      return
    self._workdir = pathlib.Path(workdir)
    try:
      self._workdir.mkdir(parents=True, exist_ok=True)
      _drop_after(self._workdir / JSONL, resume_step)
      self._jsonl, self._csv = _Lines(self._workdir / JSONL), _Lines(self._workdir / CSV)
      rows = read_metrics(workdir)
      self._columns = list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
      self._last: Row = rows[-1] if rows else {"step": -1}
      self._csv.replace(_csv_text(self._columns, rows, header=True))
    except OSError as error:
      if error.errno in FULL:
        with refusals(self._workdir / JSONL):
          raise
      raise UsageError(
        f"{workdir}: cannot write the log there ({error}); choose another --workdir"
      ) from error
    self._events = Events(self._workdir / TENSORBOARD, resume_step + 1) if tensorboard else None
    self._followers: list[Follower] = [self._events] if self._events else []

  def follow(self, follower: Follower) -> None:
    """From here on it gets every number and every picture as well."""
    self._followers.append(follower)

  def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
    """Adds values, each a scalar on the host, to the line of `step`.

    Raises:
      ValueError: an earlier step than the last one written, or a value named "step".
      StorageError: the disk refused the line.
    """
    if self._silent:
      return
    last = self._last["step"]
    if step < last or "step" in values:
      raise ValueError(f"step {step} after step {last}, or a metric named step: {list(values)}")
    joins = step == last
    row = (self._last if joins else {}) | {"step": int(step)}
    row |= {name: float(value) for name, value in values.items()}
    try:
      self._write_row(row, joins)
    except OSError as error:
      raise StorageError(
        f"{self._workdir}: cannot write the log ({error}; {free_bytes(self._workdir):,} bytes "
        "free); make room there and start again, the same command resumes the run"
      ) from error
    self._last = row
    for follower in self._followers:
      follower.numbers(step, {name: row[name] for name in values})

  def picture(self, step: int, name: str, path: pathlib.Path) -> None:
    """Passes on a PNG in the workdir that belongs to `step`."""
    for follower in () if self._silent else self._followers:
      follower.picture(step, name, path)

  def sync(self) -> None:
    """Waits until the lines written are on the disk itself, where a power cut cannot reach them."""
    if not self._silent:
      self._jsonl.sync()

  def close(self) -> None:
    if self._silent:
      return
    self._jsonl.close()
    self._csv.close()
    for follower in self._followers:
      follower.close()

  def __enter__(self) -> "MetricLog":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _write_row(self, row: Row, joins: bool) -> None:
    new = [name for name in row if name not in self._columns]
    self._columns += new
    if joins:
      self._jsonl.replace_last(_json_text(row))
    else:
      self._jsonl.append(_json_text(row))
    # A header cannot grow in place: then the CSV is made anew from the JSON lines.
    if joins or new:
      self._csv.replace(_csv_text(self._columns, read_metrics(self._workdir), header=True))
    else:
      self._csv.append(_csv_text(self._columns, [row], header=False))


class _Lines:
  """A file that grows by whole lines; any other change happens at once or not at all."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._file = open(path, "ab", buffering=0)  # noqa: SIM115

  def append(self, line: str) -> None:
    data, end = line.encode(), self._file.seek(0, os.SEEK_END)
    if self._file.write(data) != len(data):
      self._file.truncate(end)
      raise OSError("the disk is full")

  def replace_last(self, line: str) -> None:
    content = self._path.read_bytes()
    self.replace(content[: content.rfind(b"\n", 0, -1) + 1].decode() + line)

  def replace(self, text: str) -> None:
    write_whole(self._path, text, sync=True)
    self._file.close()
    self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115

  def sync(self) -> None:
    os.fsync(self._file.fileno())

  def close(self) -> None:
    self._file.close()


def parse_line(line: bytes) -> Row | None:
  """One line of the log; None where it is torn or not a line of ours."""
  if not line.endswith(b"\n"):
    return None
  try:
    row = parse_json(line)
    return {name: v if name == "step" else float(v) for name, v in row.items()} | {
      "step": int(row["step"])
    }
  except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
    return None


def _drop_after(path: pathlib.Path, step: int) -> None:
  """Leaves the readable lines up to `step`; the file changes at once or not at all."""
  if not path.exists():
    return
  lines = path.read_bytes().splitlines(keepends=True)
  rows = [parse_line(line) for line in lines]
  kept = [line for line, row in zip(lines, rows, strict=True) if row and row["step"] <= step]
  if None in rows[:-1]:
    console.warn(f"{path}: dropped {rows[:-1].count(None)} unreadable lines")
  if len(kept) < len(lines):
    write_whole(path, b"".join(kept), sync=True)


def _json_text(row: Row) -> str:
  values = {name: v if math.isfinite(v) else _NOT_FINITE[str(v)] for name, v in row.items()}
  return json.dumps(values, allow_nan=False) + "\n"


def _csv_text(columns: Sequence[str], rows: Sequence[Row], *, header: bool) -> str:
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
  if header:
    writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()
