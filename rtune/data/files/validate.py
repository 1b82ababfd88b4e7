"""Checks of annotation files: everything wrong is gathered and told once, before training."""

import gc
import json
import os
from collections.abc import Sequence
from typing import Any

from rtune.data.files import layouts, signatures
from rtune.errors import DataError

_EXAMPLES = 10


class Report:
  """What is wrong in one annotation file, by kind: errors stop the run, warnings are only told."""

  def __init__(self, path: str):
    self.path = path
    self._errors: dict[tuple[str, str], list[str]] = {}
    self._warnings: dict[tuple[str, str], list[str]] = {}

  def error(self, kind: str, mend: str, example: str) -> None:
    """Notes one case of a problem that must be mended before training."""
    self._errors.setdefault((kind, mend), []).append(example)

  def warn(self, kind: str, mend: str, example: str) -> None:
    """Notes one case of a problem that has been dealt with as `mend` says."""
    self._warnings.setdefault((kind, mend), []).append(example)

  def raise_errors(self) -> None:
    """Raises one DataError with the errors so far, if there are any."""
    if self._errors:
      kinds = [_text(*kind, found, "\n    ") for kind, found in self._errors.items()]
      raise DataError("\n- ".join([f"{self.path} cannot be used:", *kinds]))

  def warnings(self) -> tuple[str, ...]:
    """One line for each kind of warning."""
    return tuple(
      f"{self.path}: {_text(*kind, found, ' ')}" for kind, found in self._warnings.items()
    )


def _text(kind: str, mend: str, examples: list[str], separator: str) -> str:
  more = len(examples) - _EXAMPLES
  listed = examples[:_EXAMPLES] + ([f"and {more} more"] if more > 0 else [])
  return separator.join([f"{kind} ({len(examples)}). {mend}:", *listed])


def load_json(path: str) -> Any:
  """Parses a JSON file; a byte order mark is accepted.

  Raises:
    DataError: the file is missing, or not JSON (with line and column).
  """
  content = _content(path)
  collects = gc.isenabled()
  gc.disable()  # millions of new records make it look through them again and again: twice the time
  try:
    return json.loads(content)
  except (ValueError, RecursionError) as error:  # bad syntax, bad UTF-8, nested too deeply
    known = signatures.kind_of(content[: signatures.HEAD])
    known = known or layouts.of_text(content[: signatures.HEAD])
    if known:
      raise DataError(f"Annotation file {path} {known}.") from error
    what = "is truncated" if _ends_early(error) else "is not JSON"
    raise DataError(f"Annotation file {path} {what} ({error}). Copy or export it again.") from error
  finally:
    if collects:
      gc.enable()


def load_lines(path: str) -> list[str]:
  """The lines of a text file, without spaces around them and without empty ones.

  Raises:
    DataError: the file is missing, or not text.
  """
  content = _content(path)
  known = signatures.kind_of(content[: signatures.HEAD])
  if known:
    raise DataError(f"Annotation file {path} {known}.")
  try:
    lines = content.decode("utf-8-sig").splitlines()
  except UnicodeDecodeError as error:
    raise DataError(
      f"Annotation file {path} is not text ({error}). Give a folder, a .json, or a list of names."
    ) from error
  return [line.strip() for line in lines if line.strip()]


def _content(path: str) -> bytes:
  try:
    with open(path, "rb") as file:
      content = file.read()
  except OSError as error:
    raise DataError(
      f"Annotation file {path} cannot be read: {error.strerror}. Correct the path."
    ) from error
  if not content.strip():
    raise DataError(f"Annotation file {path} is empty. Copy it again.")
  return content


def _ends_early(error: Exception) -> bool:
  if not isinstance(error, json.JSONDecodeError):
    return False
  return not error.doc[error.pos :].strip() or error.msg.startswith("Unterminated string")


def sections(data: Any, names: Sequence[str], report: Report) -> dict[str, list[dict[str, Any]]]:
  """The named lists of records in a parsed annotation file.

  Raises:
    DataError: a list is missing or holds something that is not a record.
  """
  found = {}
  for name in names:
    records = data.get(name) if isinstance(data, dict) else None
    if isinstance(records, list) and all(isinstance(record, dict) for record in records):
      found[name] = records
    else:
      known = layouts.of_json(data)
      mend = f"Write an object with the lists {', '.join(names)}"
      mend = f"The file {known}" if known else mend
      report.error("lists of records that are missing at the top level", mend, repr(name))
  report.raise_errors()
  return found


def whole_number(value: object) -> int | None:
  """`value` as an id if it is an integer (3.0 counts), else None; text is not a number."""
  if isinstance(value, float) and value.is_integer():
    value = int(value)
  if isinstance(value, bool) or not isinstance(value, int):
    return None
  return value if -(2**63) <= value < 2**63 else None


def is_file_name(value: object) -> bool:
  """Whether the operating system can take `value` as the name of a file."""
  try:
    return isinstance(value, str) and value != "" and b"\0" not in os.fsencode(value)
  except UnicodeEncodeError:
    return False
