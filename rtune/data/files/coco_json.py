"""The records of a COCO file, each checked; what is wrong goes into a report.

Dimension key:
  T: annotations of all images, ordered by image
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rtune.data.files import validate

Records = Sequence[Mapping[str, Any]]

# One annotation as the file has it: `image` is the row in its list of images, `area` may be NaN.
ANNOTATION = np.dtype(
  [
    ("id", np.int64),
    ("image", np.int64),
    ("label", np.int32),
    ("crowd", np.bool_),
    ("area", np.float32),
    ("xywh", np.float64, 4),
  ]
)


def image_root(
  annotations: str, data: Any, allow_outside: bool, report: validate.Report, of: str = "image"
) -> str:
  """The folder that file names start from: `info.image_root`, else that of the JSON.

  `of` "mask" asks for `info.mask_root` in the same way.
  """
  folder = os.path.dirname(annotations) or "."
  info = data.get("info")
  name = info.get(f"{of}_root", "") if isinstance(info, dict) else ""
  if name and (not validate.is_file_name(name) or (os.path.isabs(name) and not allow_outside)):
    mend = f"Set `{of}s` to the folder, or make it relative to the JSON"
    report.error(f"values of info.{of}_root that are not used", mend, repr(name))
    return folder
  return os.path.join(folder, name or "")


def _id(record: Mapping[str, Any], key: str, name: str, report: validate.Report) -> int | None:
  value = validate.whole_number(record.get(key))
  if value is None:
    what = f"{key} {record[key]!r:.40}" if key in record else f"no {key}"
    mend = "Write whole numbers, without quotes"
    report.error("ids that are missing or not whole numbers", mend, f"{name} ({what})")
  return value


def _ids(records: Records, kind: str, report: validate.Report) -> list[int]:
  ids = [_id(record, "id", f"{kind}[{row}]", report) for row, record in enumerate(records)]
  seen: set[int | None] = set()
  for number in ids:
    if number is not None and number in seen:
      report.error(f"{kind} with an id used before", "Give each its own id", f"id {number}")
    seen.add(number)
  return [0 if number is None else number for number in ids]  # 0 is never used: an error is noted


def categories(
  records: Records, report: validate.Report
) -> tuple[tuple[int, ...], tuple[str, ...]]:
  """Category ids and names, ordered by id, since files differ in their order."""
  ids = _ids(records, "categories", report)
  for number, record in zip(ids, records, strict=True):
    if not isinstance(record.get("name"), str):
      report.error("categories without a name", "Give each a name as text", f"id {number}")
  if not records:
    report.error("empty lists", "List at least one category", "categories")
  pairs = sorted(zip(ids, (str(record.get("name")) for record in records), strict=True))
  return tuple(number for number, _ in pairs), tuple(name for _, name in pairs)


def image_ids(records: Records, report: validate.Report) -> list[int]:
  """The id of each image."""
  if not records:
    report.error("empty lists", "List at least one image", "images")
  return _ids(records, "images", report)


def file_names(records: Records, report: validate.Report) -> list[str]:
  """The file name of each image; fewer than images if some are unusable, which is an error."""
  names = [record.get("file_name") for record in records]
  for row, name in enumerate(names):
    if not validate.is_file_name(name):
      what = f"images[{row}] ({name!r:.40})"
      report.error("images without a usable file_name", "Name each file as text", what)
  return [name for name in names if validate.is_file_name(name)]


def declared_sizes(records: Records) -> list[tuple[int, int] | None]:
  """(height, width) of each image as the file says; None where it says nothing sensible."""
  pairs = [
    (validate.whole_number(record.get("height")), validate.whole_number(record.get("width")))
    for record in records
  ]
  return [
    (height, width) if height and width and min(height, width) > 0 else None
    for height, width in pairs
  ]


def annotation_table(
  records: Records,
  ids_of_images: Sequence[int],
  ids_of_categories: Sequence[int],
  report: validate.Report,
) -> np.ndarray:
  """The sound annotations as ANNOTATION [T], ordered by image; the others are errors."""
  images = {number: row for row, number in enumerate(ids_of_images)}
  labels = {number: label for label, number in enumerate(ids_of_categories)}
  rows = []
  for number, record in zip(_ids(records, "annotations", report), records, strict=True):
    name = f"annotation {record.get('id')!r:.40}"
    image_id = _id(record, "image_id", name, report)
    category_id = _id(record, "category_id", name, report)
    xywh = _numbers(record.get("bbox"))
    if image_id is not None and image_id not in images:
      mend = "List the image, or remove them"
      report.error("annotations of unknown images", mend, f"{name} (image_id {image_id})")
    if category_id is not None and category_id not in labels:
      mend = "List the category, or remove them"
      report.error("annotations of unknown categories", mend, f"{name} (category_id {category_id})")
    if xywh is None:
      mend = "Give each a bbox as [x, y, width, height] in pixels"
      report.error("annotations without four numbers as bbox", mend, name)
    if xywh is not None and image_id in images and category_id in labels:
      crowd = record.get("iscrowd", 0) in (1, "1")
      area = _area(record, name, report)
      rows.append((number, images[image_id], labels[category_id], crowd, area, xywh))
  found = np.array(rows, ANNOTATION)
  return found[np.argsort(found["image"], kind="stable")]


def captions_of_images(
  records: Records, ids_of_images: Sequence[int], report: validate.Report
) -> list[tuple[str, ...]]:
  """The captions of each image, in the order of the file; those without a word are left out."""
  images = {number: row for row, number in enumerate(ids_of_images)}
  found: list[list[str]] = [[] for _ in ids_of_images]
  for number, record in zip(_ids(records, "annotations", report), records, strict=True):
    name, caption = f"annotation {number}", record.get("caption")
    image_id = _id(record, "image_id", name, report)
    if not isinstance(caption, str):
      report.error("annotations without a caption", "Give each a caption as text", name)
    elif image_id is not None and image_id not in images:
      report.warn("captions of images that are not listed", "Left out", f"{name} ({image_id})")
    elif image_id is not None and not any(letter.isalnum() for letter in caption):
      report.warn("captions without a word", "Left out", f"{name} ({caption!r:.40})")
    elif image_id is not None:
      found[images[image_id]].append(caption)
  return [tuple(captions) for captions in found]


def _numbers(bbox: object) -> tuple[float, ...] | None:
  if not isinstance(bbox, list) or len(bbox) != 4:
    return None
  if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in bbox):
    return None
  return tuple(float(value) if abs(value) < 1e300 else np.inf for value in bbox)


def _area(record: Mapping[str, Any], name: str, report: validate.Report) -> float:
  area = record.get("area", np.nan)
  if isinstance(area, int | float) and 0 <= area < 1e30:
    return float(area)
  if "area" in record:
    report.warn("annotations whose area is no area", "The box's area is used", name)
  return np.nan
