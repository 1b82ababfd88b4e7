"""Processes that call host rewards (`reward.workers`), several calls at once.

Processes, for plain Python holds the interpreter's lock, and what hangs or crashes can be ended.
They are started anew, not forked: a fork of a process that runs jax may hang in a lock that one of
its threads held. Nor by multiprocessing, which would run the user's main script again in each.
"""

import collections
import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from typing import Any

from rtune.config import names
from rtune.errors import UsageError
from rtune.training.worker import PARTS, READY, Answer, Reward

LATE, DIED = "late", "died"  # what else may come of a call, beside the kinds of worker.py
_LAST_S = 5.0  # from the end of a process's pipe to its own
_START = "import sys; sys.path[:] = {path!r}; from rtune.training.worker import serve; serve({fd})"
# Those alive: training and evaluation of one reward share theirs.
_open: weakref.WeakValueDictionary[Any, "Workers"] = weakref.WeakValueDictionary()


def shared(count: int, rewards: Sequence[Reward]) -> "Workers":
  """So many processes for these rewards; the same ones for all who ask while somebody has them.

  Raises:
    UsageError: the arguments of a reward cannot be sent to another process.
  """
  key = count, _pickled(list(rewards), "The arguments of the reward")
  found = _open.get(key)
  if found is None:
    found = _open[key] = Workers(*key)
  return found


@contextlib.contextmanager
def ended() -> Iterator[None]:
  """No process is left behind it."""
  try:
    yield
  finally:
    for workers in list(_open.values()):
      workers.end()


class Workers:
  """Up to `count` processes; they start with the first calls, and end with this object."""

  def __init__(self, count: int, rewards: bytes):
    self._count, self._rewards = count, rewards
    self._running: list[_Worker] = []
    weakref.finalize(self, _end, self._running)

  def end(self) -> None:
    """Ends the processes; a later call starts others."""
    _end(self._running)

  def call(
    self, place: int, inputs: Sequence[tuple[Any, Any]], timeout_s: float, stop_at_error: bool
  ) -> list[Answer]:
    """Answers for pairs of a prediction and its truth, in their order.

    Args:
      place: of the reward among those that were given.
      timeout_s: of one call, whose process is ended then; 0 = no limit.
      stop_at_error: nothing behind a call that fails is begun, so the last answer is an error.

    Raises:
      UsageError: a process cannot load the reward, or the inputs cannot be sent.
    """
    todo, found = collections.deque(range(len(inputs))), {}
    try:
      while todo or any(worker.job is not None for worker in self._running):
        self._start(len(todo), inputs[0])
        for worker in self._running:
          if todo and worker.ready and worker.job is None:
            pair = _pickled(inputs[todo[0]], "What the reward judges")
            worker.give(todo.popleft(), pickle.dumps((place, pair)), timeout_s)
        for job, answer in self._answers():
          found[job] = answer
          if stop_at_error and answer.kind != PARTS:
            todo.clear()
    except BaseException:
      self.end()  # what they still work on is nobody's
      raise
    return [found[job] for job in sorted(found)]

  def _start(self, calls: int, example: tuple[Any, Any]) -> None:
    busy = sum(worker.job is not None for worker in self._running)
    while len(self._running) < min(self._count, busy + calls):
      pair = _pickled(example, "What the reward judges")
      self._running.append(_Worker(pickle.dumps((names.loaded_files(), self._rewards, pair))))

  def _answers(self) -> Iterator[tuple[int, Answer]]:
    """Waits until something has happened; what has come of calls."""
    waiting = {one.pipe: one for one in self._running if one.job is not None or not one.ready}
    ends = [one.deadline for one in waiting.values() if one.deadline]
    timeout = max(min(ends) - time.monotonic(), 0) if ends else None
    for pipe in connection.wait(list(waiting), timeout):
      worker = waiting.pop(pipe)
      job, answer = worker.take()
      if answer.kind == DIED:
        self._running.remove(worker)
      if job is not None:
        yield job, answer
      elif answer.kind != READY:
        raise UsageError(f"{answer.text.rstrip('.')}. config.reward.workers=0 does without.")
    for worker in waiting.values():
      if worker.deadline and time.monotonic() >= worker.deadline:
        self._running.remove(worker)
        worker.end()
        yield worker.job, Answer(LATE)


class _Worker:
  """One process: what it does, and until when."""

  def __init__(self, prepared: bytes):
    self.ready, self.job, self.deadline = False, None, 0.0
    self.pipe, theirs = multiprocessing.Pipe()
    program = _START.format(path=sys.path, fd=theirs.fileno())
    self._process = subprocess.Popen(
      [sys.executable, "-c", program],
      stdin=subprocess.DEVNULL,
      pass_fds=[theirs.fileno()],
      start_new_session=True,  # a Ctrl-C in the terminal is for the run, which ends this then
      env={**os.environ, "JAX_PLATFORMS": "cpu"},  # the accelerator's memory is the run's
    )
    theirs.close()
    with contextlib.suppress(BrokenPipeError):  # it has ended already; `take` says so
      self.pipe.send_bytes(prepared)

  def give(self, job: int, message: bytes, timeout_s: float) -> None:
    """Sends a call."""
    self.job, self.deadline = job, time.monotonic() + timeout_s if timeout_s else 0.0
    with contextlib.suppress(BrokenPipeError):
      self.pipe.send_bytes(message)

  def take(self) -> tuple[int | None, Answer]:
    """What has come of the call, or of the start (None)."""
    job, self.job, self.deadline = self.job, None, 0.0
    try:
      answer: Answer = pickle.loads(self.pipe.recv_bytes())
    except (EOFError, OSError):
      with contextlib.suppress(subprocess.TimeoutExpired):
        self._process.wait(_LAST_S)
      return job, Answer(DIED, text=f"a worker process has ended ({self.end()})")
    self.ready = answer.kind != DIED
    return job, answer

  def end(self) -> str:
    """Ends the process and what it has started; how it ended."""
    self.pipe.close()
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, signal.SIGKILL)
    code = self._process.wait()
    return f"{signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _end(running: list[_Worker]) -> None:
  while running:
    running.pop().end()


def _pickled(value: Any, what: str) -> bytes:
  try:
    # From protocol 5 on arrays that cannot be written stay so.
    return pickle.dumps(value, protocol=5)
  except Exception as error:
    raise UsageError(
      f"{what} cannot be sent to another process ({names.one_line(error)}); set "
      "config.reward.workers=0."
    ) from error
