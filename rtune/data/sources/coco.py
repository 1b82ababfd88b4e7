"""Images with boxes from a COCO detection file, checked as a whole before training starts.

Dimension key:
  I: images
  N: boxes of one image that can be learned
  M: boxes of one image that are scored
  T: boxes of all images, ordered by image
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from rtune.data.files import (
  coco_boxes,
  coco_doubts,
  coco_json,
  file_names,
  image_files,
  validate,
)
from rtune.data.files.images import MAX_PIXELS, read_image
from rtune.data.source import Example

# Stands for the size of an unknown image: larger than any, and exact in float32.
_FAR = 2**20
_SCORED = " in training; the metric takes them as they are, as the official scorer does"


class CocoDetection:
  """A `DetectionSource` from a COCO JSON file and a folder of images. It counts its boxes, too.

  Images without boxes are kept. Boxes to learn from are cut at the edges of their image, and those
  with nothing left are left out. A metric must not score that, so an example also has the file's
  own boxes as COCO's official scorer reads them, all but those with NaN or infinite numbers:
    official_boxes: float64 [M, 4] as (x, y, width, height).
    official_labels: int32 [M].
    official_crowd: bool [M].
    official_area: float64 [M]; of the box, where the file has none.

  Attributes:
    classes: category names, ordered by category id.
    category_ids: the file's category ids, same order; label k is `category_ids[k]`.
    paths: of the image files, in the order of the source.
    warnings: what was found and put right, one line for each kind; empty if nothing was.
  """

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
      annotations: COCO detection JSON (`images`, `annotations`, `categories`; bbox as x, y, w, h).
      images: folder that the file names start from. Empty: `info.image_root` of the JSON, from
        the JSON's own folder, or that folder itself.
      max_pixels: larger images are refused.
      allow_outside_root: also read images whose names or links lead out of the image folder, and
        an absolute `info.image_root`.
      check_images: look at the header of every image file now (COCO's 118,000: under a minute).
        Otherwise broken files and boxes outside their image come to light while training.

    Raises:
      DataError: one report of all that is wrong.
    """
    annotations = os.path.expanduser(annotations)
    report = validate.Report(annotations)
    data = validate.load_json(annotations)
    parts = validate.sections(data, ("images", "annotations", "categories"), report)
    if images:
      root = os.path.expanduser(images)
    else:
      root = coco_json.image_root(annotations, data, allow_outside_root, report)
    self._max_pixels = max_pixels
    records = parts["annotations"]
    known = coco_json.categories(parts["categories"], coco_json.annotated(records), report)
    self.category_ids, self.classes = known.ids, known.names
    numbers = coco_json.image_ids(parts["images"], report)
    self._image_ids = numbers.numbers
    names = file_names.of_records(parts["images"], report)
    table = coco_boxes.table(records, numbers, known.labels, report)
    self.paths = image_files.locate(root, names, allow_outside_root, report)
    sizes = image_files.check(self.paths, max_pixels, report) if check_images else []
    report.raise_errors()
    if check_images:
      image_files.warn_of_copies(self.paths, report)
    declared = coco_json.declared_sizes(parts["images"])
    _compare_sizes(names, declared, sizes, report)
    coco_doubts.warn_of_names(known, report)
    coco_doubts.warn_of_federation(parts["images"], report)
    coco_doubts.warn_of_layout(table, _limits(sizes or declared), report)
    # Without the true sizes nothing is cut here; reading an example does it.
    limits = _limits(sizes or [None] * len(names))
    finite = np.isfinite(table["xywh"]).all(axis=1)
    boxes, keep = _clean(records, table, finite, limits, report)
    self._table, self._boxes, self._clean = table[finite], boxes[finite], keep[finite]
    self._starts = np.searchsorted(self._table["image"], np.arange(len(names) + 1))
    self.warnings = report.warnings()

  def class_counts(self) -> Int[np.ndarray, " c"]:
    """Boxes of each class, crowd regions not counted."""
    labels = self._table["label"][self._clean & ~self._table["crowd"]]
    return np.bincount(labels, minlength=len(self.classes))

  def box_counts(self) -> Int[np.ndarray, " i"]:
    """Boxes of each image, crowd regions not counted."""
    images = self._table["image"][self._clean & ~self._table["crowd"]]
    return np.bincount(images, minlength=len(self))

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> Example:
    """Reads one image; raises DataError, naming the file, if that fails."""
    if not 0 <= index < len(self):
      raise IndexError(f"image {index} of {len(self)}")
    image = read_image(self.paths[index], self._max_pixels)
    rows = slice(self._starts[index], self._starts[index + 1])
    # The file may have changed since it was checked, or was not checked at all.
    boxes, inside = _clip(self._boxes[rows], np.array(image.shape[:2]))
    keep, table = inside & self._clean[rows], self._table[rows]
    boxes, annotations = boxes[keep], table[keep]
    area = annotations["area"]
    return {
      "image": image,
      "image_id": self._image_ids[index],
      "boxes": boxes,
      "labels": annotations["label"].copy(),
      "crowd": annotations["crowd"].copy(),
      "area": np.where(np.isnan(area), (boxes[:, 2:] - boxes[:, :2]).prod(axis=1), area),
      "official_boxes": table["xywh"].copy(),
      "official_labels": table["label"].copy(),
      "official_crowd": table["official_crowd"].copy(),
      "official_area": table["official_area"].copy(),
    }


def _limits(sizes: Sequence[tuple[int, int] | None]) -> Int[np.ndarray, "i 2"]:
  return np.array([size or (_FAR, _FAR) for size in sizes], np.int64)


def _clip(
  boxes: Float[np.ndarray, "n 4"], limits: Int[np.ndarray, "*n 2"]
) -> tuple[Float32[np.ndarray, "n 4"], Bool[np.ndarray, " n"]]:
  """Boxes cut at the limits (height, width), and which of them have an area left."""
  cut = np.clip(boxes, 0, np.concatenate([limits, limits], axis=-1)).astype(np.float32)
  return cut, (cut[:, 2:] > cut[:, :2]).all(axis=1)


def _clean(
  records: Sequence[Mapping[str, Any]],
  table: np.ndarray,
  finite: Bool[np.ndarray, " t"],
  limits: Int[np.ndarray, "i 2"],
  report: validate.Report,
) -> tuple[Float32[np.ndarray, "t 4"], Bool[np.ndarray, " t"]]:
  """Boxes as (y0, x0, y1, x1), cut, and which of them can be learned."""
  sized = finite & (table["xywh"][:, 2:] > 0).all(axis=1)
  x, y, width, height = np.where(finite[:, None], table["xywh"], 0).T
  whole = np.stack([y, x, y + height, x + width], axis=1)
  boxes, inside = _clip(whole, limits[table["image"]])
  keep = sized & inside
  over = keep & (np.abs(boxes - whole) > 1).any(axis=1)
  for kind, mend, which in (
    ("boxes with NaN or infinite numbers", "Left out", ~finite),
    ("boxes without width or height", f"Left out{_SCORED}", finite & ~sized),
    ("boxes outside their image", f"Left out{_SCORED}", sized & ~inside),
    (
      "boxes that reach over the edge of their image by more than a pixel",
      f"Cut there{_SCORED}",
      over,
    ),
  ):
    for row in table["row"][which].tolist():
      report.warn(kind, mend, coco_boxes.name_of(records[row]))
  coco_doubts.warn_of_areas(records, table, keep, report)
  keep &= ~coco_doubts.unwanted(records, table, report)
  if not (keep & ~table["crowd"]).any():
    crowds = int((keep & table["crowd"]).sum())
    what = f"{report.path}, {crowds} boxes with iscrowd 1" if crowds else report.path
    report.warn("files without a single usable box", "Every image counts as empty", what)
  return boxes, keep


def _compare_sizes(
  names: Sequence[str],
  declared: Sequence[tuple[int, int] | None],
  found: Sequence[tuple[int, int] | None],
  report: validate.Report,
) -> None:
  for name, said, true in zip(names, declared, found, strict=False):  # found is empty if unchecked
    if said is None or true is None or said == true:
      continue
    kind = "images whose size is not the one in the file"
    mend = "The true size is used. If they were resized, the boxes must be scaled, too"
    if said == true[::-1]:
      kind = "images whose height and width are exchanged in the file"
      mend = "They are read as viewers show them. If boxes suit the picture without its EXIF turn,"
      mend += " remove the EXIF data"
    report.warn(kind, mend, f"{name!r} (height, width {said}, truly {true})")
