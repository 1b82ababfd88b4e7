"""Label maps of JSON files: lists of images with masks of classes, and COCO's panoptic files.

Dimension key:
  C: classes
"""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int16

from rtune.data.files import (
  coco_json,
  file_names,
  folder,
  image_files,
  label_classes,
  validate,
)
from rtune.data.files.images import MAX_PIXELS
from rtune.data.files.label_pairs import Checks, Pair
from rtune.data.files.threads import in_threads
from rtune.data.source import Example
from rtune.data.sources.coco_panoptic import CocoPanoptic
from rtune.data.sources.label_files import LabelFiles
from rtune.errors import UsageError
from rtune.predictions.labels import IGNORE

_SAID = re.compile(r"(\d+)\s*=\s*(?:void|ignore|unlabel)", re.IGNORECASE)


class CocoLabels(LabelFiles):
  """A `LabelSource` from a JSON like COCO's, masks of classes, and a folder of images."""

  def __init__(
    self,
    annotations: str,
    images: str = "",
    masks: str = "",
    *,
    domain: str = "",
    ignore: Sequence[Any] | None = None,
    unlabeled: bool = False,
    max_pixels: int = MAX_PIXELS,
    allow_outside_root: bool = False,
    check_images: bool = True,
    check_masks: int = 200,
  ):
    """Finds the pairs and looks at them.

    Args:
      annotations: JSON with `images`, records with `file_name` and maybe with `mask` (by default
        the name of the image as .png), `id` and `domain`; and with `classes`, names or records with
        `name` and maybe with `index`, the number in masks, and `color`.
      images: folder that the images' file names start from. Empty: `info.image_root` of the JSON,
        from the JSON's own folder, or that folder itself.
      masks: folder of the masks, PNG. Empty: `info.mask_root` in the same way.
      domain: only the images whose record has this `domain`, such as "day"; empty: all.
      ignore: numbers, colors or names of classes that nobody is to learn. None:
        `info.ignore_index`, or the numbers that `info.mask_encoding` calls void, unlabeled or
        ignored, or else 255.
      unlabeled: images without a mask are kept, all of their pixels ignored, as a set to adapt to.
      max_pixels: larger images are refused.
      allow_outside_root: also read files whose names or links lead out of these folders, and
        absolute roots in `info`.
      check_images: look at the header of every image and mask now. Otherwise broken files come to
        light while training.
      check_masks: look at the contents of so many masks now, from the first on.

    Raises:
      UsageError: a domain that does not exist.
      DataError: one report of all that is wrong.
    """
    annotations = os.path.expanduser(annotations)
    report = validate.Report(annotations)
    data = validate.load_json(annotations)
    records = _of_domain(validate.sections(data, ("images",), report)["images"], domain)
    listed = label_classes.from_records(data.get("classes"), annotations)
    ignore = _ignored(data) if ignore is None else ignore
    meant = label_classes.resolve(listed, ignore=ignore)
    folders = (images, masks)
    pairs = _pairs(annotations, data, records, folders, unlabeled, allow_outside_root, report)
    super().__init__(pairs, meant, Checks(max_pixels, check_images, check_masks), report)


class PanopticLabels:
  """A `LabelSource` from a COCO panoptic file: of each segment its class; void is ignored.

  Attributes:
    classes, category_ids, paths, warnings: as those of `CocoPanoptic`.
  """

  def __init__(
    self,
    annotations: str,
    images: str = "",
    masks: str = "",
    *,
    max_pixels: int = MAX_PIXELS,
    allow_outside_root: bool = False,
    check_images: bool = True,
    check_masks: int = 200,
  ):
    """Opens the file; arguments and errors are those of `CocoPanoptic`."""
    self._source = CocoPanoptic(
      annotations,
      images,
      masks,
      max_pixels=max_pixels,
      allow_outside_root=allow_outside_root,
      check_images=check_images,
      check_masks=check_masks,
    )
    self.classes, self.category_ids = self._source.classes, self._source.category_ids
    self.warnings, self.paths = self._source.warnings, self._source.paths

  def pixel_counts(self) -> Int[np.ndarray, " c"]:
    """Pixels of each class, void not counted. Reads all masks."""

    def count(index: int) -> Int[np.ndarray, " c"]:
      labels = _semantic(self._source.segments(index))
      return np.bincount(labels.ravel() + np.int16(1), minlength=len(self.classes) + 1)[1:]

    return np.sum(in_threads(count, range(len(self))), axis=0, dtype=np.int64)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Example:
    """Reads one image and its mask; raises DataError, naming the file, if that fails."""
    example = self._source[index]
    labels = _semantic(example)
    return {"image": example["image"], "image_id": example["image_id"], "label_map": labels}


def _semantic(example: Example) -> Int16[np.ndarray, "h w"]:
  """The class of each pixel's segment."""
  return np.append(IGNORE, example["labels"]).astype(np.int16)[example["segments"]]


def _of_domain(records: Sequence[dict[str, Any]], domain: str) -> list[dict[str, Any]]:
  if not domain:
    return list(records)
  chosen = [record for record in records if record.get("domain") == domain]
  if not chosen:
    known = sorted({str(record["domain"]) for record in records if "domain" in record})
    raise UsageError(
      f"CocoLabels: no image is of the domain {domain!r}; there are {', '.join(known) or 'none'}."
    )
  return chosen


def _ignored(data: Any) -> Sequence[Any]:
  """What the JSON itself says is no class."""
  info = data["info"] if isinstance(data.get("info"), dict) else {}
  number = validate.whole_number(info.get("ignore_index"))
  if number is not None:
    return (number,)
  return tuple(int(said) for said in _SAID.findall(str(info.get("mask_encoding", "")))) or (255,)


def _pairs(
  annotations: str,
  data: Any,
  records: Sequence[dict[str, Any]],
  folders: tuple[str, str],
  unlabeled: bool,
  outside: bool,
  report: validate.Report,
) -> list[Pair]:
  """The images of a JSON with their masks; `folders` as given, maybe empty."""
  images, masks = (os.path.expanduser(given) for given in folders)
  images = images or coco_json.image_root(annotations, data, outside, report)
  masks = masks or coco_json.image_root(annotations, data, outside, report, "mask")
  names = file_names.of_records(records, report)
  has_ids = any("id" in record for record in records)
  paths = [pathlib.Path(name) for name in names]
  ids = coco_json.image_ids(records, report).numbers if has_ids else folder.image_ids(paths)
  if not records:
    report.error("empty lists", "List at least one image", "images")
  report.raise_errors()
  keep = [_mask_of(record, masks, unlabeled, report) for record in records]
  located = image_files.locate(images, names, outside, report)
  wanted = [name for name in keep if name]
  found = image_files.locate(masks, wanted, outside, report) if wanted else []
  report.raise_errors()
  by_name = dict(zip(wanted, found, strict=True))
  rows = zip(located, keep, ids, paths, strict=True)
  return [Pair(path, by_name.get(m, ""), i, p.with_suffix("").as_posix()) for path, m, i, p in rows]


def _mask_of(record: dict[str, Any], masks: str, unlabeled: bool, report: validate.Report) -> str:
  """The name of an image's mask; "" where it has none, which is an error unless `unlabeled`."""
  name = record.get("mask") or pathlib.Path(record["file_name"]).with_suffix(".png").as_posix()
  if not validate.is_file_name(name):
    what = f"{record['file_name']!r} ({name!r:.40})"
    report.error("images without a usable name of a mask", "Name each file as text", what)
  elif os.path.isfile(os.path.join(masks, name)):
    return name
  elif not unlabeled:
    mend = "Add the masks, set `masks` to their folder, or take the images out of the list"
    report.error("images without a mask", mend, repr(os.path.join(masks, name)))
  return ""
