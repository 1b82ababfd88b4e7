"""Rewards in plain Python: marked with `@on_host`, run between two device programs.

Dimension key:
  B: batch of images
  S: samples for each image
  T: decisions of an answer
"""

import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rtune.display import console
from rtune.errors import RewardError, UsageError
from rtune.rewards.mark import host_options
from rtune.training.returned import parts_of, user_traceback
from rtune.training.worker import PARTS, RAISED, REFUSED, USAGE, Answer
from rtune.training.workers import DIED, Workers

_MOST_HANGING = 64


class _TimedOut(Exception):
  """A call has taken too long."""


class Helpers(NamedTuple):
  """Processes that call rewards, and the place of one among them."""

  workers: Workers
  place: int


class HostReward:
  """Calls a host reward on [B, S] predictions: checks what comes back, holds to a time limit.

  Args:
    fn: the marked function; `name` is what the user calls it.
    args: its keyword arguments.
    skip_errors: an exception invalidates the sample instead of ending the run.
    timeout_s: seconds for one call; 0 = no limit.
    gather: lists of all processes as one, where several of them share the calls: then each has the
      same parts, since what follows is one program of all.
    helpers: make the calls, several at once; None: they are made here, as those of a batched reward
      always are.
  """

  def __init__(
    self,
    fn: Callable,
    name: str,
    args: Mapping[str, Any],
    skip_errors: bool,
    timeout_s: float,
    gather: Callable[[list], list] = list,
    helpers: Helpers | None = None,
  ):
    self._fn, self._name, self._args = fn, name, dict(args)
    self._batched = host_options(fn).batched
    self._skip_errors, self._timeout_s = skip_errors, timeout_s
    self._gather, self._helpers = gather, helpers
    self._process = os.getpid()
    self._hanging: list[threading.Thread] = []  # of calls that were given up
    self._shapes: dict[str, tuple[int, ...]] = {}  # of each part, once one has been seen

  def __call__(self, predictions: Any, truths: Any) -> dict[str, np.ndarray]:
    """Trees of numpy arrays [B, S, ...] and [B, ...] -> parts [B, S], and credit [B, S, T].

    NaN where there is none. The parts are those of the first call that gave any; others are a
    UsageError, since they would compile the update anew each time, and differ between processes.
    """
    batch, samples = jax.tree.leaves(predictions)[0].shape[:2]
    pairs = [(b, s) for b in range(batch) for s in range(samples)]
    # Copies that cannot be written: a reward that edits its input must not change the next one's.
    ones = [jax.tree.map(lambda x, at=at: _read_only(x[at]), predictions) for at in pairs]
    own = [jax.tree.map(lambda x, b=b: _read_only(x[b]), truths) for b, _ in pairs]
    if self._batched:
      results = self._call(ones, own)
      if results is None:
        results = [None] * len(pairs)
      if not isinstance(results, (Sequence, np.ndarray, jax.Array)) or len(results) != len(pairs):
        size = len(results) if hasattr(results, "__len__") else type(results).__name__
        raise UsageError(
          f"{self._name} must return one result for each of {len(pairs)} predictions; it returned "
          f"{size}."
        )
      rows = [parts_of(result, self._name) for result in results]
    elif self._helpers:
      workers, place = self._helpers
      both, stops = list(zip(ones, own, strict=True)), not self._skip_errors
      answers = workers.call(place, both, self._timeout_s, stops)
      rows = [self._answered(answer) for answer in answers]
    else:
      both = zip(ones, own, strict=True)
      rows = [parts_of(self._call(*pair), self._name) for pair in both]
    self._settle_parts(rows)
    table = {}
    for key, shape in (self._shapes or {"reward": ()}).items():
      none = np.full(shape, np.nan, np.float32)
      column = np.stack([np.asarray(row.get(key, none), np.float32) for row in rows])
      table[key] = column.reshape(batch, samples, *shape)
    return table

  def _settle_parts(self, rows: Sequence[Mapping[str, np.ndarray]]) -> None:
    """What parts there are is settled once, by all processes; UsageError for others later."""
    mine = {key: value.shape for row in rows for key, value in row.items()}
    if not self._shapes:
      for shapes in self._gather([mine]):
        self._shapes |= {key: shapes[key] for key in sorted(shapes)}
    if not self._shapes:
      return
    for row in rows:
      for key, value in row.items():
        if key not in self._shapes:
          raise UsageError(
            f"{self._name} returned a part {key!r} that its first results did not have (they had "
            f"{', '.join(self._shapes)}); return the same names each time, None where there is "
            "nothing to say."
          )
        if value.shape != self._shapes[key]:
          raise UsageError(
            f"{self._name} returned {key!r} of shape {value.shape} after {self._shapes[key]}; give "
            "as many numbers each time."
          )

  def _answered(self, answer: Answer) -> Mapping[str, np.ndarray]:
    """What has come of a call in another process, as if it had been made here."""
    if answer.kind == PARTS:
      return answer.parts
    if answer.kind in (REFUSED, USAGE):
      raise (RewardError if answer.kind == REFUSED else UsageError)(answer.text)
    if answer.kind == RAISED:
      self._has_raised(answer.text)
    else:
      self._has_not_answered(f"{self._name}: {answer.text}." if answer.kind == DIED else self._late)
    return {}

  def _call(self, prediction: Any, truth: Any) -> Any:
    try:
      return self._timed(prediction, truth)
    except _TimedOut:
      return self._has_not_answered(self._late)
    except RewardError:
      raise
    except (Exception, SystemExit) as error:
      if os.getpid() != self._process:
        os._exit(1)  # a child that the reward has forked has no business here
      return self._has_raised(user_traceback(error, __file__), error)

  @property
  def _late(self) -> str:
    limit = f"config.reward.timeout_s={self._timeout_s:g} s"
    return f"{self._name} did not answer within {limit}."

  def _has_not_answered(self, said: str) -> None:
    if not self._skip_errors:
      raise RewardError(said) from None
    console.warn_once(self._name, f"{said} Such samples are left out.")

  def _has_raised(self, text: str, error: BaseException | None = None) -> None:
    if not self._skip_errors:
      raise RewardError(
        f"the reward {self._name} raised\n{text}Mend it, or set config.reward.on_error=skip to "
        "leave such samples out."
      ) from error
    console.warn_once(self._name, f"{self._name} raised; such samples are left out\n{text}")

  def _timed(self, prediction: Any, truth: Any) -> Any:
    if not self._timeout_s:
      return self._fn(prediction, truth, **self._args)
    answers: queue.Queue = queue.Queue()

    def work():
      try:
        answers.put((self._fn(prediction, truth, **self._args), None))
      except (Exception, SystemExit) as error:
        answers.put((None, error))

    # A daemon: a reward that hangs must not keep the process from ending.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
      result, error = answers.get(timeout=self._timeout_s)
    except queue.Empty:
      self._give_up(thread)
      raise _TimedOut from None
    if error is not None:
      raise error
    return result

  def _give_up(self, thread: threading.Thread) -> None:
    """Leaves a call that hangs to itself; RewardError where there are too many of them."""
    self._hanging = [*(one for one in self._hanging if one.is_alive()), thread]
    if len(self._hanging) >= _MOST_HANGING:
      raise RewardError(
        f"{len(self._hanging)} calls of {self._name} hang at once; each holds a thread and what it "
        "has opened. Mend the reward, or give it a limit of its own."
      )


def _read_only(array: np.ndarray | np.generic) -> np.ndarray:
  copy = np.array(array)
  copy.flags.writeable = False
  return copy
