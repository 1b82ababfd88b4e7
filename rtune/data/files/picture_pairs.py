"""Degraded pictures and their clean ones as files, matched by name and checked before training.

In a pattern of names {} stands for what both files of a pair share: of "0001_NOISY_010.PNG" and
"0001_GT_010.PNG" the patterns are "{}_NOISY_{}" and "{}_GT_{}". A pattern without an ending such as
".png" fits files of any kind.
"""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rtune.data.files import folder, image_files, picture_checks, validate

_Key = tuple[str, ...]  # folder below the given one, then what each {} stands for


class PicturePair(NamedTuple):
  """Paths of a degraded picture and of its clean one."""

  degraded: str
  clean: str
  image_id: int


class PairFolders(NamedTuple):
  """Where both kinds are, as Pairs explains it."""

  degraded: str
  clean: str
  degraded_name: str
  clean_name: str
  listed: str


def find(
  where: PairFolders, split: str, holdout: float, allow_outside: bool, report: validate.Report
) -> list[PicturePair]:
  """All pairs of a split, or those of the list; what lacks its other half is an error."""
  for path in (where.degraded, where.clean):
    if not os.path.isdir(path):
      report.error("folders that do not exist", "Correct `root`, `degraded` or `clean`", repr(path))
  report.raise_errors()
  of_degraded, of_clean = _both(where, report)
  keys = _listed(where.listed, of_degraded, report) if where.listed else sorted(of_degraded)
  for key in keys:
    if key not in of_clean:
      mend = "Add those, correct `clean_name`, or name what to use in a file (`listed`)"
      what = repr(os.path.join(where.degraded, of_degraded[key]))
      report.error("degraded images without a clean one", mend, what)
  for key in sorted(of_clean.keys() - of_degraded.keys()) if not where.listed else ():
    mend = "Add those, correct `degraded_name`, or name what to use in a file (`listed`)"
    what = repr(os.path.join(where.clean, of_clean[key]))
    report.error("clean images without a degraded one", mend, what)
  chosen = [key for key in keys if folder.in_split("/".join(key), split, holdout)]
  if not chosen:
    what = f"{split} split of {len(keys)} pairs" if keys and split else repr(where.degraded)
    mend = "Give more, or correct `degraded`, `degraded_name` or `listed`"
    if keys and split:
      mend = "Give more, or a larger `holdout` of both splits, such as 0.3"
    report.error("sets without a pair", mend, what)
  report.raise_errors()
  sides = (where.degraded, of_degraded), (where.clean, of_clean)
  paths = [
    image_files.locate(root, [named[key] for key in chosen], allow_outside, report)
    for root, named in sides
  ]
  report.raise_errors()
  # Numbers go by all pairs, so that a pair has the same one in every split.
  numbers = folder.image_ids([pathlib.Path("".join(key[1:])) for key in keys])
  number_of = dict(zip(keys, numbers, strict=True))
  rows = zip(chosen, *paths, strict=True)
  return [PicturePair(degraded, clean, number_of[key]) for key, degraded, clean in rows]


def check(
  pairs: Sequence[PicturePair], scale: int, least: int, max_pixels: int, report: validate.Report
) -> None:
  """Looks at the headers of all files: sizes, depth, alpha.

  Args:
    scale: sides of a clean picture over those of its degraded one.
    least: smaller degraded pictures are errors.
  """
  degraded, clean = ([pair[place] for pair in pairs] for place in (0, 1))
  sizes, clean_sizes = (image_files.check(paths, max_pixels, report) for paths in (degraded, clean))
  image_files.warn_of_copies(degraded, report)
  picture_checks.check_sides(degraded, sizes, least, report)
  picture_checks.warn_of_conversions([*degraded, *clean], max_pixels, report)
  for pair, size, clean_size in zip(pairs, sizes, clean_sizes, strict=True):
    if size and clean_size:
      _compare(pair, size, clean_size, scale, report)


def fits(size: tuple[int, int], clean_size: tuple[int, int], scale: int) -> bool:
  """Whether a clean picture is `scale` times as large, or less than one degraded pixel larger."""
  return all(0 <= large - scale * n < scale for n, large in zip(size, clean_size, strict=True))


def sizes_of(pair: PicturePair, size: tuple[int, int], clean_size: tuple[int, int]) -> str:
  """What to say of a pair's sizes."""
  both = (pair.degraded, size), (pair.clean, clean_size)
  return ", ".join(f"{path!r} is {width} x {height}" for path, (height, width) in both)


def _compare(
  pair: PicturePair,
  size: tuple[int, int],
  clean_size: tuple[int, int],
  scale: int,
  report: validate.Report,
) -> None:
  what = sizes_of(pair, size, clean_size)
  if not fits(size, clean_size, scale):
    kind = "pairs of different sizes"
    mend = "Crop or scale both to one size, or set `scale`"
    if scale > 1:
      kind = f"pairs in which the clean image is not {scale} times as large"
      mend = "Correct `scale`, or crop the clean one and scale it down again"
    report.error(kind, mend, what)
  elif clean_size != (scale * size[0], scale * size[1]):
    kind = f"clean images with a side that is no multiple of {scale}"
    report.warn(kind, "Cut at the right and below, as benchmarks do", what)


def _both(where: PairFolders, report: validate.Report) -> tuple[dict[_Key, str], dict[_Key, str]]:
  """Degraded and clean files by what their names share: key -> path from its folder."""
  of_degraded = _named(where.degraded, where.degraded_name, where.clean, report)
  of_clean = _named(where.clean, where.clean_name, where.degraded, report)
  if os.path.samefile(where.degraded, where.clean):
    # What fits both patterns belongs to the one that says more: "a_noisy" is no "{}".
    says_less = len(where.degraded_name) < len(where.clean_name)
    less, more = (of_degraded, of_clean) if says_less else (of_clean, of_degraded)
    taken = set(more.values())
    for key in [key for key, file in less.items() if file in taken]:
      del less[key]
  return of_degraded, of_clean


def _named(where: str, pattern: str, other: str, report: validate.Report) -> dict[_Key, str]:
  """Files below a folder that fit, but those in the `other` one; of two with one key, an error."""
  root = pathlib.Path(where)
  apart = pathlib.Path(other) if not os.path.samefile(where, other) else None
  fitting = re.compile("(.*)".join(re.escape(part) for part in pattern.split("{}")))
  ends = pattern.lower().endswith(folder.SUFFIXES)
  found: dict[_Key, str] = {}
  for path in folder.images_in(root, report, apart):
    match = fitting.fullmatch(path.name if ends else path.stem)
    if not match or not any(match.groups()):
      continue
    key, file = (path.parent.relative_to(root).as_posix(), *match.groups()), path.relative_to(root)
    if key in found:
      mend = "Say which is meant with the ending in `degraded_name` or `clean_name`, or remove one"
      report.error("files of one name", mend, f"{found[key]!r}, {file.as_posix()!r}")
    found[key] = file.as_posix()
  return found


def _listed(listed: str, of_degraded: Mapping[_Key, str], report: validate.Report) -> list[_Key]:
  """The keys of a list's names that are there; others are errors."""
  by_name = {file: key for key, file in of_degraded.items()}
  by_name |= {os.path.splitext(file)[0]: key for file, key in by_name.items()}
  keys = []
  for line in validate.load_lines(listed):
    key = by_name.get(line.removeprefix("./"))
    if key is None:
      mend = "Write names as they are below `degraded`, one a line"
      report.error(f"names in {listed} without an image", mend, repr(line))
    else:
      keys.append(key)
  return list(dict.fromkeys(keys))
