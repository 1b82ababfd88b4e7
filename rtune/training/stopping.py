"""Asked to stop: finish the step, save, leave. Asked twice: leave at once."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from rtune.display import console
from rtune.errors import Preempted

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def _usual(number: signal.Signals, action: Any) -> Any:
  """What a signal does the second time; background jobs of a shell are told to ignore Ctrl-C."""
  if action is not signal.SIG_IGN:
    return action
  return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL


class StopRequest:
  """Whether, and by which signal, this process was asked to stop."""

  def __init__(self):
    self.signal: signal.Signals | None = None

  def preempted(self, where: str) -> Preempted:
    """The exception to leave with, once everything is saved."""
    code = 130 if self.signal == signal.SIGINT else 75
    by = self.signal.name if self.signal else "another process"
    return Preempted(f"Stopped by {by}; {where}. The same command goes on.", code)


@contextlib.contextmanager
def on_signals() -> Iterator[StopRequest]:
  """Turns the first SIGTERM, SIGINT or SIGUSR1 into a request; the second has its usual effect."""
  request = StopRequest()
  previous = {}

  def handle(number, frame):
    del frame
    request.signal = signal.Signals(number)
    for other, action in previous.items():
      signal.signal(other, _usual(other, action))
    console.say(f"{request.signal.name}: stopping after this step; once more stops at once.")

  try:
    for number in _SIGNALS:
      previous[number] = signal.signal(number, handle)
    yield request
  finally:
    for number, action in previous.items():
      signal.signal(number, action)
