"""One run at a time in a remote workdir: an object that its holder writes anew every few seconds.

run.lock  {"id": of the holder, "host", "pid", "numbering": of pids, "since", "beat": seconds since
          1970, "ended": bool}

Storage has no locks. Whoever comes writes the object and reads it again after a while: of two that
come at once, the last to write has it. A holder reads it before each beat, and leaves where it is
another's. The object stays when its holder is done, so that the next one knows who was there last.
"""

import _thread
import contextlib
import datetime
import json
import os
import pathlib
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from rtune.disk import parse_json
from rtune.display import console
from rtune.errors import UsageError
from rtune.store import workdir
from rtune.store.remote.place import Place, Unreachable

BEAT_S = 20.0  # seconds between signs of life
DEAD_S = 180.0  # without a sign of life for so long, a holder is watched, and counts as dead
SETTLE_S = 1.0  # in which another one that has come at the same time will have written


class TakenOver(UsageError):
  """Another process has taken the workdir."""


class Lock:
  """What a holder knows.

  Attributes:
    id: of this holder.
    previous: id of the one before; "" for none.
  """

  def __init__(self, place: Place, previous: str):
    self.id, self.previous = uuid.uuid4().hex, previous
    self._place, self._stop = place, threading.Event()
    since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    self._own = {"id": self.id, "host": socket.gethostname(), "pid": os.getpid(), "since": since}
    self._own["numbering"] = _numbering()
    self._seen = -float("inf")  # when it was last seen to be ours
    self._lost = ""  # who has it now
    self._thread = threading.Thread(target=self._beats, name="remote-heartbeat", daemon=True)

  def take(self) -> None:
    """Writes who holds it from now on; TakenOver where another one comes at the same time."""
    self._write()
    time.sleep(SETTLE_S)
    self._look()
    self.check()
    self._thread.start()

  def check(self) -> None:
    """TakenOver where the lock is another's by now; reads it where that was long ago.

    Raises:
      Unreachable: it cannot be read.
    """
    if not self._lost and time.monotonic() - self._seen > BEAT_S:
      self._look()
    if self._lost:
      raise TakenOver(
        f"{self._place.url} was taken over by {self._lost}; this process stops, and leaves there "
        "what it finds."
      )

  def release(self) -> None:
    """Ends the beats and says so in the object; another's is left alone."""
    self._stop.set()
    self._thread.join()
    with contextlib.suppress(Unreachable, TakenOver):
      self._look()
      self.check()
      self._write(ended=True)

  def _write(self, ended: bool = False) -> None:
    record = {**self._own, "beat": time.time(), "ended": ended}
    self._place.write(workdir.FILE, json.dumps(record).encode())

  def _look(self) -> None:
    owner = read(self._place)
    if owner is not None and owner["id"] != self.id:
      self._lost = describe(owner)
    self._seen = time.monotonic()

  def _beats(self) -> None:
    while not self._stop.wait(BEAT_S):
      try:
        self._look()
        if not self._lost:
          self._write()
      except Unreachable:
        continue  # whoever sends files there tells it
      if self._lost:
        break
    told = False
    while self._lost and not self._stop.wait(1.0 if told else 0.0):
      if not told:
        console.warn(f"{self._place.url} was taken over by {self._lost}: this process stops.")
      told = True
      # As a scheduler asks it to; where nothing handles that yet, it is asked again.
      _thread.interrupt_main(signal.SIGUSR1)


@contextlib.contextmanager
def held(place: Place, force: bool) -> Iterator[Lock]:
  """Holds a remote workdir for this process.

  Args:
    force: take it even from a run that seems alive.

  Raises:
    UsageError: a live process holds it.
    Unreachable: the storage does not answer.
  """
  owner = read(place)
  if owner is not None and not owner["ended"]:
    alive = _lives(place, owner)
    if alive and not force:
      raise UsageError(
        f"workdir {place.url} is in use by {describe(owner)}, last sign of life "
        f"{max(time.time() - owner['beat'], 0):.0f} s ago. Wait for that run or give another "
        "--workdir; if you are sure that it is gone, --force."
      )
    state = "may still be running" if alive else "did not end cleanly"
    console.warn(f"workdir {place.url}: taking over from {describe(owner)}, which {state}.")
  lock = Lock(place, owner["id"] if owner else "")
  lock.take()
  try:
    yield lock
  finally:
    lock.release()


def read(place: Place) -> dict[str, Any] | None:
  """Who holds it, or was the last to do so; None for nobody."""
  content = place.read(workdir.FILE)
  try:
    owner = parse_json(content or "null")
    known = {key: str(owner[key]) for key in ("id", "host", "pid", "since")} if owner else None
    if known is None:
      return None
    known["numbering"] = str(owner.get("numbering", ""))
    return {**known, "beat": float(owner["beat"]), "ended": bool(owner["ended"])}
  except (ValueError, KeyError, TypeError):
    damaged = {"id": "?", "host": "?", "pid": "?", "since": "?", "numbering": ""}
    return {**damaged, "beat": 0.0, "ended": False}


def describe(owner: dict[str, Any]) -> str:
  """A holder for people."""
  return f"process {owner['pid']} on {owner['host']} since {owner['since']}"


def _lives(place: Place, owner: dict[str, Any]) -> bool:
  """Whether a holder is alive; where its last beat is old it is watched, since clocks differ."""
  if owner["numbering"] and owner["numbering"] == _numbering() and _is_gone(owner["pid"]):
    return False
  if -BEAT_S <= time.time() - owner["beat"] < DEAD_S:
    return True
  console.stage(f"{place.url}: waiting {1.5 * BEAT_S:.0f} s for a sign of life of its last holder")
  deadline = time.monotonic() + 1.5 * BEAT_S
  while time.monotonic() < deadline:
    time.sleep(BEAT_S / 10)
    now = read(place)
    if now is None or now["ended"]:
      return False
    if now != owner:
      return True
  return False


def _numbering() -> str:
  """What pids are counted by: names of hosts may be alike, such as those of containers."""
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:
    return ""  # not Linux


def _is_gone(pid: str) -> bool:
  """Whether no process of this machine has this number, or only this one, which holds nothing."""
  if pid == str(os.getpid()):
    return True
  try:
    os.kill(int(pid), 0)
  except (ProcessLookupError, ValueError):
    return True
  except PermissionError:
    return False  # another user's
  return False
