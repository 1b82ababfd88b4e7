"""Files are written whole or not at all, a disk that refuses is one line, and JSON is no trap."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from rtune.errors import StorageError

# What a disk without room says: no space, over the quota, a file above the limit.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(path: pathlib.Path, content: str | bytes, sync: bool = False) -> None:
  """Writes a file so that a reader sees all of it or what was there before.

  Args:
    sync: wait until it is on the disk itself.

  Raises:
    StorageError: it could not be written; nothing is left of the try.
  """
  data = content.encode() if isinstance(content, str) else content
  partial = path.with_name(f".{path.name}.tmp")
  with refusals(path, len(data)):
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      with open(partial, "wb") as file:
        file.write(data)
        if sync:
          file.flush()
          os.fsync(file.fileno())
      os.replace(partial, path)
    except OSError:
      with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)
      raise


def parse_json(content: str | bytes) -> Any:
  """What JSON holds that anyone may have written; ValueError for what is none, or too deep."""
  try:
    return json.loads(content)
  except RecursionError as error:
    raise ValueError("it is nested too deeply") from error


@contextlib.contextmanager
def refusals(path: pathlib.Path, needed: int = 0) -> Iterator[None]:
  """Within it an OSError becomes a StorageError that names the file and the room for it."""
  try:
    yield
  except OSError as error:
    room = f"{free_bytes(path):,} bytes free" + (f", {needed:,} needed" if needed else "")
    raise StorageError(
      f"{path} could not be written: {error.strerror or error} ({room}). Mend the storage and run "
      "the same command again; what is saved stays."
    ) from error


def free_bytes(path: pathlib.Path) -> int:
  """Room where a path is or would be."""
  there = next((p for p in (path, *path.absolute().parents) if p.exists()), pathlib.Path("/"))
  return shutil.disk_usage(there).free
