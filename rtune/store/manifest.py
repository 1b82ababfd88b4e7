"""What a folder of files held when it was written: sizes and SHA-256, so that damage is seen."""

import contextlib
import hashlib
import json
import os
import pathlib

from rtune.disk import parse_json, write_whole
from rtune.errors import UsageError

FILE = "manifest.json"
SCHEMA = 1  # of the folder's layout; a newer one is refused
# What reading something else as a manifest may raise.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError)


def write(folder: pathlib.Path) -> None:
  """Lists every file in the subfolders of `folder`."""
  files = {}
  for file in sorted(folder.glob("*/**/*")):
    if file.is_file():
      files[file.relative_to(folder).as_posix()] = [file.stat().st_size, _sha256(file)]
  (folder / FILE).write_text(json.dumps({"schema": SCHEMA, "files": files}))


def add(file: pathlib.Path) -> None:
  """Lists one file in the manifest of its own folder, beside those that are there."""
  _write_listed(file, {file.name: (file.stat().st_size, _sha256(file))})


def drop(file: pathlib.Path) -> None:
  """Takes one file out of the manifest of its own folder."""
  _write_listed(file, {})


def lists(file: pathlib.Path) -> bool:
  """Whether the manifest of its own folder lists a file."""
  return file.name in _listed(file)


def _write_listed(file: pathlib.Path, entry: dict[str, tuple[int, str]]) -> None:
  files = {name: found for name, found in _listed(file).items() if name != file.name} | entry
  text = json.dumps({"schema": SCHEMA, "files": dict(sorted(files.items()))})
  write_whole(file.parent / FILE, text)


def _listed(file: pathlib.Path) -> dict[str, tuple[int, str]]:
  """What the manifest beside a file lists; {} where there is none that can be read."""
  with contextlib.suppress(*_DAMAGED):
    return _read(file.parent / FILE)[1]
  return {}


def altered(file: pathlib.Path) -> str | None:
  """What is wrong with a file that its folder's manifest lists; None where nothing is known."""
  if not (file.parent / FILE).exists():
    return None
  try:
    files = _read(file.parent / FILE)[1]
  except _DAMAGED:
    return f"{FILE} beside it is damaged"
  return _differs(file.parent, file.name, *files[file.name]) if file.name in files else None


def problem(folder: pathlib.Path) -> str | None:
  """What is wrong with the folder, by file; None if all is as it was written.

  Raises:
    UsageError: the folder was written by a newer rtune.
  """
  if not (folder / FILE).exists():
    return f"{FILE} is missing"
  try:
    schema, files = _read(folder / FILE)
  except _DAMAGED:
    return f"{FILE} is damaged"
  if schema > SCHEMA:
    raise UsageError(
      f"{folder} was written by a newer rtune (layout {schema}, this one reads up to {SCHEMA}). "
      "Install that version."
    )
  for name, (size, digest) in files.items():
    found = _differs(folder, name, size, digest)
    if found:
      return found
  return None


def _differs(folder: pathlib.Path, name: str, size: int, digest: str) -> str | None:
  file = folder / name
  if not os.path.isfile(file):  # Path.is_file raises where a name is too long for any file
    return f"{name} is missing"
  if file.stat().st_size != size:
    return f"{name} has {file.stat().st_size} bytes, not {size}"
  if _sha256(file) != digest:
    return f"{name} was altered (its SHA-256 differs)"
  return None


def _read(file: pathlib.Path) -> tuple[int, dict[str, tuple[int, str]]]:
  """The layout, and size and digest by name; one of many errors where it is no manifest."""
  found = parse_json(file.read_bytes())
  files = {name: (int(size), str(digest)) for name, (size, digest) in found["files"].items()}
  return int(found["schema"]), files


def _sha256(file: pathlib.Path) -> str:
  with file.open("rb") as stream:
    return hashlib.file_digest(stream, "sha256").hexdigest()
