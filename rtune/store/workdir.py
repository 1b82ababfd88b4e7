"""One run at a time in a workdir.

Two writers on one folder of checkpoints overwrite each other without an error, so a run holds a
lock for as long as it lives. The kernel's file lock settles it on one machine and goes with its
process, however that died. Where several machines share a folder it may not reach, so the holder
also keeps its lock file fresh.
"""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

from rtune import disk
from rtune.errors import UsageError

FILE = "run.lock"
BEAT_S = 15.0  # seconds between signs of life
DEAD_S = 60.0  # without a sign of life for so long, a holder on another machine counts as dead


@contextlib.contextmanager
def lock(workdir: str | os.PathLike[str], force: bool = False) -> Iterator[pathlib.Path]:
  """Creates `workdir` if needed and holds it for one process; in a multi-process run, process 0.

  Args:
    workdir: a folder that this process may write to.
    force: take the workdir even from a run that seems alive.

  Yields:
    The workdir as an absolute path.

  Raises:
    UsageError: the folder cannot be made or written, or a live process holds it.
  """
  folder = pathlib.Path(workdir).expanduser().absolute()
  file = _open(folder)
  try:
    owner, age = _owner(file), time.time() - os.fstat(file.fileno()).st_mtime
    held = _held(file, owner, age)
    if held and not force:
      raise UsageError(
        f"workdir {folder} is in use by {_describe(owner)}, last sign of life "
        f"{max(age, 0):.0f} s ago. Wait for that run or give another --workdir; if you are sure "
        "that it is gone, --force."
      )
    if held:
      file = _replace(file, folder)
    if owner is not None:
      state = "may still be running" if held else "did not end cleanly"
      logging.getLogger(__name__).warning(
        "workdir %s: taking over from %s, which %s.", folder, _describe(owner), state
      )
    with _alive(file, folder):
      yield folder
  finally:
    file.close()


def _open(folder: pathlib.Path) -> TextIO:
  """The lock file, open to read and write."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    return open(os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8")
  except (FileExistsError, NotADirectoryError) as error:
    raise UsageError(
      f"workdir {folder}: {error.filename} is a file, not a folder. Give another --workdir."
    ) from error
  except OSError as error:
    raise UsageError(
      f"workdir {folder} cannot be written: {error.strerror}. "
      "Give a --workdir that you may write to."
    ) from error


def _held(file: TextIO, owner: dict[str, Any] | None, age: float) -> bool:
  """Whether someone alive holds the lock; takes it if not."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return True
  except OSError:  # A file system without locks: what the holder wrote about itself must do.
    return owner is not None and _lives(file, owner, age)
  # A lock that was granted is proof for this machine only.
  return owner is not None and owner["host"] != socket.gethostname() and _fresh(file, age)


def _replace(file: TextIO, folder: pathlib.Path) -> TextIO:
  """Takes the lock on a new file, away from the holder of the old one."""
  file.close()
  (folder / FILE).unlink(missing_ok=True)
  file = _open(folder)
  _held(file, None, 0.0)
  return file


def _owner(file: TextIO) -> dict[str, Any] | None:
  """What the last holder wrote about itself; None if it left cleanly."""
  file.seek(0)
  try:
    owner = disk.parse_json(file.read() or "null")
    return {key: owner[key] for key in ("pid", "host", "since")} if owner else None
  except (ValueError, KeyError, TypeError):
    return {"pid": "?", "host": socket.gethostname(), "since": "?"}


def _fresh(file: TextIO, age: float) -> bool:
  """Whether a holder on another machine has given a sign of life.

  A date in the future says nothing: clocks differ, or were set. Then it is watched for a while.
  """
  if age >= -BEAT_S:
    return age < DEAD_S
  before, deadline = os.fstat(file.fileno()).st_mtime, time.monotonic() + 1.5 * BEAT_S
  while time.monotonic() < deadline:
    time.sleep(BEAT_S / 20)
    if os.fstat(file.fileno()).st_mtime != before:
      return True
  return False


def _lives(file: TextIO, owner: dict[str, Any], age: float) -> bool:
  if owner["host"] != socket.gethostname():
    return _fresh(file, age)
  try:
    os.kill(int(owner["pid"]), 0)
  except PermissionError:
    return True  # Another user's process.
  except (OSError, ValueError):
    return False
  return True


def _describe(owner: dict[str, Any] | None) -> str:
  if owner is None:
    return "another process"
  return f"process {owner['pid']} on {owner['host']} since {owner['since']}"


@contextlib.contextmanager
def _alive(file: TextIO, folder: pathlib.Path) -> Iterator[None]:
  """Writes who holds the lock, and touches the file until the end."""
  since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
  text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
  with disk.refusals(folder / FILE, len(text)):
    os.ftruncate(file.fileno(), 0)
    os.pwrite(file.fileno(), text.encode(), 0)
  stop = threading.Event()

  def beat():
    while not stop.wait(BEAT_S):
      with contextlib.suppress(OSError):
        os.utime(file.fileno())

  thread = threading.Thread(target=beat, name="workdir-heartbeat", daemon=True)
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join()
    os.ftruncate(
      file.fileno(), 0
    )  # Emptied, not removed: another process may be waiting on this very file.
