"""Image files in folders, the numbers that they go by, and the parts that a set is split into."""

import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence

from rtune.errors import UsageError

_SPLITS = ("", "train", "val")

# Files in folders; a file that is named is tried whatever it is called.
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")


def image_files(
  folder: pathlib.Path, leave_out: pathlib.Path | None = None
) -> Iterator[pathlib.Path]:
  """Image files below a folder, by name; hidden ones and what is in `leave_out` are not found."""
  for parent, folders, files in os.walk(folder):
    here = pathlib.Path(parent)
    folders[:] = sorted(name for name in folders if here / name != leave_out)
    for name in sorted(files):
      if name.lower().endswith(SUFFIXES) and not name.startswith("."):
        yield here / name


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
