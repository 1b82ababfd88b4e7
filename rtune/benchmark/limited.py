"""Commands with a time limit, after which they and what they have started are ended."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, NamedTuple, NoReturn

ROOT = pathlib.Path(__file__).resolve().parents[2]  # of the checkout, where commands run
STOPPED = "stopped at its time limit"
_STDERR = 2  # of this process, whatever sys.stderr is
_POLL_S, _GRACE_S = 0.01, 15.0


class Ended(NamedTuple):
  """How a command ended.

  Attributes:
    code: its exit code; None where it ran into its limit.
    seconds: that it took.
  """

  code: int | None
  seconds: float

  @property
  def status(self) -> str:
    """In words, of a reader of results."""
    if self.code is None:
      return STOPPED
    return "done" if self.code == 0 else f"exit code {self.code}"


def run(
  arguments: Sequence[str],
  limit: float,
  output: IO[bytes],
  errors: IO[bytes] | int = subprocess.STDOUT,
  environment: Mapping[str, str] | None = None,
  tick: Callable[[], None] = lambda: None,
) -> Ended:
  """Runs `python ARGUMENTS` in the checkout for at most `limit` seconds.

  At the limit it is asked to stop (SIGTERM), and killed where it does not.

  Args:
    environment: variables beside those of this process.
    tick: called again and again meanwhile.
  """
  start = time.monotonic()
  with _terminated(), _started(arguments, output, errors, environment or {}) as process:
    while process.poll() is None and time.monotonic() - start < limit:
      tick()
      time.sleep(_POLL_S)
    code = process.poll()
  tick()
  return Ended(code, time.monotonic() - start)


class Command(NamedTuple):
  """`python ARGUMENTS`, with variables beside those of this process."""

  arguments: Sequence[str]
  environment: Mapping[str, str] = {}


def run_together(commands: Sequence[Command], limit: float, at_once: int) -> list[int | None]:
  """Runs commands side by side in the checkout, for at most `limit` seconds in all.

  What they print goes to standard error.

  Args:
    at_once: how many at the same time, in their order.

  Returns:
    Their exit codes; None of those that ran into the limit, or were not begun.
  """
  until = time.monotonic() + limit
  processes: list[subprocess.Popen] = []
  with _terminated(), contextlib.ExitStack() as ends:
    while time.monotonic() < until:
      at_work = sum(process.poll() is None for process in processes)
      if len(processes) < len(commands) and at_work < at_once:
        one = commands[len(processes)]
        given = one.arguments, _STDERR, _STDERR, one.environment
        processes.append(ends.enter_context(_started(*given)))
      elif at_work:
        time.sleep(_POLL_S)
      else:
        break
    codes = [process.poll() for process in processes]
  return codes + [None] * (len(commands) - len(codes))


@contextlib.contextmanager
def _started(
  arguments: Sequence[str],
  output: IO[bytes] | int,
  errors: IO[bytes] | int,
  environment: Mapping[str, str],
) -> Iterator[subprocess.Popen]:
  """A process in the checkout, which is ended with all that it has started."""
  process = subprocess.Popen(
    [sys.executable, *arguments],
    stdout=output,
    stderr=errors,
    stdin=subprocess.DEVNULL,
    env={**os.environ, **environment},
    cwd=ROOT,
    start_new_session=True,
  )
  try:
    yield process
  finally:
    _end(process)


def _end(process: subprocess.Popen) -> None:
  """Ends a command and all that it has started."""
  if process.poll() is None:
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(_GRACE_S)
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
  """Within it SIGTERM unwinds this process, so that commands in a command end as well."""

  def leave(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)

  before = signal.signal(signal.SIGTERM, leave)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
