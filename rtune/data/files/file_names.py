"""Names of image files as tools write them, and the files that are meant.

A name is taken as it stands where such a file exists. Else it may be written as Windows writes
paths, as a URL has it, or with letters and accents composed in another way than on disk.
"""

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from rtune.data.files import validate

Records = Sequence[Mapping[str, Any]]

_URLS = ("coco_url", "flickr_url", "url", "image_url")


def of_records(records: Records, report: validate.Report) -> list[str]:
  """The file name of each image; fewer than images if some are unusable, which is an error.

  Where there is no `file_name`, as in LVIS, it is the last part of `coco_url`.
  """
  found = []
  for row, record in enumerate(records):
    name = record.get("file_name")
    if "file_name" not in record:
      name = _of_url(record, row, report)
    if validate.is_file_name(name):
      found.append(name)
    else:
      what = f"images[{row}] ({name!r:.40})"
      mend = "Name each file as text (`file_name`, or LVIS's `coco_url`)"
      report.error("images without a usable file_name", mend, what)
  return found


def _of_url(record: Mapping[str, Any], row: int, report: validate.Report) -> str | None:
  for field in _URLS:
    if isinstance(record.get(field), str):
      name = os.path.basename(unquote(urlsplit(record[field]).path))
      kind = f"images without a file_name, but with {field}"
      report.warn(kind, "Its last part is taken", f"images[{row}] ({name})")
      return name
  return None


def existing(root: str, names: Sequence[str], report: validate.Report) -> list[str]:
  """The names with those replaced that mean a file in another way, each way in one warning."""
  found = []
  for name in names:
    plain = name.isascii() and not any(mark in name for mark in "\\%:")
    found.append(name if plain else _existing(root, name, report))
  return found


def _existing(root: str, name: str, report: validate.Report) -> str:
  if os.path.exists(os.path.join(root, name)):
    return name
  for kind, change in _WAYS:
    other = change(name)
    for form in (other, *(unicodedata.normalize(form, other) for form in ("NFC", "NFD"))):
      if form not in ("", name) and os.path.exists(os.path.join(root, form)):
        kind = kind if form == other else "file names in another Unicode form than on disk"
        report.warn(kind, "The files that are meant are taken", f"{name!r} is {form!r}")
        return form
  return name


def _last_of_url(name: str) -> str:
  return os.path.basename(unquote(urlsplit(name).path)) if "://" in name else ""


_WAYS: tuple[tuple[str, Callable[[str], str]], ...] = (
  ("file names in another Unicode form than on disk", lambda name: name),
  ("file names with backslashes, as Windows writes them", lambda name: name.replace("\\", "/")),
  ("file names with percent signs, as URLs have them", unquote),
  (
    "file names with backslashes and percent signs",
    lambda name: unquote(name.replace("\\", "/")),
  ),
  ("file names that are URLs", _last_of_url),
)


def hint(path: str, problem: str) -> str:
  """What may be wrong with a name that means no file, to be said after it; "" if nothing shows."""
  if "does not exist" not in problem:
    return ""
  if "\\" in path:
    return ". Backslashes part folders in Windows alone; write /"
  if ":/" in path:
    return ". It is a URL; fetch the files and write their names"
  return ". Percent signs are as URLs have them; write plain names" if "%" in path else ""
