"""A remote workdir is worked on in a folder of this machine, and what changes there is sent.

So whoever trains knows files only. A thread looks whether a checkpoint, results or weights have
become complete, and sends them at once; the log follows every `INTERVAL_S`. What is there fits
together at any moment, wherever sending stops:

1. logs, weights, labels; then what says which of these are complete
2. each checkpoint, the newest first, and its manifest last; before that, results that would not
   belong to it are removed (where they are missing, resuming makes them of weights and log)
3. results
4. what the run has removed is removed there, of a checkpoint its manifest first
"""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator

import jax

from rtune.display import console
from rtune.errors import Preempted, RtuneError, StorageError, UsageError
from rtune.store import manifest, run_files
from rtune.store.remote import lock, place, snapshot
from rtune.store.remote.fetching import fetch
from rtune.store.remote.staging import Staging

POLL_S = 1.0  # between looks at the workdir
INTERVAL_S = 30.0  # after which all that has changed is sent
MOST_PAUSE_S = 300.0  # between tries while the storage fails
LAST_TRIES = 6  # at the end, with pauses of 1, 2, 4 ... s


@contextlib.contextmanager
def mirrored(workdir: str | os.PathLike[str], force: bool = False) -> Iterator[str]:
  """The folder of this machine in which to train: a path itself; of a URL, one that is mirrored.

  Args:
    force: take the remote workdir even from a run that seems alive.

  Raises:
    UsageError: another run has it, no such storage, or there are several processes.
    StorageError: it cannot be read, or not be written in the end.
  """
  if not place.is_remote(workdir):
    yield os.fspath(workdir)
    return
  if jax.process_count() > 1:
    raise UsageError(
      f"--workdir {workdir}: a URL is for one process; give a folder that all of yours share, such "
      "as one where that storage is mounted (gcsfuse, s3fs)."
    )
  where = place.Place(os.fspath(workdir))
  staging = Staging(where)
  with lock.held(where, force) as held:
    where.clear()
    sent, stale = fetch(where, staging, held.previous)
    staging.remember(held.id, sent)
    console.stage(f"{where.url} is worked on in {staging.work}")
    with _sending(Mirror(where, staging, held, sent, stale)):
      yield str(staging.work)


class Mirror:
  """Sends what changes in a folder.

  Args:
    sent: files that are there as they are here.
    stale: names of files of checkpoints that are there and not here.
  """

  def __init__(
    self,
    where: place.Place,
    staging: Staging,
    held: lock.Lock,
    sent: dict[str, snapshot.Stamp],
    stale: Iterable[str],
  ):
    self.folder, self.url = staging.work, where.url
    self._place, self._staging, self._held = where, staging, held
    self._sent, self._stale = sent, {*stale}
    self._ends, self._last = threading.Event(), False
    self._thread = threading.Thread(target=self._work, name="remote-sender", daemon=True)

  def start(self) -> None:
    self._thread.start()

  def abandon(self) -> None:
    """The thread ends with the file that it is at; nobody waits for it."""
    self._ends.set()

  def finish(self) -> None:
    """Sends what is left; StorageError where that cannot be done."""
    begun = time.monotonic()
    console.stage(f"sending what is left to {self.url}")
    self._ends.set()
    self._thread.join()
    self._last = True
    for again in range(LAST_TRIES):
      try:
        self.send()
        break
      except place.Unreachable as error:
        if again == LAST_TRIES - 1:
          raise StorageError(
            f"{error} All of the run is in {self.folder}; once that storage can be written again, "
            "the same command on this machine sends it."
          ) from error
        time.sleep(2.0**again)
    console.stage(f"{self.url} is complete, after {time.monotonic() - begun:.1f} s")

  def send(self) -> None:
    """Sends what has changed since the last time.

    Raises:
      TakenOver: another process has the workdir.
      Unreachable: the storage fails.
    """
    self._held.check()
    taken = snapshot.take(self.folder, self._staging.pins, self._sent)
    try:
      self._withdraw(taken)
      for group in taken.groups:
        place.each(lambda name: self._put(taken, name), group)
      self._tidy(taken)
    finally:
      self._staging.remember(self._held.id, self._sent)
      shutil.rmtree(taken.pins, ignore_errors=True)

  def _withdraw(self, taken: snapshot.Snapshot) -> None:
    """Removes what would say of a half-sent state that it is complete."""
    changed = {name for group in taken.groups for name in group}
    commits = {snapshot.commit(step) for step in taken.steps} & changed
    # Results belong to one phase of the checkpoint; without any, resuming makes them from the rest.
    results = {snapshot.RESULTS} & changed if commits else set()
    folders = tuple(name.rpartition("/")[0] + "/" for name in commits)
    leftover = {name for name in self._stale if name.startswith(folders)}
    self._remove(((commits | results) & {*self._sent}) | leftover)

  def _tidy(self, taken: snapshot.Snapshot) -> None:
    """Removes what is no longer here, once what has come instead is complete there."""
    self._remove(taken.removed)
    if not self._stale or not taken.steps:
      return
    keep, stale = run_files.read_config(self.folder).checkpoints, {*self._stale}

    def kept(step: int) -> bool:
      is_whole = snapshot.commit(step) in stale and step < taken.steps[0]
      is_spare = len(taken.steps) < keep.keep_last
      return is_whole and (is_spare or bool(keep.keep_every and step % keep.keep_every == 0))

    self._remove(name for name in stale if not kept(int(name.split("/")[1])))

  def _put(self, taken: snapshot.Snapshot, name: str) -> None:
    self._held.check()
    if self._ends.is_set() and not self._last:
      raise _Cut
    self._place.put(taken.pins / name, name)
    self._sent[name] = taken.there[name]

  def _remove(self, names: Iterable[str]) -> None:
    """Removes files; without its manifest a checkpoint does not count, whatever else is there."""
    names = {*names}
    first = {name for name in names if name.endswith(f"/{manifest.FILE}")}
    for group in (first, names - first):
      place.each(self._remove_one, sorted(group))

  def _remove_one(self, name: str) -> None:
    self._held.check()
    self._place.remove(name)
    self._sent.pop(name, None)
    self._stale.discard(name)

  def _work(self) -> None:
    seen, due, pause = None, 0.0, 0.0
    while not self._ends.wait(max(pause, POLL_S)):
      now = snapshot.marks(self.folder)
      if now == seen and time.monotonic() < due:
        continue
      begun = time.monotonic()
      try:
        self.send()
      except (_Cut, lock.TakenOver):
        return
      except (RtuneError, OSError) as error:
        if not pause:
          console.warn(f"{error} Training goes on, and what it leaves is sent once that works.")
        pause = min(max(2 * pause, 2 * POLL_S), MOST_PAUSE_S)
        continue
      if pause:
        console.stage(f"{self.url} can be written again, and has all that there is")
      # A long log takes a while: the line is not to be full of it.
      rest = max(INTERVAL_S, 5 * (time.monotonic() - begun))
      seen, due, pause = now, time.monotonic() + rest, 0.0


class _Cut(Exception):
  """The run has ended: what is left is sent with the rest."""


@contextlib.contextmanager
def _sending(mirror: Mirror) -> Iterator[None]:
  """Sends in the background while something runs, and the rest at its end."""
  mirror.start()
  try:
    yield
  except Preempted:
    mirror.finish()
    raise
  except Exception:
    try:
      mirror.finish()
    except RtuneError as error:  # what went wrong first is told last
      console.warn(str(error))
    raise
  except BaseException:  # at once: what is sent fits together, and the rest is in the folder
    mirror.abandon()
    raise
  mirror.finish()
