"""Reads that take very long are named, and one that hangs ends the run.

A run that waits for a dead disk would say nothing and wait for ever. What is slow must not end it:
the limit is for one example, not for a batch, and time in which the process itself was stopped
(SIGSTOP, a laptop that sleeps) does not count.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from rtune.display import console
from rtune.errors import DataError

SLOW_S = 60.0  # a read that takes longer is told, once, and again when it is done
TICKS = 100  # looks at a read within its limit

T = TypeVar("T")


class SlowReads:
  """The reads of the threads of a loader.

  Args:
    limit_s: seconds that one example may take; 0 = no limit.
  """

  def __init__(self, limit_s: float = 0.0):
    self._limit_s = limit_s
    self._running: dict[int, tuple[str, float]] = {}
    self._told: set[int] = set()
    self._over: DataError | None = None

  @contextlib.contextmanager
  def reading(self, what: str) -> Iterator[None]:
    """Around one read, in the thread that does it."""
    me = threading.get_ident()
    begun = time.monotonic()
    self._running[me] = what, begun
    try:
      yield
    finally:
      del self._running[me]
      if me in self._told:
        self._told.discard(me)
        console.warn(f"{what} is read after {time.monotonic() - begun:.0f} s.")

  @contextlib.contextmanager
  def watching(self) -> Iterator[None]:
    """Within it a thread looks at the reads that run."""
    stop = threading.Event()
    thread = threading.Thread(target=self._watch, args=(stop,), name="slow-reads", daemon=True)
    thread.start()
    try:
      yield
    finally:
      stop.set()
      thread.join()

  def limited(self, read: Callable[[int], T]) -> Callable[[int], T]:
    """`read` with the limit for each example of it: DataError where one takes longer.

    It runs in a thread of its own, since nothing can end a read that hangs in the operating system.
    That thread is left to itself, and does not hold back the end of the process.
    """
    if not self._limit_s:
      return read

    def within(step: int) -> T:
      found: Future = Future()

      def work() -> None:
        try:
          found.set_result(read(step))
        except BaseException as error:
          found.set_exception(error)

      thread = threading.Thread(target=work, name="read", daemon=True)
      thread.start()
      self._wait(thread)
      return found.result()

    return within

  def _wait(self, thread: threading.Thread) -> None:
    """Until a read is done; DataError when an example of it, or of another thread, hangs."""
    last, ticks = None, 0
    while True:
      thread.join(self._limit_s / TICKS)
      if not thread.is_alive():
        return
      running = self._running.get(thread.ident)
      # Ticks of this process, not the clock: a process that was stopped has not waited.
      last, ticks = running, ticks + 1 if running == last else 0
      if running is not None and ticks > TICKS:
        self._over = self._over or DataError(
          f"{running[0]} has been read for more than {self._limit_s:g} s (config.data.timeout_s). "
          "Look at the disk or server that it comes from; the same command goes on from the last "
          "checkpoint."
        )
      if self._over:
        raise self._over

  def _watch(self, stop: threading.Event) -> None:
    while not stop.wait(SLOW_S / 4):
      for thread, (what, begun) in list(self._running.items()):
        waited = time.monotonic() - begun
        if waited > SLOW_S and thread not in self._told:
          self._told.add(thread)
          console.warn(f"{what} has been read for {waited:.0f} s and is not done; training waits.")
