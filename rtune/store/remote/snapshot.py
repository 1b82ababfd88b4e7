"""What a workdir holds at one moment, while a run writes it: what is sent must fit together.

Nothing stops the run for it. What counts as done is looked at before what it needs: steps of
checkpoints, then results, then weights, and the log last. The run writes in the opposite order, so
that all that a step needs is there when the step is. Files that are written whole are linked,
others copied: then they stay as they are, for as long as it takes to send them.
"""

import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rtune.errors import StorageError
from rtune.store import manifest, steps, workdir

CHECKPOINTS, WEIGHTS = "checkpoints", "weights"
LISTED = f"{WEIGHTS}/{manifest.FILE}"
RESULTS = "results.json"  # as rtune/store/run_files.py has it, which imports what fetches weights
# Says that a round of labels is complete (rtune/training/adapt.py).
_ROUND = "summary.json"
_COMPUTED = "features/"  # anew where they are missing (rtune/training/features.py); they are large
_TRIES = 50

Stamp = tuple[int, int]  # bytes and nanoseconds of the last change: whether a file is another one


class Snapshot(NamedTuple):
  """A workdir at one moment.

  Attributes:
    there: all files by name.
    pins: folder with those that are not sent yet, as they were.
    groups: their names. A group is sent when the one before it has arrived.
    steps: whole checkpoints, the newest first.
    removed: what was sent and the run itself has removed. Other files that are gone, for whatever
      reason, stay where they were sent.
  """

  there: Mapping[str, Stamp]
  pins: pathlib.Path
  groups: tuple[tuple[str, ...], ...]
  steps: tuple[int, ...]
  removed: frozenset[str]


def step_folder(step: int) -> str:
  """Where a step is, and the start of its files' names."""
  return f"{CHECKPOINTS}/{step}/"


def commit(step: int) -> str:
  """The file of a step that says it is whole: the last to be sent, the first to be removed."""
  return step_folder(step) + manifest.FILE


def take(folder: pathlib.Path, pins: pathlib.Path, sent: Mapping[str, Stamp]) -> Snapshot:
  """A snapshot of a workdir, which a run may write meanwhile.

  Args:
    pins: a folder beside it, emptied first.
    sent: what need not be sent again.

  Raises:
    StorageError: it cannot be read, or never holds still.
  """
  for _ in range(_TRIES):
    shutil.rmtree(pins, ignore_errors=True)
    try:
      found = _Pins(folder, pins, sent).take()
    except FileNotFoundError:  # removed while it was looked at
      found = None
    except OSError as error:
      raise StorageError(f"{folder} cannot be read, or {pins} not be written: {error}") from error
    if found is not None:
      return found
    time.sleep(0.02)
  raise StorageError(f"{folder} changes too fast to be sent.")


def marks(folder: pathlib.Path) -> tuple:
  """What changes where something is complete that should be sent at once; cheap."""
  files = (folder / RESULTS, folder / LISTED)
  return _steps(folder), *(_stamp(file) if file.is_file() else None for file in files)


def stamps(folder: pathlib.Path) -> dict[str, Stamp]:
  """All files of a folder by name, but those on their way."""
  found = {}
  for name in _walk(folder, ""):
    try:
      found[name] = _stamp(folder / name)
    except FileNotFoundError:
      continue
  return found


class _Pins:
  """One try to take a snapshot."""

  def __init__(self, folder: pathlib.Path, pins: pathlib.Path, sent: Mapping[str, Stamp]):
    self._folder, self._pins, self._sent = folder, pins, sent
    self._there: dict[str, Stamp] = {}
    self._changed: list[str] = []

  def take(self) -> Snapshot | None:
    """None where a step was completed between steps and results."""
    whole = _steps(self._folder)
    self._pin_if_there(RESULTS)
    if _steps(self._folder)[:1] != whole[:1]:
      return None
    for step in whole:
      self._pin_step(step)
    self._pin_if_there(LISTED)
    self._pin_weights()
    ready = [name for name in _walk(self._folder, "") if name.endswith(f"/{_ROUND}")]
    for name in ready:
      self._pin(name)
    for name in _walk(self._folder, ""):
      if name not in self._there and not name.startswith((f"{CHECKPOINTS}/", f"{WEIGHTS}/")):
        self._pin(name)
    groups, removed = self._groups(ready, whole), frozenset(self._removed(whole))
    return Snapshot(self._there, self._pins, groups, whole, removed)

  def _removed(self, whole: Sequence[int]) -> Iterator[str]:
    """Checkpoints before the newest ones, and weights that better ones have replaced."""
    kept = tuple(map(step_folder, whole))
    for name in self._sent.keys() - self._there.keys():
      if name.startswith(f"{CHECKPOINTS}/") and whole and not name.startswith(kept):
        yield name
      known = name.startswith(f"{WEIGHTS}/") and LISTED in self._there
      if known and not manifest.lists(self._pins / name):
        yield name

  def _groups(self, ready: Sequence[str], whole: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """What says that something is complete follows on what it is about."""
    marks = [*ready, LISTED, RESULTS]
    rest = [n for n in self._changed if n not in marks and not n.startswith(f"{CHECKPOINTS}/")]
    groups = [rest, ready, [LISTED]]
    for step in whole:
      own = [name for name in self._changed if name.startswith(step_folder(step))]
      groups += [[name for name in own if name != commit(step)], [commit(step)]]
    groups.append([RESULTS])
    changed = {*self._changed}
    kept = (tuple(name for name in group if name in changed) for group in groups)
    return tuple(group for group in kept if group)

  def _pin_step(self, step: int) -> None:
    """All files of a step; FileNotFoundError where the run removes it meanwhile."""
    names = [*_walk(self._folder, step_folder(step))]
    if self._sent.get(commit(step)) == _stamp(self._folder / commit(step)):
      self._there |= {name: self._sent[name] for name in names if name in self._sent}
      return
    for name in names:
      self._pin(name, link=True)
    if names != [*_walk(self._folder, step_folder(step))] or commit(step) not in names:
      raise FileNotFoundError(step)

  def _pin_weights(self) -> None:
    """What the manifest lists: other files are still written, or about to be removed."""
    listing = self._pins / LISTED
    if LISTED in self._there and not listing.exists():  # sent before, so as it is now
      shutil.copyfile(self._folder / LISTED, _made(listing))
    for name in _walk(self._folder, f"{WEIGHTS}/"):
      if name != LISTED and (LISTED not in self._there or manifest.lists(self._pins / name)):
        self._pin(name, link=True)
    if LISTED in self._there and _stamp(self._folder / LISTED) != self._there[LISTED]:
      raise FileNotFoundError(LISTED)  # better weights have come, and those it lists may be gone

  def _pin_if_there(self, name: str) -> None:
    if (self._folder / name).is_file():
      self._pin(name)

  def _pin(self, name: str, link: bool = False) -> None:
    """Adds a file; by a link where it is never written again, if the file system has them."""
    source, target = self._folder / name, _made(self._pins / name)
    self._there[name] = _stamp(source)
    if self._sent.get(name) == self._there[name]:
      return
    if not (link and _linked(source, target)):
      shutil.copyfile(source, target)
    self._changed.append(name)


def _linked(source: pathlib.Path, target: pathlib.Path) -> bool:
  try:
    os.link(source, target)
  except FileNotFoundError:
    raise
  except OSError:
    return False
  return True


def _made(path: pathlib.Path) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  return path


def _steps(folder: pathlib.Path) -> tuple[int, ...]:
  """Whole checkpoints, the newest first: orbax renames them into place with their manifest."""
  found = (folder / CHECKPOINTS).glob(f"*/{manifest.FILE}")
  return tuple(sorted((int(p.parent.name) for p in found if steps.is_step(p.parent)), reverse=True))


def _stamp(path: pathlib.Path) -> Stamp:
  found = path.stat()
  return found.st_size, found.st_mtime_ns


def _walk(folder: pathlib.Path, start: str) -> Iterator[str]:
  """Names of files below `start`, sorted; without the lock, and without what is half written."""
  for path in sorted((folder / start).rglob("*")):
    name = path.relative_to(folder).as_posix()
    hidden = path.name.startswith(".") or name == workdir.FILE or name.startswith(_COMPUTED)
    if path.is_file() and not hidden:
      yield name
