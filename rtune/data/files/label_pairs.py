"""Images with their masks of classes, checked before training; what is wrong goes into a report."""

import math
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rtune.data.files import folder, image_files, label_masks, validate
from rtune.data.files.label_masks import Coding
from rtune.data.files.threads import in_threads
from rtune.errors import DataError
from rtune.predictions.labels import IGNORE


class Pair(NamedTuple):
  """Paths of an image and of its mask; "" is the mask of an image that nobody has labeled."""

  image: str
  mask: str
  image_id: int
  name: str  # by which a list says it


class Folders(NamedTuple):
  """Where images and masks are, as LabelFolder explains it."""

  images: str
  masks: str  # "": no image has a mask
  image_suffix: str
  mask_suffix: str
  listed: str


class Checks(NamedTuple):
  """What to look at before training.

  Attributes:
    max_pixels: larger images are refused.
    headers: look at the header of every image and mask.
    masks: read so many masks, from the first on.
  """

  max_pixels: int
  headers: bool
  masks: int


def find(
  where: Folders, unlabeled: bool, allow_outside: bool, report: validate.Report
) -> list[Pair]:
  """All pairs, or those of the list; what lacks its other half is an error.

  Args:
    unlabeled: an image may lack its mask.
    allow_outside: links may lead out of the folders.
  """
  for path in (where.images, where.masks):
    if path and not os.path.isdir(path):
      mend = "Correct `root`, `images` or `masks`"
      report.error("folders that do not exist", mend, repr(path))
  report.raise_errors()
  of_images, of_masks = _both(where, report)
  if where.listed:
    keys = _listed(where, of_images, report)
  else:
    keys = sorted(of_images)
    for key in sorted(of_masks.keys() - of_images.keys()):
      mend = "Add the images, remove the masks, or name those to use in a file (`listed`)"
      report.error("masks without an image", mend, repr(os.path.join(where.masks, of_masks[key])))
  for key in keys if not unlabeled else ():
    if key not in of_masks:
      mend = "Add the masks, correct `mask_suffix`, or name those to use in a file (`listed`)"
      what = repr(os.path.join(where.images, of_images[key]))
      report.error("images without a mask", mend, what)
  if not keys:
    mend = "Correct `images`, `image_suffix` or `listed`"
    report.error("folders without an image", mend, repr(where.images))
  report.raise_errors()
  masked = [key for key in keys if key in of_masks]
  names = [of_images[key] for key in keys], [of_masks[key] for key in masked]
  paths = image_files.locate(where.images, names[0], allow_outside, report)
  found = image_files.locate(where.masks, names[1], allow_outside, report) if masked else []
  report.raise_errors()
  mask_of = dict(zip(masked, found, strict=True))
  ids = folder.image_ids([pathlib.Path(key) for key in keys])
  rows = zip(keys, paths, ids, strict=True)
  return [Pair(path, mask_of.get(key, ""), number, key) for key, path, number in rows]


def usable(
  pairs: Sequence[Pair], coding: Coding, checks: Checks, report: validate.Report
) -> list[Pair]:
  """The pairs without those that have no label at all, as far as `checks` looks."""
  bad = _check_headers(pairs, coding, checks, report) if checks.headers else set()
  masked = [pair for pair in pairs if pair.mask and pair.mask not in bad]
  looked = masked[: checks.masks]
  empty = _check_contents(looked, coding, checks, report)
  for pair in looked if len(empty) < len(looked) else ():
    if pair.mask in empty:
      kind = "masks in which every pixel is ignored"
      report.warn(kind, "Their images are left out", repr(pair.mask))
  if looked and len(empty) == len(looked):
    mend = "Correct `classes`, `ids`, `colors` or `ignore`"
    what = f"all {len(looked)} masks that were read, such as {looked[0].mask!r}"
    report.error("sets of masks in which every pixel is ignored", mend, what)
  return [pair for pair in pairs if not pair.mask or pair.mask not in empty]


def differ(mask: str, mask_size: Sequence[int], image: str, size: Sequence[int]) -> str:
  """What to say of a mask and an image of other (height, width)."""
  return f"{mask!r} is {mask_size[1]} x {mask_size[0]}, {image!r} is {size[1]} x {size[0]}"


def claims_more(mask_size: Sequence[int] | None, size: Sequence[int] | None) -> bool:
  """Whether a mask has more pixels than its image: to decode it may take a gigabyte for nothing."""
  return bool(mask_size and size and math.prod(mask_size) > math.prod(size))


def _check_headers(
  pairs: Sequence[Pair], coding: Coding, checks: Checks, report: validate.Report
) -> set[str]:
  """Sizes of images and masks, which must agree; returns the masks that cannot be used."""
  images = [pair.image for pair in pairs]
  of_images = image_files.check(images, checks.max_pixels, report)
  image_files.warn_of_copies(images, report)
  masked = [pair.mask for pair in pairs if pair.mask]
  of_masks = dict(zip(masked, image_files.check(masked, checks.max_pixels, report), strict=True))
  bad = set()
  for pair, size in zip(pairs, of_images, strict=True):
    mask_size = of_masks.get(pair.mask)
    problem = label_masks.problem_of(pair.mask, coding) if mask_size else ""
    if problem:
      report.error("files that are no masks", "Each as told", f"{pair.mask!r} {problem}")
    elif mask_size and size and mask_size != size:
      mend = "Resize masks with nearest neighbor, or give the photographs that they were made on"
      what = differ(pair.mask, mask_size, pair.image, size)
      report.error("masks of another size than their image", mend, what)
    if problem or not mask_size or claims_more(mask_size, size):
      bad.add(pair.mask)
  return bad


def _check_contents(
  pairs: Sequence[Pair], coding: Coding, checks: Checks, report: validate.Report
) -> set[str]:
  """Reads masks; returns those in which every pixel is ignored."""

  def look(pair: Pair) -> tuple[str, bool] | str:
    try:
      mask = label_masks.read_mask(pair.mask, coding, checks.max_pixels)
    except DataError as error:
      return str(error)
    return label_masks.listed(mask), bool(np.all(mask.labels == IGNORE))

  found = in_threads(look, pairs)
  empty = set()
  for pair, result in zip(pairs, found, strict=True):
    if isinstance(result, str):
      report.error("masks that cannot be read", "Each as told", result)
    elif result[0]:
      what = f"{pair.mask!r} ({result[0]})"
      report.error(label_masks.UNKNOWN_KIND, label_masks.UNKNOWN_MEND, what)
    elif result[1]:
      empty.add(pair.mask)
  return empty


def _both(where: Folders, report: validate.Report) -> tuple[dict[str, str], dict[str, str]]:
  """Images and masks by what their names share: name -> path from its folder."""
  pattern = where.mask_suffix
  prefix, _, suffix = pattern.partition("{}") if "{}" in pattern else ("", "", pattern)
  of_masks: dict[str, str] = {}
  if where.masks:
    of_masks = _named(where.masks, prefix, suffix, where.images, (), report)
  beside = bool(where.masks) and os.path.samefile(where.images, where.masks)
  masks = set(of_masks.values()) if beside else set()  # what is a mask is no image
  return _named(where.images, "", where.image_suffix, where.masks, masks, report), of_masks


def _named(
  where: str,
  prefix: str,
  suffix: str,
  other: str,
  leave_out: Collection[str],
  report: validate.Report,
) -> dict[str, str]:
  """Files below a folder, but those in the `other` one; of two with one name, an error."""
  root = pathlib.Path(where)
  found: dict[str, str] = {}
  apart = pathlib.Path(other) if other and not os.path.samefile(where, other) else None
  for path in folder.images_in(root, report, apart):
    name, file = path.name, path.relative_to(root).as_posix()
    end = suffix or path.suffix
    fits = name.startswith(prefix) and name.endswith(end) and len(name) > len(prefix) + len(end)
    if not fits or file in leave_out:
      continue
    key = path.with_name(name[len(prefix) : len(name) - len(end)]).relative_to(root).as_posix()
    if key in found:
      mend = "Say which is meant with `image_suffix`, or remove one"
      report.error("files of one name", mend, f"{found[key]!r}, {file!r}")
    found[key] = file
  return found


def _listed(where: Folders, of_images: Mapping[str, str], report: validate.Report) -> list[str]:
  """The names of a list that are there; others are errors."""
  by_file = {file: key for key, file in of_images.items()}
  keys = []
  for line in validate.load_lines(where.listed):
    name = line.removeprefix("./")
    options = (name, name.removesuffix(where.image_suffix), by_file.get(name))
    key = next((key for key in options if key in of_images), None)
    if key is None:
      mend = "Write names as they are below `images`, one a line"
      report.error(f"names in {where.listed} without an image", mend, repr(line))
    else:
      keys.append(key)
  return list(dict.fromkeys(keys))
