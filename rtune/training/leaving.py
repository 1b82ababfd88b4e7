"""How a run leaves where it was asked to stop: with what is saved, and the code that says so."""

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax

from rtune.devices import processes
from rtune.errors import RewardError
from rtune.store.checkpoint import Checkpoints
from rtune.training.stopping import StopRequest
from rtune.training.update import State


class Leaving(NamedTuple):
  """What it takes to leave a phase.

  Attributes:
    offset: steps of the phases before it.
    begun: when it would have begun without interruption, on the monotonic clock.
  """

  stop: StopRequest
  saves: Checkpoints
  phase: str
  offset: int
  begun: float

  def agreed(self) -> bool:
    """Whether to stop now. Several processes decide together: it costs a message."""
    asked = self.stop.signal is not None
    return any(processes.gather_objects([asked]))

  def save(self, done: int, state: State) -> None:
    """Starts to save the state after so many steps of the phase."""
    step = self.offset + done
    meta = {"phase": self.phase, "step": step, "seconds": time.monotonic() - self.begun}
    self.saves.save(step, state, meta)

  @contextlib.contextmanager
  def with_state_before(self, done: int, state: State) -> Iterator[None]:
    """Leaves with the state before a step whose reward has failed, where a stop was asked for.

    The Ctrl-C of a terminal reaches what a reward has started as well, and then the reward raises.
    """
    try:
      yield
    except RewardError:
      if self.stop.signal is None or jax.process_count() > 1:
        raise
      if done > 1:
        self.save(done - 1, state)
        self.saves.settle()
      raise self.stop.preempted(f"{self.phase} step {done - 1} is saved") from None

  def in_evaluation(self) -> None:
    """Leaves the last evaluation of a phase where a stop is asked for: it can be done again."""
    if self.stop.signal is not None and jax.process_count() == 1:
      self.saves.settle()
      raise self.stop.preempted(f"{self.phase} is trained and saved, its evaluation is left")
