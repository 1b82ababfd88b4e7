"""The other processes of a run: who they are, and which one is gone when a message fails."""

import contextlib
import os
import pathlib
import re
import socket
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax

from rtune.errors import ProcessLost

# What collectives (gloo, NCCL) and jax's coordination service say when somebody does not answer.
_LOST = re.compile(
  r"gloo|nccl|connection (reset|closed|refused)|broken pipe|heartbeat|coordination ?service"
  r"|unavailable|barrier (failed|timed out|result)|task .* (failed|crashed|unhealthy)",
  re.IGNORECASE,
)
_peers: list["Peer"] = []  # of this run, in order; [] where there is one process


class Peer(NamedTuple):
  """A process of the run."""

  index: int
  host: str
  pid: int


def here(index: int) -> Peer:
  """This process."""
  return Peer(index, socket.gethostname(), os.getpid())


def remember(peers: Sequence[Peer]) -> None:
  """Who takes part; told once, when all have met."""
  _peers[:] = peers


@contextlib.contextmanager
def told() -> Iterator[None]:
  """Within it an error because another process is gone is a ProcessLost."""
  try:
    yield
  except (jax.errors.JaxRuntimeError, OSError, ValueError) as error:
    lost = lost_by(error)
    if lost is None:
      raise
    raise lost from error


def lost_by(error: BaseException) -> ProcessLost | None:
  """The loss that an error speaks of; None where it speaks of something else."""
  if len(_peers) < 2 or not _LOST.search(str(error)):
    return None
  others = [peer for peer in _peers if peer.index != jax.process_index()]
  gone = [peer for peer in others if _is_gone(peer)] or [p for p in others if p.host != _host()]
  gone = gone or others
  names = " or ".join(f"process {p.index} (pid {p.pid} on {p.host})" for p in gone)
  return ProcessLost(
    f"{names} is gone: this process got no answer. Look at what it said last; the same command, "
    "for all processes, goes on from the last checkpoint."
  )


def _host() -> str:
  return socket.gethostname()


def _is_gone(peer: Peer) -> bool:
  """Whether a process of this machine has ended; of others nothing is known."""
  if peer.host != _host():
    return False
  try:
    os.kill(peer.pid, 0)
  except OSError as error:
    return not isinstance(error, PermissionError)
  try:  # one that nobody has waited for is still there by name
    state = pathlib.Path(f"/proc/{peer.pid}/stat").read_text().rpartition(")")[2].split()[0]
  except (OSError, IndexError):
    return False
  return state in ("Z", "X")
