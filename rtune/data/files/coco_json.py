"""The records of a COCO file, each checked; what is wrong goes into a report."""

import collections
import os
import unicodedata
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from rtune.data.files import coco_boxes, ids, validate

Records = Sequence[Mapping[str, Any]]


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


class Categories(NamedTuple):
  """The classes of a file, ordered by id, since files differ in their order.

  Attributes:
    ids: numbers of the categories.
    names: in Unicode's composed form (NFC).
    labels: what `ids.key` makes of a category's id -> its place here.
    rows: places in the file's list.
  """

  ids: tuple[int, ...]
  names: tuple[str, ...]
  labels: Mapping[Hashable, int]
  rows: tuple[int, ...]


def categories(
  records: Records, annotated: Collection[Hashable], report: validate.Report
) -> Categories:
  """The categories of a file, but those that nothing can be of.

  Roboflow's exports begin with the name of the project, which others have as their supercategory;
  as RF-DETR does, such a category is left out where nothing is of it.

  Args:
    annotated: what `ids.key` makes of the ids that annotations have.
  """
  numbers = ids.number(records, "categories", report)
  for number, record in zip(numbers.numbers, records, strict=True):
    if not isinstance(record.get("name"), str):
      report.error("categories without a name", "Give each a name as text", f"id {number}")
  if not records:
    report.error("empty lists", "List at least one category", "categories")
  keys = {row: one for one, row in numbers.rows.items()}
  roots, rows = _roots(records), []
  for row in sorted(range(len(records)), key=lambda row: numbers.numbers[row]):
    if row in roots and keys.get(row) not in annotated:
      kind = "categories that are the supercategory of others, and that nothing is of"
      report.warn(kind, "Left out", repr(records[row]["name"]))
    else:
      rows.append(row)
  labels = {keys[row]: label for label, row in enumerate(rows) if row in keys}
  names = (unicodedata.normalize("NFC", str(records[row].get("name"))) for row in rows)
  return Categories(tuple(numbers.numbers[row] for row in rows), tuple(names), labels, tuple(rows))


def _roots(records: Records) -> set[int]:
  """Categories that others have as their supercategory."""
  above = collections.Counter(
    record["supercategory"]
    for record in records
    if isinstance(record.get("supercategory"), str)
    and record["supercategory"] != record.get("name")
  )
  names = (record.get("name") for record in records)
  return {row for row, name in enumerate(names) if isinstance(name, str) and name in above}


def annotated(records: Records) -> set[Hashable]:
  """What `ids.key` makes of the categories that annotations have."""
  values = [record.get("category_id") for record in records]
  plain = set(map(type, values)) <= {int}
  return set(values) if plain else {ids.key(value) for value in values}


def image_ids(records: Records, report: validate.Report) -> ids.Ids:
  """The id of each image."""
  if not records:
    report.error("empty lists", "List at least one image", "images")
  return ids.number(records, "images", report)


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


def captions_of_images(
  records: Records, images: ids.Ids, report: validate.Report
) -> list[tuple[str, ...]]:
  """The captions of each image, in the order of the file; those without a word are left out."""
  ids.number(records, "annotations", report)
  found: list[list[str]] = [[] for _ in images.numbers]
  for record in records:
    name, caption = coco_boxes.name_of(record), record.get("caption")
    row = images.row(record.get("image_id"))
    if ids.key(record.get("image_id")) is None:
      report.error(*ids.missing(name, record, "image_id"))
    elif not isinstance(caption, str):
      report.error("annotations without a caption", "Give each a caption as text", name)
    elif row is None:
      what = f"{name} ({record['image_id']})"
      report.warn("captions of images that are not listed", "Left out", what)
    elif not coco_boxes.counts(record):
      what = f"{name} ({coco_boxes.flags_of(record)})"
      report.warn("captions that say they do not count", "Left out", what)
    elif not any(letter.isalnum() for letter in caption):
      report.warn("captions without a word", "Left out", f"{name} ({caption!r:.40})")
    else:
      found[row].append(caption)
  return [tuple(captions) for captions in found]
