"""Image files in folders, and the numbers that they go by."""

import os
import pathlib
from collections.abc import Iterator, Sequence

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
