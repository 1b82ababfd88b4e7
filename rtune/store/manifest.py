"""What a folder of files held when it was written: sizes and SHA-256, so that damage is seen."""

import hashlib
import json
import pathlib

from rtune.errors import UsageError

FILE = "manifest.json"
SCHEMA = 1  # of the folder's layout; a newer one is refused


def write(folder: pathlib.Path) -> None:
  """Lists every file in the subfolders of `folder`."""
  files = {}
  for file in sorted(folder.glob("*/**/*")):
    if file.is_file():
      files[file.relative_to(folder).as_posix()] = [file.stat().st_size, _sha256(file)]
  (folder / FILE).write_text(json.dumps({"schema": SCHEMA, "files": files}))


def problem(folder: pathlib.Path) -> str | None:
  """What is wrong with the folder, by file; None if all is as it was written.

  Raises:
    UsageError: the folder was written by a newer rtune.
  """
  try:
    manifest = json.loads((folder / FILE).read_text())
    schema, files = manifest["schema"], manifest["files"]
  except FileNotFoundError:
    return f"{FILE} is missing"
  except (ValueError, KeyError, TypeError):
    return f"{FILE} is damaged"
  if schema > SCHEMA:
    raise UsageError(
      f"{folder} was written by a newer rtune (layout {schema}, this one reads up to {SCHEMA}). "
      "Install that version."
    )
  for name, (size, digest) in files.items():
    file = folder / name
    if not file.is_file():
      return f"{name} is missing"
    if file.stat().st_size != size:
      return f"{name} has {file.stat().st_size} bytes, not {size}"
    if _sha256(file) != digest:
      return f"{name} was altered (its SHA-256 differs)"
  return None


def _sha256(file: pathlib.Path) -> str:
  with file.open("rb") as stream:
    return hashlib.file_digest(stream, "sha256").hexdigest()
