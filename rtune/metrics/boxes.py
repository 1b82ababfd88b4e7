"""Box AP and AR as COCO defines them, counted by its official code, for any detection source.

Dimension key:
  N: predicted boxes of one image
  G: annotated boxes of one image
  M: those that the official scorer counts, where a source says so
  T, R, K, A, M: IoU thresholds, recall levels, categories, area ranges, limits on boxes
"""

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from rtune.errors import DataError, NumericError, UsageError
from rtune.metrics import coco_eval
from rtune.metrics.calibration import score_iou
from rtune.metrics.metric import Metric


class Truth(NamedTuple):
  """What the official scorer counts of the annotation of one image."""

  xywh: Float64[np.ndarray, "M 4"]  # x, y, width, height, as a file has them
  labels: Int32[np.ndarray, " M"]
  crowd: Bool[np.ndarray, " M"]
  area: Float64[np.ndarray, " M"]  # annotated area in pixels, for the size ranges


class Entry(NamedTuple):
  """What counts of one image. Boxes are (y0, x0, y1, x1) in pixels of the original image."""

  image_id: int
  boxes: Float32[np.ndarray, "N 4"]
  labels: Int32[np.ndarray, " N"]
  scores: Float32[np.ndarray, " N"]
  truth_boxes: Float32[np.ndarray, "G 4"]  # within the image, for the correlation with IoU
  truth_labels: Int32[np.ndarray, " G"]
  official: Truth


def coco_boxes(
  classes: Sequence[str],
  category_ids: Sequence[int],
  *,
  max_dets: Sequence[int] = (1, 10, 100),
  fast: bool = False,
) -> Metric:
  """The twelve COCO numbers and the mean number of predicted boxes.

  The state is a list of entries, one an image, and `update` appends to it. A prediction is
  {image_id, boxes [N, 4], labels [N], scores [N]}, a truth is {image_id, boxes [G, 4], labels [G],
  crowd [G], area [G]}. Boxes are (y0, x0, y1, x1) in pixels of the original image, labels index
  `classes`, slots with a negative label are empty. A prediction of a class beyond `classes` is
  counted in `boxes` and otherwise left out, as the official scorer leaves out unknown categories.

  A source that mends its boxes for training adds the truth as it was: official_boxes [M, 4] as (x,
  y, width, height), official_labels, official_crowd and official_area [M]. Where they are there,
  they are what is scored, and only score_iou goes by the others: it is about what can be seen.

  `compute` gives AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR, ARs, ARm, ARl, boxes, and where it
  means something score_iou, the rank correlation of score and IoU. A number without any ground
  truth is -1, and classes without ground truth are left out of the means. Crowd regions are
  ignored: they neither need to be found nor make a false positive of what lies in them. `details`
  gives AP by class, `results` COCO's results format.

  Args:
    classes: names in the order of the labels.
    category_ids: original ids in the same order.
    max_dets: boxes an image, best scores first, that AR1, AR10 and the rest are limited to.
    fast: score with hotcoco (same digits, about thirty times faster).

  Raises:
    UsageError: `fast` without hotcoco installed, or arguments that do not fit each other.
    DataError: from `update` for a truth of another image or an unknown class, from `compute` for an
      image that was scored twice.
    NumericError: from `update` for boxes or scores that are not finite.
  """
  _check_arguments(classes, category_ids, max_dets, fast)

  def update(
    state: list[Entry], prediction: Mapping[str, Any], truth: Mapping[str, Any]
  ) -> list[Entry]:
    state.append(_record(prediction, truth, len(classes)))
    return state

  def compute(state: list[Entry]) -> dict[str, float]:
    curves = _curves(state, classes, category_ids, max_dets, fast)
    boxes = sum(len(record.boxes) for record in state) / max(len(state), 1)
    ranking = score_iou(state)
    calibration = {} if ranking is None else {"score_iou": ranking}
    return {**coco_eval.summary(curves), "boxes": boxes, **calibration}

  def details(state: list[Entry]) -> dict[str, float]:
    return class_ap(state, classes, category_ids, max_dets=max_dets, fast=fast)

  def results(state: list[Entry]) -> list[dict[str, Any]]:
    return results_json(state, category_ids)

  return Metric(list, update, compute, details, results)


def class_ap(
  records: Sequence[Entry],
  classes: Sequence[str],
  category_ids: Sequence[int],
  *,
  max_dets: Sequence[int] = (1, 10, 100),
  fast: bool = False,
) -> dict[str, float]:
  """AP of each class, {name: AP} in the order of `classes`; -1 for a class without ground truth.

  `records` is the state of `coco_boxes`; arguments and errors are the same.
  """
  _check_arguments(classes, category_ids, max_dets, fast)
  precision = _curves(records, classes, category_ids, max_dets, fast).precision
  column = {category_id: k for k, category_id in enumerate(sorted(category_ids))}
  return {
    name: coco_eval.mean(precision[:, :, column[category_id], coco_eval.ALL, -1])
    for name, category_id in zip(classes, category_ids, strict=True)
  }


def results_json(records: Sequence[Entry], category_ids: Sequence[int]) -> list[dict[str, Any]]:
  """Predictions in COCO's results format, ready for json.dump and the official scorer."""
  return [
    {
      "image_id": record.image_id,
      "category_id": int(category_ids[label]),
      "bbox": bbox,
      "score": score,
    }
    for record in records
    for label, bbox, score in zip(
      record.labels.tolist(), _xywh(record.boxes).tolist(), record.scores.tolist(), strict=True
    )
    if label < len(category_ids)
  ]


def truth_json(
  records: Sequence[Entry], classes: Sequence[str], category_ids: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
  """Ground truth in COCO's annotation format, with what the official scorer needs of it."""
  annotations = []
  for record in records:
    columns = (column.tolist() for column in record.official)
    for bbox, label, crowd, area in zip(*columns, strict=True):
      annotations.append(
        {
          "id": len(annotations) + 1,  # the official scorer takes an id of 0 for "not matched"
          "image_id": record.image_id,
          "category_id": int(category_ids[label]),
          "bbox": bbox,
          "area": area,
          "iscrowd": int(crowd),
        }
      )
  categories = zip(category_ids, classes, strict=True)
  return {
    "images": [{"id": record.image_id} for record in records],
    "annotations": annotations,
    "categories": [{"id": int(number), "name": name} for number, name in sorted(categories)],
  }


def _check_arguments(
  classes: Sequence[str], category_ids: Sequence[int], max_dets: Sequence[int], fast: bool
) -> None:
  if len(classes) != len(category_ids) or len(set(category_ids)) != len(category_ids):
    raise UsageError(
      f"box metric: {len(classes)} classes and {len(set(category_ids))} different category ids; "
      "there must be one id a class"
    )
  if len(max_dets) != 3 or list(max_dets) != sorted(set(max_dets)) or max_dets[0] < 1:
    raise UsageError(f"box metric: max_dets is {max_dets}; it must be three rising numbers")
  if fast and importlib.util.find_spec("hotcoco") is None:
    raise UsageError(
      "box metric: fast=True needs the package hotcoco; `pip install hotcoco`, or set fast=False"
    )


def _record(prediction: Mapping[str, Any], truth: Mapping[str, Any], num_classes: int) -> Entry:
  """Empty slots dropped, shapes and types settled, what cannot be scored refused."""
  image_id = int(truth["image_id"])
  if int(prediction["image_id"]) != image_id:
    raise DataError(
      f"box metric: the prediction is of image {prediction['image_id']}, the truth of {image_id}"
    )
  labels_N = np.asarray(prediction["labels"], np.int32).reshape(-1)
  filled_N = labels_N >= 0
  boxes_N4 = np.asarray(prediction["boxes"], np.float32).reshape(-1, 4)[filled_N]
  scores_N = np.asarray(prediction["scores"], np.float32).reshape(-1)[filled_N]
  if not (np.isfinite(boxes_N4).all() and np.isfinite(scores_N).all()):
    raise NumericError(
      f"box metric: image {image_id} has a predicted box or score that is not finite"
    )
  labels_G = np.asarray(truth["labels"], np.int32).reshape(-1)
  filled_G = labels_G >= 0
  official = _truth(truth)
  largest = max(labels_G.max(initial=-1), official.labels.max(initial=-1))
  if largest >= num_classes:
    raise DataError(
      f"box metric: image {image_id} has an annotation of class {largest}, but there are "
      f"{num_classes} classes, counted from 0"
    )
  return Entry(
    image_id,
    boxes_N4,
    labels_N[filled_N],
    scores_N,
    np.asarray(truth["boxes"], np.float32).reshape(-1, 4)[filled_G],
    labels_G[filled_G],
    official,
  )


def _truth(truth: Mapping[str, Any]) -> Truth:
  """The source's truth for the official scorer, else the ordinary one; empty slots dropped."""
  of = "official_" if "official_boxes" in truth else ""
  labels_M = np.asarray(truth[f"{of}labels"], np.int32).reshape(-1)
  boxes_M4 = np.asarray(truth[f"{of}boxes"], np.float64 if of else np.float32).reshape(-1, 4)
  filled_M = labels_M >= 0
  return Truth(
    (boxes_M4 if of else _xywh(boxes_M4))[filled_M],
    labels_M[filled_M],
    np.asarray(truth[f"{of}crowd"], bool).reshape(-1)[filled_M],
    np.asarray(truth[f"{of}area"], np.float64).reshape(-1)[filled_M],
  )


def _xywh(boxes_N4: Float32[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 4"]:
  """COCO's (x, y, width, height), subtracted in float64 as the official scorer computes."""
  y0, x0, y1, x1 = boxes_N4.astype(np.float64).T
  return np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)


def _curves(
  records: Sequence[Entry],
  classes: Sequence[str],
  category_ids: Sequence[int],
  max_dets: Sequence[int],
  fast: bool,
) -> coco_eval.Curves:
  ids = [record.image_id for record in records]
  if len(set(ids)) != len(ids):
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    raise DataError(
      f"box metric: {len(twice)} images were scored more than once, such as {twice[0]}"
    )
  truth = truth_json(records, classes, category_ids)
  accumulate = coco_eval.by_hotcoco if fast else coco_eval.by_pycocotools
  return accumulate(truth, results_json(records, category_ids), list(max_dets))
