"""Panoptic quality as COCO defines it (1801.00868, panopticapi's evaluation.py), from arrays.

Dimension key:
  H, W: height and width of an image in pixels
  P: predicted segments of one image
  G: annotated segments of one image
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from rtune.errors import DataError, UsageError
from rtune.metrics.metric import Metric


class Entry(NamedTuple):
  """What counts of one image.

  Attributes:
    labels: class of each predicted segment; row k is number k + 1 of the map.
    areas: their pixels.
    matched: class of each matched pair.
    iou: of each matched pair.
    unmatched: class of each false positive.
    missed: class of each false negative.
  """

  image_id: int
  labels: Int[np.ndarray, " P"]
  areas: Int[np.ndarray, " P"]
  matched: Int[np.ndarray, " M"]
  iou: Float[np.ndarray, " M"]
  unmatched: Int[np.ndarray, " U"]
  missed: Int[np.ndarray, " F"]


class Quality(NamedTuple):
  """Sums over images for each class."""

  iou: Float[np.ndarray, " C"]
  matched: Int[np.ndarray, " C"]
  unmatched: Int[np.ndarray, " C"]
  missed: Int[np.ndarray, " C"]


def panoptic(classes: Sequence[str], category_ids: Sequence[int], things: Sequence[bool]) -> Metric:
  """PQ, SQ and RQ of all classes, of things and of stuff, and the number of predicted segments.

  The state is a list of entries, one an image. A prediction is {image_id, segments [H, W], labels
  [P]}, a truth is {image_id, segments [H, W], labels [G], crowd [G]}: pixel value 0 is void, k is
  row k - 1 of the labels, which index `classes`. Rows without pixels are no segments.

  A pair matches if its classes agree and its IoU exceeds 0.5, where void pixels of the truth are
  not in the union. Crowd segments need not be found. A predicted segment without a match counts as
  false unless more than half of it lies on void and on crowd of its own class. (panopticapi looks
  at one crowd segment of a class; COCO's images have no more. Here all of them count.)

  `compute` gives means over the classes that have segments, predicted or annotated, -1 where there
  is none. `details` gives PQ by class. `results` and `files` are COCO's panoptic results.

  Args:
    classes: names in the order of the labels.
    category_ids: original ids in the same order.
    things: whether a class has instances, in the same order; the others are stuff.

  Raises:
    UsageError: arguments that do not fit each other.
    DataError: from `update` for maps of two images or sizes, or values and classes that do not
      exist; from `compute` for an image that was scored twice.
  """
  if not len(classes) == len(set(category_ids)) == len(category_ids) == len(things):
    raise UsageError(
      f"panoptic metric: {len(classes)} classes, {len(set(category_ids))} different category ids, "
      f"{len(things)} entries of things; there must be one of each a class"
    )
  things_C = np.array(things, bool)

  def update(
    state: list[Entry], prediction: Mapping[str, Any], truth: Mapping[str, Any]
  ) -> list[Entry]:
    state.append(_record(prediction, truth, len(classes)))
    return state

  def compute(state: list[Entry]) -> dict[str, float]:
    quality = _sums(state, len(classes))
    groups = {"": np.ones_like(things_C), "_things": things_C, "_stuff": ~things_C}
    means = {}
    for group, members_C in groups.items():
      means |= {name + group: value for name, value in _means(quality, members_C).items()}
    segments = sum(np.count_nonzero(record.areas) for record in state) / max(len(state), 1)
    return {**means, "segments": segments}

  def details(state: list[Entry]) -> dict[str, float]:
    quality = _sums(state, len(classes))
    one_C = np.eye(len(classes), dtype=bool)
    return {name: _means(quality, one_C[c])["PQ"] for c, name in enumerate(classes)}

  def results(state: list[Entry]) -> dict[str, Any]:
    return results_json(state, category_ids)

  return Metric(list, update, compute, details, results, mask_files)


def results_json(records: Sequence[Entry], category_ids: Sequence[int]) -> dict[str, Any]:
  """Predictions in COCO's panoptic results format; their masks are in `mask_files`."""
  annotations = []
  for record in records:
    rows = record.areas.nonzero()[0].tolist()
    segments = [
      {
        "id": row + 1,
        "category_id": int(category_ids[record.labels[row]]),
        "area": int(record.areas[row]),
      }
      for row in rows
    ]
    name = _file_name(record.image_id)
    annotations.append({"image_id": record.image_id, "file_name": name, "segments_info": segments})
  return {"annotations": annotations}


def mask_files(prediction: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The picture of ids that COCO's results have for an image: id = R + 256 G + 65536 B."""
  ids_HW = np.asarray(prediction["segments"]).astype(np.uint32)
  picture = np.stack([ids_HW & 255, ids_HW >> 8 & 255, ids_HW >> 16 & 255], axis=-1)
  return {_file_name(int(prediction["image_id"])): picture.astype(np.uint8)}


def _file_name(image_id: int) -> str:
  return f"{image_id:012d}.png"


def overlaps(
  found_HW: Integer[np.ndarray, "h w"], there_HW: Integer[np.ndarray, "h w"], found: int, there: int
) -> Int[np.ndarray, "p g"]:
  """[found + 1, there + 1]: pixels with each pair of values, by one count of joint values."""
  pairs = (found + 1) * (there + 1)
  kind = np.uint16 if pairs <= 2**16 else np.int64  # short numbers are quicker
  joint = (found_HW.astype(kind) * kind(there + 1) + there_HW.astype(kind)).ravel()
  # Neighbors are mostly alike: what is counted is runs of equal values, not pixels.
  starts = np.append(0, np.flatnonzero(joint[1:] != joint[:-1]) + 1)
  lengths = np.diff(starts, append=joint.size)
  counts = np.bincount(joint[starts], weights=lengths, minlength=pairs)
  return counts.astype(np.int64).reshape(found + 1, there + 1)


def _record(prediction: Mapping[str, Any], truth: Mapping[str, Any], num_classes: int) -> Entry:
  image_id = int(truth["image_id"])
  if int(prediction["image_id"]) != image_id:
    raise DataError(
      f"panoptic metric: the prediction is of image {prediction['image_id']}, the truth of "
      f"{image_id}"
    )
  found_HW, labels_P = _checked(prediction, image_id, "prediction", num_classes)
  there_HW, labels_G = _checked(truth, image_id, "truth", num_classes)
  crowd_G = np.asarray(truth["crowd"], bool).reshape(-1)
  if found_HW.shape != there_HW.shape:
    raise DataError(
      f"panoptic metric: image {image_id} has a prediction of {found_HW.shape} pixels and a truth "
      f"of {there_HW.shape}"
    )
  counts = overlaps(found_HW, there_HW, len(labels_P), len(labels_G))
  area_P, area_G = counts[1:].sum(axis=1), counts[:, 1:].sum(axis=0)
  void_P, shared_PG = counts[1:, 0], counts[1:, 1:]
  union_PG = area_P[:, None] + area_G - shared_PG - void_P[:, None]
  alike_PG = labels_P[:, None] == labels_G
  matches_PG = alike_PG & ~crowd_G & (2 * shared_PG > union_PG)
  pairs = matches_PG.nonzero()
  excused_P = void_P + (shared_PG * (alike_PG & crowd_G)).sum(axis=1)
  unmatched_P = (area_P > 0) & ~matches_PG.any(axis=1) & (2 * excused_P <= area_P)
  missed_G = (area_G > 0) & ~matches_PG.any(axis=0) & ~crowd_G
  return Entry(
    image_id,
    labels_P,
    area_P,
    labels_P[pairs[0]],
    shared_PG[pairs] / union_PG[pairs],
    labels_P[unmatched_P],
    labels_G[missed_G],
  )


def _checked(
  example: Mapping[str, Any], image_id: int, what: str, num_classes: int
) -> tuple[Integer[np.ndarray, "h w"], Int[np.ndarray, " n"]]:
  """A map and its labels, of which every value and class exists."""
  map_HW = np.asarray(example["segments"])
  labels = np.asarray(example["labels"], np.int64).reshape(-1)
  low, high = map_HW.min(initial=0), map_HW.max(initial=0)
  if low < 0 or high > len(labels):
    raise DataError(
      f"panoptic metric: image {image_id}: the map of the {what} has the value "
      f"{low if low < 0 else high}, but there are {len(labels)} segments, counted from 1"
    )
  if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
    wrong = labels.min() if labels.min() < 0 else labels.max()
    raise DataError(
      f"panoptic metric: image {image_id}: the {what} has a segment of class {wrong}, but there "
      f"are {num_classes} classes, counted from 0"
    )
  return map_HW, labels


def _sums(records: Sequence[Entry], num_classes: int) -> Quality:
  ids = [record.image_id for record in records]
  if len(set(ids)) != len(ids):
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    raise DataError(
      f"panoptic metric: {len(twice)} images were scored more than once, such as {twice[0]}"
    )

  def joined(name: str) -> np.ndarray:
    return np.concatenate([np.zeros(0, int), *(getattr(record, name) for record in records)])

  matched, unmatched, missed = (joined(name) for name in ("matched", "unmatched", "missed"))
  return Quality(
    np.bincount(matched.astype(int), weights=joined("iou"), minlength=num_classes),
    *(np.bincount(c.astype(int), minlength=num_classes) for c in (matched, unmatched, missed)),
  )


def _means(quality: Quality, members_C: Bool[np.ndarray, " C"]) -> dict[str, float]:
  """PQ, SQ and RQ, averaged over those of the given classes that have segments."""
  total_C = quality.matched + 0.5 * (quality.unmatched + quality.missed)
  counted_C = members_C & (total_C > 0)
  if not counted_C.any():
    return {"PQ": -1.0, "SQ": -1.0, "RQ": -1.0}
  iou, matched, total = quality.iou[counted_C], quality.matched[counted_C], total_C[counted_C]
  return {
    "PQ": float(np.mean(iou / total)),
    "SQ": float(np.mean(iou / np.maximum(matched, 1))),
    "RQ": float(np.mean(matched / total)),
  }
