"""What a person sees while rtune works: stages, warnings and tables, as plain text.

Everything goes through `say`: only process 0 prints, every line is flushed, and text is written so
that any locale and any log file can hold it. Control characters reach terminals only.
"""

import contextlib
import io
import logging
import math
import re
import sys
import threading
import time
from collections.abc import Sequence
from typing import SupportsFloat

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_process_index = 0
_warned: set[str] = set()
_status: tuple[io.TextIOBase, str] | None = None
# Loader threads warn while the loop draws. Not tqdm's lock: it stays locked after a failed write.
_lock = threading.RLock()


def start(process_index: int) -> None:
  """Says which process of a run this is (0 if never called): the others print nothing.

  What rtune's modules send to their loggers is printed here too from now on, and nowhere else:
  absl, which reads our flags, would print it a second time.
  """
  global _process_index
  _process_index = process_index
  logger = logging.getLogger("rtune")
  logger.setLevel(logging.INFO)
  logger.propagate = False
  if not any(isinstance(handler, _SayHandler) for handler in logger.handlers):
    logger.addHandler(_SayHandler())


def say(text: str, *, stream: io.TextIOBase | None = None) -> None:
  """Prints lines to `stream` (default: standard error), above the status line if there is one."""
  if _process_index:
    return
  stream = stream or sys.stderr
  with _lock:
    shown = _status
    if shown:
      _write(shown[0], _blank(shown[1]))
    _write(stream, _printable(text, stream) + "\n")
    if shown:
      _write(*shown)


def status(text: str, stream: io.TextIOBase) -> None:
  """Rewrites the last line of a terminal; it stays below what `say` prints. "" takes it away."""
  global _status
  if _process_index:
    return
  text = _printable(text, stream)
  with _lock:
    _write(stream, (_blank(_status[1]) if _status else "") + text)
    _status = (stream, text) if text else None


def stage(text: str) -> None:
  """Announces the next stage of the run, with the time of day."""
  say(f"[{time.strftime('%H:%M:%S')}] {text}")


def warn(text: str) -> None:
  """Prints a warning."""
  say(f"warning: {text}")


def warn_once(key: str, text: str) -> None:
  """Prints a warning the first time this process meets `key`; any thread may call it."""
  with _lock:
    if key in _warned:
      return
    _warned.add(key)
  warn(text)


def table(rows: Sequence[Sequence[object]], columns: Sequence[str]) -> str:
  """Rows as aligned plain text under `columns`: first column to the left, the others to the right.

  Floats are shown as `number` shows them, None as "-".

  Raises:
    ValueError: a row that has not one cell for each column.
  """
  lines = [list(columns), *([_cell(value) for value in row] for row in rows)]
  for line in lines:
    if len(line) != len(columns):
      raise ValueError(f"a row of {len(line)} cells in a table of {len(columns)} columns: {line}")
  widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
  lines.insert(1, ["-" * width for width in widths])
  return "\n".join(
    "  ".join(
      cell.rjust(width) if place else cell.ljust(width)
      for place, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in lines
  )


def number(value: SupportsFloat) -> str:
  """A value in a few characters: 0.512, 12.35, 310.4, 2.0e-05; whole numbers in full."""
  if isinstance(value, int):
    return str(value)
  value = float(value)
  size = abs(value)
  if not math.isfinite(value):
    return str(value)
  if value and not 1e-3 <= size < 1e6:
    return f"{value:.1e}"
  return f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"


def duration(seconds: int | float | None) -> str:
  """Seconds as 0:42, 3:07, 1:02:03 or 2d 3h; "?" where they are not known."""
  if seconds is None or not 0 <= seconds < 1e9:
    return "?"
  minutes, second = divmod(round(seconds), 60)
  hours, minute = divmod(minutes, 60)
  if hours >= 24:
    return f"{hours // 24}d {hours % 24}h"
  return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class _SayHandler(logging.Handler):
  """Prints log records as `say` prints, so that they do not tear the progress bar."""

  def emit(self, record: logging.LogRecord) -> None:
    level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
    say(level + self.format(record))


def _cell(value: object) -> str:
  if value is None:
    return "-"
  return value if isinstance(value, str) else number(value)


def _printable(text: str, stream: io.TextIOBase) -> str:
  """`text` without control characters, in what the stream's encoding can hold."""
  encoding = getattr(stream, "encoding", None) or "utf-8"
  return _CONTROL.sub("?", text).encode(encoding, "backslashreplace").decode(encoding)


def _blank(text: str) -> str:
  return "\r" + " " * len(text) + "\r"


def _write(stream: io.TextIOBase, text: str) -> None:
  # A reader who went away (closed pipe, lost terminal) must not end the training, nor may a signal
  # handler that prints in the middle of a write (RuntimeError: reentrant call).
  with contextlib.suppress(OSError, ValueError, RuntimeError):
    stream.write(text)
    stream.flush()
