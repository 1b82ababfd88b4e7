"""Box AP and AR as COCO defines them, counted by its official code, for any detection source.

Dimension key:
  N: predicted boxes of one image
  G: annotated boxes of one image
  T, R, K, A, M: IoU thresholds, recall levels, categories, area ranges, limits on boxes
"""

import contextlib
import importlib.util
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtune.errors import DataError, NumericError, UsageError
from rtune.metrics.calibration import score_iou
from rtune.metrics.metric import Metric

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # area ranges: any, below 32 x 32, below 96 x 96, above


class Record(NamedTuple):
  """What counts of one image. Boxes are (y0, x0, y1, x1) in pixels of the original image."""

  image_id: int
  boxes: Float32[np.ndarray, "N 4"]
  labels: Int32[np.ndarray, "N"]
  scores: Float32[np.ndarray, "N"]
  truth_boxes: Float32[np.ndarray, "G 4"]
  truth_labels: Int32[np.ndarray, "G"]
  crowd: Bool[np.ndarray, "G"]
  area: Float32[np.ndarray, "G"]  # annotated area in pixels, for the size ranges


class Curves(NamedTuple):
  """Precision and recall as pycocotools accumulates them; -1 where a category has no truth."""

  precision: Float[np.ndarray, "T R K A M"]
  recall: Float[np.ndarray, "T K A M"]


def coco_boxes(
  classes: Sequence[str],
  category_ids: Sequence[int],
  *,
  max_dets: Sequence[int] = (1, 10, 100),
  fast: bool = False,
) -> Metric:
  """The twelve COCO numbers and the mean number of predicted boxes.

  The state is a list of Records, one an image, and `update` appends to it. A prediction is
  {image_id, boxes [N, 4], labels [N], scores [N]}, a truth is {image_id, boxes [G, 4], labels [G],
  crowd [G], area [G]}. Boxes are (y0, x0, y1, x1) in pixels of the original image, labels index
  `classes`, slots with a negative label are empty. A prediction of a class beyond `classes` is
  counted in `boxes` and otherwise left out, as the official scorer leaves out unknown categories.

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
    state: list[Record], prediction: Mapping[str, Any], truth: Mapping[str, Any]
  ) -> list[Record]:
    state.append(_record(prediction, truth, len(classes)))
    return state

  def compute(state: list[Record]) -> dict[str, float]:
    curves = _curves(state, classes, category_ids, max_dets, fast)
    boxes = sum(len(record.boxes) for record in state) / max(len(state), 1)
    ranking = score_iou(state)
    calibration = {} if ranking is None else {"score_iou": ranking}
    return {**_summary(curves), "boxes": boxes, **calibration}

  def details(state: list[Record]) -> dict[str, float]:
    return class_ap(state, classes, category_ids, max_dets=max_dets, fast=fast)

  def results(state: list[Record]) -> list[dict[str, Any]]:
    return results_json(state, category_ids)

  return Metric(list, update, compute, details, results)


def class_ap(
  records: Sequence[Record],
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
    name: _mean(precision[:, :, column[category_id], _ALL, -1])
    for name, category_id in zip(classes, category_ids, strict=True)
  }


def results_json(records: Sequence[Record], category_ids: Sequence[int]) -> list[dict[str, Any]]:
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
      record.labels.tolist(), _xywh(record.boxes), record.scores.tolist(), strict=True
    )
    if label < len(category_ids)
  ]


def truth_json(
  records: Sequence[Record], classes: Sequence[str], category_ids: Sequence[int]
) -> dict[str, list[dict[str, Any]]]:
  """Ground truth in COCO's annotation format, with what the official scorer needs of it."""
  annotations = []
  for record in records:
    columns = (record.truth_labels, record.area, record.crowd)
    for bbox, label, area, crowd in zip(
      _xywh(record.truth_boxes), *(column.tolist() for column in columns), strict=True
    ):
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


def _record(prediction: Mapping[str, Any], truth: Mapping[str, Any], num_classes: int) -> Record:
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
  if labels_G.max(initial=-1) >= num_classes:
    raise DataError(
      f"box metric: image {image_id} has an annotation of class {labels_G.max()}, but there are "
      f"{num_classes} classes, counted from 0"
    )
  return Record(
    image_id,
    boxes_N4,
    labels_N[filled_N],
    scores_N,
    np.asarray(truth["boxes"], np.float32).reshape(-1, 4)[filled_G],
    labels_G[filled_G],
    np.asarray(truth["crowd"], bool).reshape(-1)[filled_G],
    np.asarray(truth["area"], np.float32).reshape(-1)[filled_G],
  )


def _xywh(boxes_N4: Float32[np.ndarray, "N 4"]) -> list[list[float]]:
  """COCO's (x, y, width, height), subtracted in float64 as the official scorer computes."""
  y0, x0, y1, x1 = boxes_N4.astype(np.float64).T
  return np.stack([x0, y0, x1 - x0, y1 - y0], axis=1).tolist()


def _curves(
  records: Sequence[Record],
  classes: Sequence[str],
  category_ids: Sequence[int],
  max_dets: Sequence[int],
  fast: bool,
) -> Curves:
  ids = [record.image_id for record in records]
  if len(set(ids)) != len(ids):
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    raise DataError(
      f"box metric: {len(twice)} images were scored more than once, such as {twice[0]}"
    )
  truth = truth_json(records, classes, category_ids)
  accumulate = _accumulate_fast if fast else _accumulate_official
  return accumulate(truth, results_json(records, category_ids), list(max_dets))


def _accumulate_official(
  truth: dict[str, list], results: list[dict[str, Any]], max_dets: list[int]
) -> Curves:
  # COCO.loadRes fails on an empty list, so what it would add is added here.
  for number, result in enumerate(results, start=1):
    _, _, width, height = result["bbox"]
    result.update(id=number, area=width * height, iscrowd=0)
  with contextlib.redirect_stdout(io.StringIO()):
    scorer = COCOeval(_index(truth), _index({**truth, "annotations": results}), "bbox")
    scorer.params.maxDets = max_dets
    scorer.evaluate()
    scorer.accumulate()
  return Curves(scorer.eval["precision"], scorer.eval["recall"])


def _index(dataset: dict[str, list]) -> COCO:
  coco = COCO()
  coco.dataset = dataset
  coco.createIndex()
  return coco


def _accumulate_fast(
  truth: dict[str, list], results: list[dict[str, Any]], max_dets: list[int]
) -> Curves:
  import hotcoco  # optional, see `coco_boxes`

  annotated = hotcoco.COCO(truth)
  scorer = hotcoco.COCOeval(annotated, annotated.load_res(results), "bbox")
  scorer.params.max_dets = max_dets
  scorer.evaluate()
  scorer.accumulate()
  return Curves(scorer.eval["precision"], scorer.eval["recall"])


def _summary(curves: Curves) -> dict[str, float]:
  """The means that COCOeval.summarize prints, which has the limit of 100 boxes written into it."""
  precision, recall = curves
  return {
    "AP": _mean(precision[..., _ALL, -1]),
    "AP50": _mean(precision[0, ..., _ALL, -1]),
    "AP75": _mean(precision[5, ..., _ALL, -1]),
    "APs": _mean(precision[..., _SMALL, -1]),
    "APm": _mean(precision[..., _MEDIUM, -1]),
    "APl": _mean(precision[..., _LARGE, -1]),
    "AR1": _mean(recall[..., _ALL, 0]),
    "AR10": _mean(recall[..., _ALL, 1]),
    "AR": _mean(recall[..., _ALL, -1]),
    "ARs": _mean(recall[..., _SMALL, -1]),
    "ARm": _mean(recall[..., _MEDIUM, -1]),
    "ARl": _mean(recall[..., _LARGE, -1]),
  }


def _mean(values: Float[np.ndarray, "..."]) -> float:
  """Mean over what has ground truth, -1 where nothing has."""
  counted = values[values > -1]
  return float(counted.mean()) if counted.size else -1.0
