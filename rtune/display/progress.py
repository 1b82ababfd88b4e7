"""How far a phase is: a bar on a terminal, elsewhere a plain line now and then."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import SupportsFloat

from rtune.display import console

_REDRAW_S = 0.1


class Progress:
  """How far a phase is: a bar on a terminal, elsewhere a plain line now and then.

  Both say the same: position, the values last shown, images a second, time left. Plain lines come
  at the first update, then at most every `interval_s` seconds, then at `close`.

  Args:
    total: the last position.
    description: what is going on, for example "mle".
    unit: what a position counts.
    start: the position to begin at, above 0 in a resumed run.
    images_per_unit: images in one unit; 1 where the unit is an image, 0 hides the throughput.
    interval_s: seconds between plain lines.
    stream: where to write; default standard error.
    now: monotonic seconds.
  """

  def __init__(
    self,
    total: int,
    description: str,
    unit: str = "step",
    *,
    start: int = 0,
    images_per_unit: int | float = 0,
    interval_s: float = 10.0,
    stream: io.TextIOBase | None = None,
    now: Callable[[], float] = time.monotonic,
  ):
    self._total, self._unit, self._images_per_unit = total, unit, images_per_unit
    self._description, self._stream, self._now = description, stream or sys.stderr, now
    self._terminal = _is_terminal(self._stream)
    self._interval_s = _REDRAW_S if self._terminal else interval_s
    self._step, self._shown = start, {}
    self._pace = _Pace()
    self._begun = now()
    self._said_at: float | None = None
    self._open = False

  def update(self, step: int, shown: Mapping[str, SupportsFloat] | None = None) -> None:
    """Moves to `step`; `shown` (loss, reward) stays on display until it is given again."""
    if shown is not None:
      self._shown = {name: float(value) for name, value in shown.items()}
    now = self._now()
    self._pace.advance(step - self._step, now)
    self._step, self._open = step, True
    # Not `now - said >= interval`: a clock that jumps back must not silence the run.
    if self._said_at is not None and 0 <= now - self._said_at < self._interval_s:
      return
    self._said_at = now
    if self._terminal:
      console.status(self._bar(self._text()), self._stream)
    else:
      console.say(f"{self._description}: {self._text()}", stream=self._stream)

  def close(self) -> None:
    """Says where it ended and how long it took."""
    if not self._open:
      return
    self._open = False
    if self._terminal:
      console.status("", self._stream)
    took = console.duration(max(0.0, self._now() - self._begun))
    console.say(f"{self._description}: {self._text(left=False)}, took {took}", stream=self._stream)

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _bar(self, text: str) -> str:
    columns = 0
    with contextlib.suppress(AttributeError, OSError, ValueError):
      columns = os.get_terminal_size(self._stream.fileno()).columns
    done = min(1.0, self._step / self._total) if self._total else 1.0
    head = f"{self._description} {done:4.0%} "
    # One column stays free: a full line would wrap, and a wrapped line cannot be rewritten.
    room = (columns or 80) - 1
    width = min(24, room - len(head) - len(text) - 3)
    bar = f"|{'#' * round(done * width):{width}}| " if width > 4 else ""
    return (head + bar + text)[:room]

  def _text(self, *, left: bool = True) -> str:
    plural = "" if self._total == 1 else "s"
    parts = [f"{self._step}/{self._total} {self._unit}{plural}"]
    parts += [f"{name} {console.number(value)}" for name, value in self._shown.items()]
    rate = self._pace.per_second
    if rate and self._images_per_unit:
      parts.append(f"{console.number(rate * self._images_per_unit)} images/s")
    if left and self._step < self._total:
      seconds = (self._total - self._step) / rate if rate else None
      parts.append(f"{console.duration(seconds)} left")
    return ", ".join(parts)


class _Pace:
  """Units a second, older time counting half as much every 30 seconds."""

  _HALF_LIFE_S = 30.0

  def __init__(self):
    self._units = 0.0
    self._seconds = 0.0
    self._last: float | None = None

  def advance(self, units: int, now: float) -> None:
    # The first update ends the compilation, which says nothing about the pace: only start there.
    if self._last is not None:
      seconds = max(0.0, now - self._last)
      keep = 0.5 ** (seconds / self._HALF_LIFE_S)
      self._units = self._units * keep + max(0, units)
      self._seconds = self._seconds * keep + seconds
    self._last = now

  @property
  def per_second(self) -> float | None:
    """None until time has passed and something was done."""
    return self._units / self._seconds if self._units and self._seconds else None


def _is_terminal(stream: io.TextIOBase) -> bool:
  if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
    return False
  with contextlib.suppress(AttributeError, ValueError):
    return stream.isatty()
  return False
