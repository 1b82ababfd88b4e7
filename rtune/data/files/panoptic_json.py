"""The records of a COCO panoptic file, each checked; what is wrong goes into a report."""

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from rtune.data.files import coco_json, id_masks, ids, validate


class Annotation(NamedTuple):
  """The segments of one image."""

  mask: str  # file name
  ids: tuple[int, ...]
  labels: tuple[int, ...]
  crowd: tuple[bool, ...]


def mask_root(annotations: str, data: Any, allow_outside: bool, report: validate.Report) -> str:
  """The folder of masks: `info.mask_root`, else the one beside the JSON with its name, else its."""
  root = coco_json.image_root(annotations, data, allow_outside, report, "mask")
  alike = os.path.splitext(annotations)[0]
  said = isinstance(data.get("info"), dict) and data["info"].get("mask_root")
  return alike if not said and os.path.isdir(alike) else root


def things(
  records: Sequence[Mapping[str, Any]], rows: Sequence[int], report: validate.Report
) -> tuple[bool, ...]:
  """`isthing` of the categories in these rows, in their order."""
  for row in rows:
    if records[row].get("isthing") not in (0, 1):
      mend = "Give each isthing, 1 for what has instances and 0 for stuff"
      report.error("categories without isthing", mend, f"id {records[row].get('id')}")
  return tuple(bool(records[row].get("isthing")) for row in rows)


def annotated(records: Sequence[Mapping[str, Any]]) -> set[Hashable]:
  """What `ids.key` makes of the categories that segments have."""
  lists = (record.get("segments_info") for record in records)
  segments = (one for found in lists if isinstance(found, list) for one in found)
  return {ids.key(one.get("category_id")) for one in segments if isinstance(one, dict)}


def annotations(
  records: Sequence[Mapping[str, Any]],
  images: ids.Ids,
  labels: Mapping[Hashable, int],
  report: validate.Report,
) -> dict[int, Annotation]:
  """The sound annotations by row of their image; the others are errors.

  Args:
    images: ids of the list of images.
    labels: what `ids.key` makes of a category's id -> its label.
  """
  found: dict[int, Annotation] = {}
  for row, record in enumerate(records):
    image = images.row(record.get("image_id"))
    name = f"annotations[{row}] (image_id {record.get('image_id')!r:.40})"
    segments = record.get("segments_info")
    if ids.key(record.get("image_id")) is None:
      report.error("annotations without an image_id", "Write whole numbers", name)
    elif image is None:
      report.error("annotations of unknown images", "List the image, or remove them", name)
    elif image in found:
      report.error("images that are annotated twice", "Keep one annotation of each", name)
    elif not validate.is_file_name(record.get("file_name")):
      report.error("annotations without a usable file_name", "Name each mask as text", name)
    elif not isinstance(segments, list) or not all(isinstance(one, dict) for one in segments):
      mend = "Give a panoptic file: a list of {id, category_id, iscrowd} for each image"
      report.error("annotations without segments_info", mend, name)
    else:
      numbers = [validate.whole_number(one.get("id")) for one in segments]
      _check_segments(segments, numbers, labels, name, report)
      found[image] = Annotation(
        record["file_name"],
        tuple(number or 0 for number in numbers),
        tuple(labels.get(ids.key(one.get("category_id")), 0) for one in segments),
        tuple(one.get("iscrowd", 0) in (1, "1") for one in segments),
      )
  return found


def _check_segments(
  segments: Sequence[Mapping[str, Any]],
  numbers: Sequence[int | None],
  labels: Mapping[Hashable, int],
  name: str,
  report: validate.Report,
) -> None:
  seen: set[int] = set()
  for number, record in zip(numbers, segments, strict=True):
    if number is None or not 0 < number <= id_masks.LARGEST_ID:
      mend = f"Use whole numbers from 1 (0 is void) to {id_masks.LARGEST_ID}"
      report.error("segments without a usable id", mend, f"{name}, id {record.get('id')!r:.40}")
    elif number in seen:
      report.error("segments with an id used before", "Give each its own", f"{name}, id {number}")
    else:
      seen.add(number)
    if ids.key(record.get("category_id")) not in labels:
      mend = "List the category, or remove them"
      what = f"{name}, segment {number} (category_id {record.get('category_id')!r:.40})"
      report.error("segments of unknown categories", mend, what)
