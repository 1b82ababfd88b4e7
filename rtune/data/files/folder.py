"""Image files in folders, the numbers that they go by, and the parts that a set is split into."""

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from rtune.data.files import signatures, validate
from rtune.data.files.opening import formats
from rtune.errors import UsageError

_SPLITS = ("", "train", "val")

# Files in folders are told by these, and others by their first bytes; a file that is named is tried
# whatever it is called.
SUFFIXES = (
  *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".gif", ".bmp", ".ppm", ".pgm", ".pnm"),
  *(".webp", ".tif", ".tiff"),
)
# What file servers, archives and desktops keep for themselves; so do folders that begin with a dot.
_NOT_OURS = ("@eaDir", "@tmp", "#recycle", "#snapshot", "$RECYCLE.BIN", "__MACOSX", "lost+found")
_RAW = (".nef", ".cr2", ".cr3", ".dng", ".arw", ".orf", ".rw2", ".pef", ".srw", ".raf")
_HEAD = 64  # bytes


class Found(NamedTuple):
  """What a folder holds.

  Attributes:
    images: files, by name.
    passed_over: what may hold pictures and is not read, each with the reason.
  """

  images: list[pathlib.Path]
  passed_over: list[tuple[pathlib.Path, str]]


def search(folder: pathlib.Path, leave_out: pathlib.Path | None = None) -> Found:
  """Image files below a folder, by their endings or else by their first bytes.

  Hidden files are not looked at, nor are hidden, trash and thumbnail folders, and what is in
  `leave_out`. Links to folders are not followed, and are passed over unless they lead to where the
  search comes anyway.
  """
  found, passed = [], []
  root = os.path.realpath(folder)

  def unread(error: OSError) -> None:
    passed.append((pathlib.Path(error.filename), f"cannot be opened ({error.strerror})"))

  for parent, folders, files in os.walk(folder, onerror=unread):
    here = pathlib.Path(parent)
    for name in folders:
      if not _left_alone(name) and os.path.islink(here / name):
        target = os.path.realpath(here / name)
        if os.path.commonpath([root, target]) != root:
          passed.append((here / name, "is a link to another folder; name that folder instead"))
    folders[:] = sorted(n for n in folders if not _left_alone(n) and here / n != leave_out)
    for name in sorted(files):
      if name.startswith("."):
        continue
      if name.lower().endswith(SUFFIXES):
        found.append(here / name)
        continue
      kind = _kind_of(here / name)
      if kind in _READ or {"AVIF": "AVIF", "HEIC": "HEIF"}.get(kind) in formats():
        found.append(here / name)
      elif kind:
        passed.append((here / name, f"is {kind}, which is not read; convert it to JPEG or PNG"))
  return Found(found, passed)


def images_in(
  folder: pathlib.Path, report: validate.Report, leave_out: pathlib.Path | None = None
) -> list[pathlib.Path]:
  """As `search`; what is passed over is a warning."""
  found = search(folder, leave_out)
  for path, reason in found.passed_over:
    report.warn("pictures and folders that are passed over", "Each as told", f"{path} {reason}")
  return found.images


def _left_alone(name: str) -> bool:
  return name.startswith(".") or name in _NOT_OURS


_READ = ("JPEG", "PNG", "GIF", "WEBP", "TIFF")  # first bytes that no text begins with


def _kind_of(path: pathlib.Path) -> str:
  """The kind of picture by the first bytes of a file, "" for what is none."""
  if path.suffix.lower() in _RAW:
    return "a raw photograph"
  if not path.is_file():  # to open a pipe would wait for its other end
    return ""
  try:
    with open(path, "rb", buffering=0) as file:
      kind = signatures.image_kind(file.read(_HEAD))
  except OSError:
    return ""
  return "" if kind in ("BMP", "PPM") else kind  # two letters, with which text may begin


def image_ids(paths: Sequence[pathlib.Path]) -> list[int]:
  """The number that a file is called, as in COCO; others get the numbers that are left, from 1."""
  numbers: dict[int, int] = {}  # image id -> place in `paths`; of equal names the first keeps it
  for place, path in enumerate(paths):
    if path.stem.isascii() and path.stem.isdigit() and len(path.stem) <= 18:
      numbers.setdefault(int(path.stem), place)
  ids, following = {place: number for number, place in numbers.items()}, 1
  for place in range(len(paths)):
    while place not in ids and following in numbers:
      following += 1
    if place not in ids:
      ids[place], following = following, following + 1
  return [ids[place] for place in range(len(paths))]


def check_split(who: str, split: str, holdout: float) -> None:
  """Raises UsageError for a split that does not exist, or a share that is none."""
  if split not in _SPLITS:
    raise UsageError(f"{who}: split is {split!r}; it must be 'train', 'val' or empty")
  if not 0 < holdout < 1:
    raise UsageError(f"{who}: holdout is {holdout}; it must lie between 0 and 1")


def in_split(name: str, split: str, holdout: float) -> bool:
  """Whether a file is in a part of its set: follows from its name alone, as files come and go.

  Args:
    split: "val" for a share of `holdout`, "train" for the others, "" for all.
  """
  digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
  held_out = int.from_bytes(digest[:8], "big") < holdout * 2**64
  return not split or held_out == (split == "val")
