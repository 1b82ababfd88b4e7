"""One figure of the benchmark, and many of them as a table."""

from collections.abc import Sequence
from typing import NamedTuple

from rtune.display import console
from rtune.plan.counts import Floor


class Row(NamedTuple):
  """What was measured beside the least it can be.

  Attributes:
    part: of the benchmark.
    figure: what was timed.
    seconds: median over repeats.
    amount: units done in that time, and `unit` what they are.
    floor: from counted operations and bytes and this machine's own rates; None where nothing
      is counted.
    note: a ratio or share that belongs to it.
  """

  part: str
  figure: str
  seconds: float
  amount: float
  unit: str
  floor: Floor | None = None
  note: str = ""

  def as_dict(self) -> dict[str, object]:
    """For --json."""
    return {
      "part": self.part,
      "figure": self.figure,
      "seconds": self.seconds,
      "rate": self.amount / self.seconds,
      "unit": f"{self.unit}/s",
      "floor_seconds": self.floor.seconds if self.floor else None,
      "binds": self.floor.binds if self.floor else None,
      "times_floor": self.seconds / self.floor.seconds if self.floor else None,
      "note": self.note,
    }


def as_table(rows: Sequence[Row]) -> str:
  """The rows, milliseconds and rates side by side."""
  cells = [
    [
      row.part,
      row.figure,
      1e3 * row.seconds,
      f"{console.number(row.amount / row.seconds)} {row.unit}/s",
      1e3 * row.floor.seconds if row.floor else None,
      row.seconds / row.floor.seconds if row.floor else None,
      row.floor.binds if row.floor else None,
      row.note,
    ]
    for row in rows
  ]
  columns = ["part", "figure", "ms", "rate", "floor ms", "times floor", "binds", "note"]
  return console.table(cells, columns)
