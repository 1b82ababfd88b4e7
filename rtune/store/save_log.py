"""What orbax and its threads print about a save that failed: into a file, off the screen.

What fails is raised again and told in one line; beside it come dozens of stack traces, through
three channels: absl's logger, asyncio's logger, and Python's hooks for exceptions that nobody
catches, in which callbacks from C++ end. Many come when the failure has long been told, some when
Python ends: so what takes them stays. It lets everything pass that is not of a save.
"""

import contextlib
import logging
import os
import pathlib
import sys
import traceback

_LOGGERS = ("absl", "asyncio")
_ORBAX = f"{os.sep}orbax{os.sep}"


class SaveLog:
  """Takes the stack traces from `start` on; the file is made at the first one.

  Args:
    path: the file; its name without the ending is the folder that is saved into.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    # Futures of tensorstore have no stack: of them the message names the folder.
    self._marks = _ORBAX, str(path.with_suffix(""))

  def start(self) -> None:
    """Takes the place of the one before, if there is one."""
    for name in _LOGGERS:
      logger = logging.getLogger(name)
      for other in logger.filters[:]:
        if isinstance(getattr(other, "__self__", None), SaveLog):
          logger.removeFilter(other)
      logger.addFilter(self._filter)
    before = getattr(sys.excepthook, "__self__", None)
    own = isinstance(before, SaveLog)
    self._before = before._before if own else (sys.excepthook, sys.unraisablehook)
    sys.excepthook, sys.unraisablehook = self._uncaught, self._unraisable

  def _filter(self, record: logging.LogRecord) -> bool:
    told = record.pathname
    if record.name == "asyncio":
      trace = traceback.format_exception(*record.exc_info) if record.exc_info else ()
      told = "".join((record.getMessage(), *trace))
    if not any(mark in told for mark in self._marks):
      return True
    if record.levelno >= logging.WARNING:
      self._write(logging.Formatter("%(asctime)s %(name)s: %(message)s").format(record))
    return False

  def _uncaught(self, kind, error, trace) -> None:
    if not self._takes(error):
      self._before[0](kind, error, trace)

  def _unraisable(self, found) -> None:
    if not self._takes(found.exc_value):
      self._before[1](found)

  def _takes(self, error: BaseException | None) -> bool:
    """Writes what a callback says whose loop has ended with the save."""
    if not isinstance(error, RuntimeError) or str(error) != "Event loop is closed":
      return False
    self._write("".join(traceback.format_exception(error)))
    return True

  def _write(self, text: str) -> None:
    # On a full disk there is no room for this either, and at Python's end no `open`.
    with contextlib.suppress(OSError, NameError), open(self._path, "a") as file:
      file.write(text.rstrip() + "\n")
