"""The boxes of a COCO file as one table; what is wrong goes into a report.

Dimension key:
  T: annotations of all images, ordered by image
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle

from rtune.data.files import ids, validate

Record = Mapping[str, Any]

# One annotation as the file has it: `row` in its list, `image` the row in the list of images, and
# `counts` whether it says so. `area` may be NaN, `official_area` and `official_crowd` are what
# COCO's scorer reads.
ANNOTATION = np.dtype(
  [
    ("row", np.int64),
    ("image", np.int64),
    ("label", np.int32),
    ("crowd", np.bool_),
    ("counts", np.bool_),
    ("area", np.float32),
    ("xywh", np.float64, 4),
    ("official_area", np.float64),
    ("official_crowd", np.bool_),
  ]
)

# What tools write to say that an annotation is none: CrowdHuman and mmdetection, VOC, Label Studio
# and VizWiz.
_FLAGS = frozenset(
  (
    *("ignore", "ignored", "is_ignored", "ignore_flag", "difficult"),
    *("rejected", "is_rejected", "is_precanned", "was_cancelled"),
  )
)
_TRUE = (True, 1, "1", "true", "True", "yes")


def table(
  records: Sequence[Record], images: ids.Ids, labels: Mapping[Any, int], report: validate.Report
) -> np.ndarray:
  """The sound annotations as ANNOTATION [T], ordered by image; the others are errors.

  Args:
    images: ids of the list of images.
    labels: what `ids.key` makes of a category's id -> its label.
  """
  ids.number(records, "annotations", report)
  image = _places(records, "image_id", images.rows, report)
  label = _places(records, "category_id", labels, report)
  boxes = [_box(record) for record in records]
  found = [
    row
    for row, (i, j, box) in enumerate(zip(image, label, boxes, strict=True))
    if i is not None and j is not None and box is not None
  ]
  if len(found) < len(records):
    _tell_unsound(records, image, label, boxes, report)
  result = np.zeros(len(found), ANNOTATION)
  result["row"] = found
  result["image"] = [image[row] for row in found]
  result["label"] = [label[row] for row in found]
  result["xywh"] = np.array([boxes[row] for row in found], np.float64).reshape(-1, 4)
  sound = [records[row] for row in found]
  crowd = [record.get("iscrowd", 0) for record in sound]
  result["crowd"] = [value in (1, "1") for value in crowd]
  result["official_crowd"] = [value not in (None, 0, "", "0") for value in crowd]
  result["counts"] = [counts(record) for record in sound]
  _read_areas(sound, result, report)
  _warn_of_derived(sound, report)
  return result[np.argsort(result["image"], kind="stable")]


def counts(record: Record) -> bool:
  """Whether an annotation does not say that it is none."""
  return _FLAGS.isdisjoint(record) or not flags_of(record)


def flags_of(record: Record) -> str:
  """How it says so."""
  return ", ".join(name for name in sorted(_FLAGS) if _is_true(record.get(name)))


def name_of(record: Record) -> str:
  """What to call an annotation in messages."""
  return f"annotation {record.get('id')!r:.40}"


def _is_true(value: object) -> bool:
  return isinstance(value, bool | int | float | str) and value in _TRUE


def _places(
  records: Sequence[Record], field: str, rows: Mapping[Any, int], report: validate.Report
) -> list[int | None]:
  """Where a field points to; None where nowhere."""
  values = [record.get(field) for record in records]
  if set(map(type, values)) <= {int}:
    return [rows.get(value) for value in values]
  keys = [ids.key(value) for value in values]
  for record, value, one in zip(records, values, keys, strict=True):
    if isinstance(value, str) and isinstance(one, int):
      report.warn(f"annotations whose {field} is in quotes", "Read as numbers", name_of(record))
  return [rows.get(one) for one in keys]


def _box(record: Record) -> Sequence[float] | None:
  """x, y, width, height, of the segmentation where there is no bbox; None: there is neither."""
  bbox = record.get("bbox")
  if isinstance(bbox, list) and len(bbox) == 4:
    kinds = set(map(type, bbox))
    if kinds <= {float}:
      return bbox
    if kinds <= {float, int}:
      return [float(value) if abs(value) < 1e300 else np.inf for value in bbox]
    return None
  return None if bbox else box_of_shape(record.get("segmentation"))


def box_of_shape(shape: object) -> Sequence[float] | None:
  """The smallest x, y, width, height around polygons or RLE; None where they say nothing."""
  try:
    if isinstance(shape, dict):
      return _box_of_runs(shape)
    if not isinstance(shape, list) or not shape:
      return None
    polygons = [shape] if isinstance(shape[0], int | float) else shape
    points = np.array(list(itertools.chain.from_iterable(polygons)), np.float64).reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]
  except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
    return None


def _box_of_runs(shape: Mapping[str, Any]) -> Sequence[float] | None:
  height, width = map(validate.whole_number, shape["size"])
  # pycocotools divides by the height, whatever it is.
  if not height or not width or not (0 < height < 2**20 and 0 < width < 2**20):
    return None
  packed = isinstance(shape["counts"], str | bytes)
  x, y, *sides = rle.toBbox(shape if packed else rle.frPyObjects(shape, height, width))
  return [float(x), float(y), *map(float, sides)] if all(sides) else None


def _tell_unsound(
  records: Sequence[Record],
  image: Sequence[int | None],
  label: Sequence[int | None],
  boxes: Sequence[Sequence[float] | None],
  report: validate.Report,
) -> None:
  for record, i, j, box in zip(records, image, label, boxes, strict=True):
    name = name_of(record)
    for place, field, kind in (
      (i, "image_id", "image"),
      (j, "category_id", "category"),
    ):
      if place is None and ids.key(record.get(field)) is None:
        report.error(*ids.missing(name, record, field))
      elif place is None:
        plural = {"image": "images", "category": "categories"}[kind]
        what = f"{name} ({field} {record[field]!r:.40})"
        mend = f"List the {kind}, or remove them"
        report.error(f"annotations of unknown {plural}", mend, what)
    if box is None and _is_empty(record):
      report.warn("empty objects, without box and shape", "Left out", name)
    elif box is None:
      mend = "Give each a bbox as [x, y, width, height] in pixels, or a segmentation"
      report.error("annotations without four numbers as bbox", mend, name)


def _is_empty(record: Record) -> bool:
  """Whether a tool has left an object without anything, as others leave [0, 0, 0, 0]."""
  said = [record[field] for field in ("bbox", "segmentation") if field in record]
  return bool(said) and all(value in ([], None, [[]]) for value in said)


def _read_areas(records: Sequence[Record], result: np.ndarray, report: validate.Report) -> None:
  """The area of each annotation, for learning, and as the official scorer reads it."""
  said = [record.get("area") for record in records]
  if set(map(type, said)) <= {float}:
    areas = np.array(said, np.float64)
    known = np.ones(len(said), bool)
  else:
    known = np.array([isinstance(area, int | float) for area in said], bool)
    # JSON has whole numbers of any size, float64 has not.
    areas = np.array(
      [min(max(a, -1e300), 1e300) if ok else 0.0 for a, ok in zip(said, known, strict=True)],
      np.float64,
    )
  with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is dropped later
    box_area = result["xywh"][:, 2] * result["xywh"][:, 3]
  # NaN stays: the official tool finds it in every range of sizes.
  result["official_area"] = np.where(known, areas, box_area)
  sensible = known & (areas >= 0) & (areas < 1e30)
  result["area"] = np.where(sensible, areas, np.nan)
  for row in np.flatnonzero(~sensible):
    if "area" in records[row]:
      kind = "annotations whose area is no area"
      report.warn(kind, "The box's area is used", name_of(records[row]))


def _warn_of_derived(records: Sequence[Record], report: validate.Report) -> None:
  for record in records:
    if not record.get("bbox"):
      kind = "annotations without a bbox, but with a segmentation"
      report.warn(kind, "The box around it is taken", name_of(record))
