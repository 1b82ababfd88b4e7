"""How fast a run goes, from its log as it grows: whole steps, with all that the loop does."""

import itertools
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rtune.disk import parse_json

_LOG = "metrics.jsonl"
_PARTS = ("data", "sample", "score", "update")  # of a step, in the log under time/


class Line(NamedTuple):
  """A line of the log, and when it was there, in seconds of a clock that only rises."""

  values: Mapping[str, float]
  seen: float

  @property
  def phase(self) -> str:
    return "reward" if "time/sample" in self.values else "mle"

  def seconds(self, *parts: str) -> float:
    return sum(float(self.values.get(f"time/{part}", 0.0)) for part in parts)


class Follower:
  """Notes when each line of a run's log appears; `tick` is to be called often."""

  def __init__(self, workdir: pathlib.Path):
    self._path = workdir / _LOG
    self._size, self._seen = 0, []

  def tick(self) -> None:
    """Looks whether there is more."""
    try:
      size = self._path.stat().st_size
    except FileNotFoundError:
      return
    if size != self._size:
      self._size = size
      more = self._path.read_bytes().count(b"\n") - len(self._seen)
      self._seen += [time.monotonic()] * more

  def lines(self) -> list[Line]:
    """All so far."""
    if not self._seen:
      return []
    texts = self._path.read_bytes().splitlines()
    return [Line(parse_json(text), seen) for text, seen in zip(texts, self._seen, strict=False)]


def summarize(lines: Sequence[Line]) -> dict[str, dict[str, float | None]]:
  """Of each phase what its steps take, after those of its first line, which compile.

  Intervals with an evaluation in them are left out.

  Returns:
    Of each phase `steps`, `step_seconds` (on the wall), `data_share` (of them, waiting for data),
    `rest_share` (of them, in no part that the log knows), `compile_seconds` (what the steps of the
    first line took longer); None where too few lines say.
  """
  found = {}
  for phase in dict.fromkeys(line.phase for line in lines):
    own = [line for line in lines if line.phase == phase]
    pairs = [(a, b) for a, b in itertools.pairwise(own) if not b.seconds("eval")]
    steps = sum(b.values["step"] - a.values["step"] for a, b in pairs)
    wall = sum(b.seen - a.seen for a, b in pairs)
    about: dict[str, float | None] = {
      "steps": float(steps),
      "step_seconds": None,
      "data_share": None,
    }
    about |= {"rest_share": None, "compile_seconds": None}
    if steps and wall > 0:
      parts = sum(b.seconds(*_PARTS) for _, b in pairs)
      before = [line.values["step"] for line in lines[: lines.index(own[0])]]
      first = own[0].values["step"] - (before[-1] if before else 0)  # the log counts on
      about["step_seconds"] = wall / steps
      about["data_share"] = sum(b.seconds("data") for _, b in pairs) / wall
      about["rest_share"] = max(0.0, 1 - parts / wall)
      about["compile_seconds"] = own[0].seconds(*_PARTS) - first * parts / steps
    found[phase] = about
  return found
