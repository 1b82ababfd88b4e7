"""A tracker in a thread of its own, so that none can stop a run or slow it down."""

import contextlib
import pathlib
import queue
import threading
from collections.abc import Callable, Mapping

from rtune.display import console
from rtune.display.trackers.tracker import Session, Tracker, with_aliases

_WAITING = 1000  # lines of the log and names of pictures that wait for a slow tracker
_PARTING_S = 15.0  # at the end of a run, for what still waits
_LONGEST = 300  # characters of somebody's error

_Call = Callable[[Tracker], None]


class Background:
  """Opens a tracker and feeds it, all in a daemon thread.

  One that raises, or has not taken what waits for it, costs one warning and gets nothing any more.

  Args:
    name: what messages call it.
    open_run: session -> the tracker; it may take its time.
    session: what it is told of the run.
    remember: gets the id of the tracker's run, in the thread.
    waiting: entries that wait at most.
    parting_s: seconds that `close` waits for them.
  """

  def __init__(
    self,
    name: str,
    open_run: Callable[[Session], Tracker],
    session: Session,
    remember: Callable[[str], None],
    *,
    waiting: int = _WAITING,
    parting_s: float = _PARTING_S,
  ):
    self._name, self._parting_s = name, parting_s
    self._calls: queue.Queue[_Call | None] = queue.Queue(waiting)
    self._given_up = threading.Event()
    arguments = open_run, session, remember
    self._thread = threading.Thread(
      target=self._work, args=arguments, name=f"tracker {name}", daemon=True
    )
    self._thread.start()

  def numbers(self, step: int, values: Mapping[str, float]) -> None:
    given = with_aliases(values)
    self._put(lambda tracker: tracker.numbers(step, given))

  def picture(self, step: int, name: str, path: pathlib.Path) -> None:
    self._put(lambda tracker: tracker.picture(step, name, path))

  def close(self) -> None:
    """Waits a little for what is on its way, then leaves the tracker to itself."""
    self._put(None)
    if self._given_up.is_set():
      return
    self._thread.join(self._parting_s)
    if self._thread.is_alive():
      self._give_up(f"it has not taken all within {self._parting_s:g} s after the end")

  def _put(self, call: _Call | None) -> None:
    if self._given_up.is_set():
      return
    try:
      self._calls.put_nowait(call)
    except queue.Full:
      self._give_up(f"{self._calls.maxsize} entries wait for it")

  def _work(
    self,
    open_run: Callable[[Session], Tracker],
    session: Session,
    remember: Callable[[str], None],
  ) -> None:
    try:
      tracker = open_run(session)
      remember(tracker.id)
      while (call := self._calls.get()) is not None and not self._given_up.is_set():
        call(tracker)
      if not self._given_up.is_set():
        tracker.close()
    except BaseException as error:  # nobody above this thread could take it
      self._give_up(repr(error))

  def _give_up(self, why: str) -> None:
    self._given_up.set()
    with contextlib.suppress(queue.Empty):  # let go of what waits
      while True:
        self._calls.get_nowait()
    with contextlib.suppress(queue.Full):  # and of the thread, should it wait for more
      self._calls.put_nowait(None)
    short = " ".join(why.split())[:_LONGEST]
    console.warn_once(
      f"tracker {self._name} {id(self)}",
      f"the tracker {self._name} gets nothing from here on: {short}. The run goes on; its log has "
      "everything.",
    )
