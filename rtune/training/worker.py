"""A process that calls host rewards for another, which starts it (rtune.training.workers).

It imports what the rewards and their arguments bring with them, and nothing more of rtune.
"""

import io
import os
import pickle
import queue
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from rtune.config import names
from rtune.errors import RewardError, UsageError
from rtune.training.returned import parts_of, user_traceback

# What a message to the other process is: the parts of a result, text of an error, or "ready".
PARTS, RAISED, REFUSED, USAGE, READY = "parts", "raised", "refused", "usage", "ready"


class Answer(NamedTuple):
  """What came of one call.

  Attributes:
    kind: PARTS; RAISED, with a traceback; REFUSED, the message of a RewardError; USAGE, of a
      UsageError. READY once, before the first call.
    parts: of the result, {} where the reward has no opinion or failed.
    text: of an error.
  """

  kind: str
  parts: Mapping[str, np.ndarray] = {}
  text: str = ""


class Reward(NamedTuple):
  """A reward as it is sent: by name, for functions do not pickle."""

  name: str
  args: Mapping[str, Any]


class _Unpickler(pickle.Unpickler):
  """Finds types in files that a config has named."""

  def find_class(self, module: str, name: str) -> Any:
    names.load_module(module)
    return super().find_class(module, name)


def serve(descriptor: int) -> None:
  """Answers one call after the other until the other process closes its end or is gone."""
  # A terminal or scheduler that stops the run asks all of its processes; this one ends with the
  # run, which may want to finish its step. Handlers, for children would inherit what is ignored.
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *_: None)
  pipe, messages = Connection(descriptor), queue.SimpleQueue()
  threading.Thread(target=_receive, args=(pipe, messages), daemon=True).start()
  try:
    rewards, answer = _prepared(messages.get()), Answer(READY)
  except UsageError as error:
    rewards, answer = [], Answer(USAGE, text=str(error))
  while True:
    pipe.send_bytes(pickle.dumps(answer))
    place, inputs = pickle.loads(messages.get())
    try:
      answer = _called(*rewards[place], inputs)
    except UsageError as error:
      answer = Answer(USAGE, text=str(error))


def _receive(pipe: Connection, messages: queue.SimpleQueue) -> None:
  """In a thread, so that a reward that takes long does not outlive the run."""
  while True:
    try:
      messages.put(pipe.recv_bytes())
    except (EOFError, OSError):
      os.killpg(os.getpid(), signal.SIGKILL)  # with what rewards have started: it leads the group


def _prepared(message: bytes) -> list[tuple[Callable, Reward]]:
  """The rewards, from files as the other process has read them, and by name."""
  files, rewards, example = pickle.loads(message)
  names.take_as(files)
  found: list[Reward] = _read(rewards, "arguments of a reward")
  _read(example, "what rewards judge")  # the modules of its types load now, in nobody's time limit
  return [(names.resolve(reward.name), reward) for reward in found]


def _called(fn: Callable, reward: Reward, inputs: bytes) -> Answer:
  prediction, truth = _read(inputs, f"what {reward.name} judges")
  here = os.getpid()
  try:
    result, answer = fn(prediction, truth, **reward.args), None
  except RewardError as error:
    answer = Answer(REFUSED, text=str(error))
  except (Exception, SystemExit) as error:
    answer = Answer(RAISED, text=user_traceback(error, __file__))
  if os.getpid() != here:
    os._exit(1)  # a child that the reward has forked has no business here
  return answer or Answer(PARTS, parts_of(result, reward.name))


def _read(pickled: bytes, what: str) -> Any:
  """What the other process has pickled; UsageError where its code cannot be found here."""
  try:
    return _Unpickler(io.BytesIO(pickled)).load()
  except Exception as error:
    raise UsageError(f"a worker cannot read {what}: {names.one_line(error)}") from error
