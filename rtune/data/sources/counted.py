"""Images of which somebody has said how many objects of each class there are, and not where."""

import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from rtune.data.files import coco_json, file_names, image_files, validate
from rtune.data.files.images import MAX_PIXELS, read_image
from rtune.data.source import Example

_HOW = 'Write {"counts": {"name of a class": 3}}, or {"labels": ["name of a class"]}'


class Counted:
  """A `DetectionSource` whose boxes are unknown: each is as large as its image.

  Rewards that read classes alone, as those of `rtune.rewards.weak` do, can be tuned for on it; to
  imitate its boxes would teach nonsense, and so would views that crop.

  Attributes:
    classes: category names, ordered by category id.
    category_ids: the file's category ids, same order.
    paths: of the image files, in the order of the source.
    warnings: what was found odd, one line for each kind; empty if nothing was.
  """

  unknown = "where objects are"

  def __init__(
    self,
    annotations: str,
    images: str = "",
    *,
    max_pixels: int = MAX_PIXELS,
    allow_outside_root: bool = False,
    check_images: bool = True,
  ):
    """Reads and checks everything but the pixels.

    Args:
      annotations: a JSON with `images` and `categories` as COCO has them, where each image also has
        `counts`, a number for each class that is there, or `labels`, the classes that are there.
      images: folder that the file names start from. Empty: `info.image_root` of the JSON, from the
        JSON's own folder, or that folder itself.
      max_pixels: larger images are refused.
      allow_outside_root: also read images whose names or links lead out of the image folder, and
        an absolute `info.image_root`.
      check_images: look at the header of every image file now.

    Raises:
      DataError: one report of all that is wrong.
    """
    annotations = os.path.expanduser(annotations)
    report = validate.Report(annotations)
    data = validate.load_json(annotations)
    parts = validate.sections(data, ("images", "categories"), report)
    root = os.path.expanduser(images)
    root = root or coco_json.image_root(annotations, data, allow_outside_root, report)
    known = coco_json.categories(parts["categories"], set(), report)
    self.category_ids, self.classes = known.ids, known.names
    self._image_ids = coco_json.image_ids(parts["images"], report).numbers
    names = file_names.of_records(parts["images"], report)
    self._counts = _counts(parts["images"], names, self.classes, report)
    self.paths = image_files.locate(root, names, allow_outside_root, report)
    if check_images:
      image_files.check(self.paths, max_pixels, report)
    report.raise_errors()
    if check_images:
      image_files.warn_of_copies(self.paths, report)
    self._max_pixels = max_pixels
    self.warnings = report.warnings()

  def class_counts(self) -> Int[np.ndarray, " c"]:
    """Objects of each class."""
    return self._counts.sum(axis=0)

  def box_counts(self) -> Int[np.ndarray, " i"]:
    """Objects of each image."""
    return self._counts.sum(axis=1)

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> Example:
    """Reads one image; raises DataError, naming the file, if that fails."""
    if not 0 <= index < len(self):
      raise IndexError(f"image {index} of {len(self)}")
    image = read_image(self.paths[index], self._max_pixels)
    labels = np.repeat(np.arange(len(self.classes), dtype=np.int32), self._counts[index])
    whole = np.array([0, 0, *image.shape[:2]], np.float32)
    return {
      "image": image,
      "image_id": self._image_ids[index],
      "boxes": np.tile(whole, (len(labels), 1)),
      "labels": labels,
      "crowd": np.zeros(len(labels), bool),
      "area": np.full(len(labels), float(image.shape[0] * image.shape[1]), np.float32),
    }


def _counts(
  records: Sequence[Mapping[str, Any]],
  names: Sequence[str],
  classes: Sequence[str],
  report: validate.Report,
) -> Int[np.ndarray, "i c"]:
  """How many objects of each class each image has; a class in a list of labels counts as one."""
  found, places = np.zeros((len(records), len(classes)), int), {c: k for k, c in enumerate(classes)}
  for row, (record, name) in enumerate(zip(records, names, strict=True)):
    counts = record.get("counts")
    if counts is None and isinstance(record.get("labels"), list):
      counts = dict.fromkeys(map(str, record["labels"]), 1)
    if not isinstance(counts, dict):
      report.error("images without counts or labels", _HOW, repr(name))
      continue
    for key, count in counts.items():
      one, number = unicodedata.normalize("NFC", key), validate.whole_number(count)
      if one not in places:
        report.error("classes that are not among the categories", "Add or correct them", repr(one))
      elif number is None or number < 0:
        kind = "counts that are no whole numbers of 0 or more"
        report.error(kind, "Correct them", f"{name!r} ({one!r}: {count!r})")
      else:
        found[row, places[one]] = number
  return found
