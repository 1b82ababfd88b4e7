"""What a run needs of a remote workdir to go on: the newest whole checkpoint, and the rest."""

import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence

from rtune.display import console
from rtune.errors import StorageError
from rtune.store import manifest, steps, workdir
from rtune.store.remote import snapshot
from rtune.store.remote.place import Entry, Place, each
from rtune.store.remote.staging import Staging

_UNREAD = ("tensorboard/",)  # what a run writes and never reads


def fetch(
  where: Place, staging: Staging, previous: str
) -> tuple[dict[str, snapshot.Stamp], set[str]]:
  """Brings the folder to work in up to date.

  It stays as it is where nobody else has worked on this run since, and no checkpoint of it is lost.

  Args:
    previous: who held the remote workdir before.

  Returns:
    What is there as it is here, and the names of checkpoints' files that are only there.
  """
  files = where.files()
  there, here = complete(files), _newest_here(staging)
  holder, sent = staging.known()
  if holder and holder == previous and here >= max(there, default=steps.NONE):
    same = {name: stamp for name, stamp in sent.items() if _still(files, name, stamp)}
    # Caches are cleaned: what is lost is as it was sent.
    lost = [n for n in beside_checkpoints(files) if n in same and not (staging.work / n).is_file()]
    get(where, staging.work, files, lost)
    staged = snapshot.stamps(staging.work)
    same |= {name: staged[name] for name in lost}
    return same, _checkpoints(files) - {*same}
  if here > max(there, default=steps.NONE):
    aside = staging.base / f"work_{time.strftime('%Y%m%d_%H%M%S')}"
    staging.work.parent.rename(aside)
    console.warn(
      f"{where.url} does not have step {here}, which this machine has of an earlier run there; "
      f"it is set aside in {aside}."
    )
  shutil.rmtree(staging.work, ignore_errors=True)
  names = beside_checkpoints(files)
  get(where, staging.work, files, names)
  names += _fetch_newest(where, staging, files, there)
  staged = snapshot.stamps(staging.work)
  same = {name: staged[name] for name in names if name in staged}
  return same, _checkpoints(files) - {*same}


def complete(files: Mapping[str, Entry]) -> list[int]:
  """Steps whose manifest is there, the newest first: it is what is sent last."""
  found = []
  for name in files:
    folder, _, rest = name.partition("/")
    step, _, file = rest.partition("/")
    if (folder, file) == (snapshot.CHECKPOINTS, manifest.FILE) and step.isdigit():
      found.append(int(step))
  return sorted(found, reverse=True)


def get(
  where: Place, folder: pathlib.Path, files: Mapping[str, Entry], names: Sequence[str]
) -> None:
  """Fetches files into a folder; FileNotFoundError where one has gone since it was listed."""
  size = sum(files[name].size for name in names)
  if not names:
    return
  console.stage(f"fetching from {where.url}: {size / 2**20:.1f} MiB, files: {len(names)}")
  each(lambda name: where.get(name, folder / name), names)


def _fetch_newest(
  where: Place, staging: Staging, files: Mapping[str, Entry], there: Sequence[int]
) -> list[str]:
  """The newest whole checkpoint; one that was altered is told, and counts no longer."""
  for step in there:
    names = [name for name in files if name.startswith(snapshot.step_folder(step))]
    folder, problem = staging.work / snapshot.step_folder(step), None
    for _ in range(2):  # it may have been the way here
      get(where, staging.work, files, names)
      problem = manifest.problem(folder)
      if problem is None:
        return names
    console.warn(f"{where.url}: checkpoint {step}: {problem}. It counts no longer.")
    where.remove(snapshot.commit(step))
  return []


def beside_checkpoints(files: Mapping[str, Entry]) -> list[str]:
  """Names of what a run, or who reads one, needs beside its checkpoints."""
  skipped = (f"{snapshot.CHECKPOINTS}/", *_UNREAD)
  return [name for name in files if not name.startswith(skipped) and name != workdir.FILE]


def _checkpoints(files: Mapping[str, Entry]) -> set[str]:
  return {
    name
    for name in files
    if name.startswith(f"{snapshot.CHECKPOINTS}/") and name.split("/")[1].isdigit()
  }


def _still(files: Mapping[str, Entry], name: str, stamp: snapshot.Stamp) -> bool:
  return name in files and files[name].size == stamp[0]


def _newest_here(staging: Staging) -> int:
  """The newest whole step of this machine, or NONE."""
  folder = staging.work / snapshot.CHECKPOINTS
  if not folder.is_dir():
    return steps.NONE
  try:
    return steps.newest(folder)
  except StorageError:
    return steps.NONE
