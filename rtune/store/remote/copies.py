"""Remote workdirs and weights for those who read: a copy on this machine, brought up to date."""

import contextlib
import fcntl
import functools
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping

from rtune.disk import parse_json, write_whole
from rtune.display import console
from rtune.errors import StorageError, UsageError
from rtune.store import hub
from rtune.store.remote import fetching, snapshot
from rtune.store.remote.place import Entry, Place, each, is_remote
from rtune.store.remote.staging import Staging

_WEIGHTS = re.compile(r"(.+)/(weights/[^/]+)")  # a file in a workdir, whose manifest is needed
_TRIES = 3


def local_copy(where: str | os.PathLike[str], key: str) -> pathlib.Path:
  """A path on this machine: of what a URL names a copy that is fetched, else the path itself.

  One process fetches each name once, so that it sees one state of it. Of a workdir checkpoints are
  left out.

  Args:
    key: what the user has named it by.

  Raises:
    UsageError: there is nothing, no such storage, or its package is not installed.
    StorageError, DataError: the storage, or the hub, cannot be reached.
  """
  if not is_remote(where):
    return hub.local_copy(where, key)
  return _fetched_once(os.fspath(where).rstrip("/"), key)


@contextlib.contextmanager
def working(where: str, key: str = "--workdir", checkpoints: bool = False) -> Iterator[str]:
  """The folder of a workdir on this machine; of a URL a copy, and what is written there is sent.

  Args:
    checkpoints: whether those are needed as well.
  """
  if not is_remote(where):
    yield where
    return
  place = Place(where, key)
  folder = _fetched(place, key, checkpoints)
  before = snapshot.stamps(folder)
  try:
    yield str(folder)
  finally:
    after = snapshot.stamps(folder)
    names = [name for name in after if after[name] != before.get(name)]
    each(lambda name: place.put(folder / name, name), names)
    if names:
      console.say(f"sent to {place.url}: {', '.join(names[:4])}{', ...' if names[4:] else ''}")


@functools.cache
def _fetched_once(where: str, key: str) -> pathlib.Path:
  inside = _WEIGHTS.fullmatch(where)
  if inside is None:
    return _fetched(Place(where, key), key)
  path = _fetched(Place(inside[1], key), key) / inside[2]
  if not path.is_file():
    raise UsageError(f"{key}: {where} is not there.")
  return path


def _fetched(place: Place, key: str, checkpoints: bool = False) -> pathlib.Path:
  """The copy, with what has changed since the last time; one process at a time brings it."""
  staging = Staging(place)
  with open(staging.base / "read.lock", "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    for _ in range(_TRIES):
      files = place.files()
      if not files:
        raise UsageError(f"{key}: {place.url} is not there; nothing is stored under this name.")
      try:
        _update(place, staging, files, checkpoints)
        return staging.read
      except FileNotFoundError:  # a run has removed it since: what it wrote instead is there
        continue
  raise StorageError(f"{place.url} changes too fast to be read; try again.")


def _update(place: Place, staging: Staging, files: Mapping[str, Entry], checkpoints: bool) -> None:
  record = staging.base / "read.json"
  known = _known(record)
  if {*files} == {""}:  # a file, not a folder
    place.get("", staging.read)
    return
  wanted = fetching.beside_checkpoints(files)
  if checkpoints:
    whole = tuple(map(snapshot.step_folder, fetching.complete(files)))
    wanted += [name for name in files if whole and name.startswith(whole)]
  folder = staging.read
  for name in {*known} - {*wanted}:
    (folder / name).unlink(missing_ok=True)
  same = {
    name: files[name]
    for name in wanted
    if known.get(name) == files[name]
    and (folder / name).is_file()
    and (folder / name).stat().st_size == files[name].size
  }
  missing = [name for name in wanted if name not in same]
  fetching.get(place, folder, files, missing)
  write_whole(record, json.dumps({name: files[name] for name in wanted}))


def _known(record: pathlib.Path) -> dict[str, Entry]:
  try:
    return {name: Entry(*entry) for name, entry in parse_json(record.read_bytes()).items()}
  except (OSError, ValueError, TypeError, AttributeError):
    return {}
