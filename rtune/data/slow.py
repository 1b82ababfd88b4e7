"""Reads that take very long are named: a run that waits for a dead disk would say nothing."""

import contextlib
import threading
import time
from collections.abc import Iterator

from rtune.display import console

SLOW_S = 60.0  # a read that takes longer is told, once, and again when it is done


class SlowReads:
  """The reads of the threads of a loader."""

  def __init__(self):
    self._running: dict[int, tuple[str, float]] = {}
    self._told: set[int] = set()

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

  def _watch(self, stop: threading.Event) -> None:
    while not stop.wait(SLOW_S / 4):
      for thread, (what, begun) in list(self._running.items()):
        waited = time.monotonic() - begun
        if waited > SLOW_S and thread not in self._told:
          self._told.add(thread)
          console.warn(f"{what} has been read for {waited:.0f} s and is not done; training waits.")
