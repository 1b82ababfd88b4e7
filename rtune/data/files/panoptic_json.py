"""The records of a COCO panoptic file, each checked; what is wrong goes into a report."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rtune.data.files import coco_json, id_masks, validate


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


def things(categories: Sequence[Mapping[str, Any]], report: validate.Report) -> tuple[bool, ...]:
  """`isthing` of each category, ordered by id."""
  found = []
  for record in categories:
    if record.get("isthing") not in (0, 1):
      mend = "Give each isthing, 1 for what has instances and 0 for stuff"
      report.error("categories without isthing", mend, f"id {record.get('id')}")
    found.append((validate.whole_number(record.get("id")) or 0, bool(record.get("isthing"))))
  return tuple(thing for _, thing in sorted(found))


def annotations(
  records: Sequence[Mapping[str, Any]],
  ids_of_images: Sequence[int],
  ids_of_categories: Sequence[int],
  report: validate.Report,
) -> dict[int, Annotation]:
  """The sound annotations by image id; the others are errors."""
  images = set(ids_of_images)
  labels = {number: label for label, number in enumerate(ids_of_categories)}
  found: dict[int, Annotation] = {}
  for row, record in enumerate(records):
    image_id = validate.whole_number(record.get("image_id"))
    name = f"annotations[{row}] (image_id {record.get('image_id')!r:.40})"
    segments = record.get("segments_info")
    if image_id is None:
      report.error("annotations without an image_id", "Write whole numbers", name)
    elif image_id not in images:
      report.error("annotations of unknown images", "List the image, or remove them", name)
    elif image_id in found:
      report.error("images that are annotated twice", "Keep one annotation of each", name)
    elif not validate.is_file_name(record.get("file_name")):
      report.error("annotations without a usable file_name", "Name each mask as text", name)
    elif not isinstance(segments, list) or not all(isinstance(one, dict) for one in segments):
      mend = "Give a panoptic file: a list of {id, category_id, iscrowd} for each image"
      report.error("annotations without segments_info", mend, name)
    else:
      numbers = [validate.whole_number(one.get("id")) for one in segments]
      _check_segments(segments, numbers, labels, name, report)
      found[image_id] = Annotation(
        record["file_name"],
        tuple(number or 0 for number in numbers),
        tuple(labels.get(validate.whole_number(one.get("category_id")), 0) for one in segments),
        tuple(one.get("iscrowd", 0) in (1, "1") for one in segments),
      )
  return found


def _check_segments(
  segments: Sequence[Mapping[str, Any]],
  numbers: Sequence[int | None],
  labels: Mapping[int, int],
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
    category_id = validate.whole_number(record.get("category_id"))
    if category_id not in labels:
      mend = "List the category, or remove them"
      what = f"{name}, segment {number} (category_id {record.get('category_id')!r:.40})"
      report.error("segments of unknown categories", mend, what)
