"""mIoU and its kin, with MMSegmentation's definitions, and F1 of boundaries, from arrays.

Dimension key:
  H, W: height and width of an image in pixels
  C: classes, of the truth (G) or of the prediction (A)
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer

from rtune.errors import DataError, UsageError
from rtune.metrics.metric import Confusion, Metric
from rtune.predictions.boundaries import boundary_f1
from rtune.predictions.labels import IGNORE

_NONE = -1.0  # of what has no value


class Totals(NamedTuple):
  """What counts of many images.

  Attributes:
    image_ids: which images these are.
    counts: pixels of each annotated class (rows) that got each class (columns).
    boundary_f1: of each image; NaN where no class has a boundary.
  """

  image_ids: list[int]
  counts: Int[np.ndarray, "g a"]
  boundary_f1: list[float]


class Scores(NamedTuple):
  """Of each class, NaN where it has none."""

  iou: Float[np.ndarray, " c"]
  accuracy: Float[np.ndarray, " c"]


def segmentation(
  classes: Sequence[str], category_ids: Sequence[int] = (), *, tolerance: float = 0.0075
) -> Metric:
  """mIoU, mAcc, aAcc, fwIoU and IoU of each class, and F1 of boundaries. All from 0 to 1.

  The state is a list of totals, of one item for each process: nothing grows with the number of
  images but their ids. A prediction is {image_id, labels [H, W]}, a truth is {image_id, label_map
  [H, W]}: labels index `classes`, `IGNORE` (-1) in a truth is a pixel that nobody has labeled, and
  what is predicted there does not matter.

  `compute` gives, over all labeled pixels of all images together,
    mIoU: IoU = intersection / union, averaged over the classes that are predicted or annotated
      anywhere. A class without a pixel in either is left out (MMSegmentation's nan); one that is
      predicted but never annotated counts as 0.
    mAcc: share of a class's annotated pixels that are right, averaged over annotated classes.
    aAcc: share of all pixels that are right.
    fwIoU: IoU weighted by the share of annotated pixels.
    boundary_F1: of each image the mean over classes with a boundary in either map, averaged over
      images that have one (see `rtune.predictions.boundaries`); a loose boundary costs nothing up
      to the tolerance.
    IoU/<name>: of each class.
  and -1 where there is none. `details` gives IoU by class, `files` label maps as PNG files.

  Args:
    classes: names in the order of the labels.
    category_ids: numbers of the classes in written files, in the same order; (): the labels.
    tolerance: of boundaries, as a share of an image's diagonal; 0: do not score them, which is most
      of the time that a metric takes.

  Raises:
    UsageError: arguments that do not fit each other.
    DataError: from `update` for maps of two images or sizes, or classes that do not exist; from
      `compute` for an image that was scored twice.
  """
  if category_ids and len(set(category_ids)) != len(classes):
    raise UsageError(
      f"segmentation metric: {len(classes)} classes, but {len(set(category_ids))} different "
      "category ids; there must be one of each a class"
    )
  if not 0 <= tolerance < 1:
    raise UsageError(f"segmentation metric: tolerance is {tolerance}; give a share from 0 to 1.")

  def update(
    state: list[Totals], prediction: Mapping[str, Any], truth: Mapping[str, Any]
  ) -> list[Totals]:
    found_HW, there_HW = _checked(prediction, truth, len(classes))
    if not state:
      state.append(Totals([], np.zeros((len(classes), len(classes)), np.int64), []))
    state[-1].image_ids.append(int(truth["image_id"]))
    state[-1].counts[:] += confusion_of(found_HW, there_HW, len(classes))
    if tolerance:
      f1_C = boundary_f1(found_HW, there_HW, len(classes), tolerance)
      state[-1].boundary_f1.append(_mean(f1_C, np.nan))
    return state

  def compute(state: list[Totals]) -> dict[str, float]:
    counts = confusion(state, len(classes))
    scores = _scores(counts)
    share_C = counts.sum(axis=1) / max(counts.sum(), 1)
    values = {
      "mIoU": _mean(scores.iou, _NONE),
      "mAcc": _mean(scores.accuracy, _NONE),
      "aAcc": float(np.trace(counts) / counts.sum()) if counts.any() else _NONE,
      "fwIoU": float(share_C @ np.nan_to_num(scores.iou)) if counts.any() else _NONE,
    }
    if tolerance:
      per_image = np.array([value for totals in state for value in totals.boundary_f1])
      values["boundary_F1"] = _mean(per_image, _NONE)
    return values | {f"IoU/{name}": value for name, value in _by_class(scores, classes).items()}

  def details(state: list[Totals]) -> dict[str, float]:
    return _by_class(_scores(confusion(state, len(classes))), classes)

  def files(prediction: Mapping[str, Any]) -> dict[str, np.ndarray]:
    name = f"{int(prediction['image_id']):012d}.png"
    return {name: label_picture(np.asarray(prediction["labels"]), category_ids)}

  def confused(state: list[Totals]) -> Confusion:
    return Confusion(classes, confusion(state, len(classes)))

  return Metric(list, update, compute, details, None, files, confused)


def confusion(state: Sequence[Totals], classes: int) -> Int[np.ndarray, "{classes} {classes}"]:
  """The confusion matrix of a metric's state: pixels, rows = truth, columns = prediction.

  Raises:
    DataError: an image was scored twice.
  """
  ids = [image_id for totals in state for image_id in totals.image_ids]
  if len(set(ids)) != len(ids):
    seen: set[int] = set()
    twice = next(i for i in ids if i in seen or seen.add(i))
    raise DataError(f"segmentation metric: image {twice} was scored more than once")
  return sum((totals.counts for totals in state), np.zeros((classes, classes), np.int64))


def confusion_of(
  found_HW: Integer[np.ndarray, "h w"], there_HW: Integer[np.ndarray, "h w"], classes: int
) -> Int[np.ndarray, "{classes} {classes}"]:
  """The confusion matrix of one image."""
  cells = (classes + 1) * classes
  kind = np.uint16 if cells <= 2**16 else np.int64  # short numbers are quicker
  # The number of each pair; pixels that nobody has labeled are the first row.
  joint_HW = np.multiply(there_HW, classes, dtype=kind, casting="unsafe")
  np.add(joint_HW, found_HW, out=joint_HW, casting="unsafe")
  joint_HW += kind(-IGNORE * classes)
  joint = joint_HW.ravel()
  changes = joint[1:] != joint[:-1]
  if np.count_nonzero(changes) < joint.size // 8:
    # Neighbors are mostly alike: what is counted is runs of equal numbers, not pixels.
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=joint.size)
    counts = np.bincount(joint[starts], weights=lengths, minlength=cells).astype(np.int64)
  else:
    counts = np.bincount(joint, minlength=cells)
  return counts.reshape(classes + 1, classes)[1:]


def label_picture(
  labels_HW: Integer[np.ndarray, "h w"], category_ids: Sequence[int] = ()
) -> Integer[np.ndarray, "h w"]:
  """A label map as it is written to PNG files: 8 bits, or 16 where numbers are larger."""
  numbers = np.array(category_ids or np.arange(int(labels_HW.max(initial=0)) + 1))
  return numbers.astype(np.uint8 if numbers.max(initial=0) < 2**8 else np.uint16)[labels_HW]


def _checked(
  prediction: Mapping[str, Any], truth: Mapping[str, Any], classes: int
) -> tuple[Integer[np.ndarray, "h w"], Integer[np.ndarray, "h w"]]:
  """Maps of one image, of which every class exists."""
  image_id = int(truth["image_id"])
  if int(prediction["image_id"]) != image_id:
    raise DataError(
      f"segmentation metric: the prediction is of image {prediction['image_id']}, the truth of "
      f"{image_id}"
    )
  found_HW, there_HW = np.asarray(prediction["labels"]), np.asarray(truth["label_map"])
  if found_HW.shape != there_HW.shape:
    raise DataError(
      f"segmentation metric: image {image_id} has a prediction of {found_HW.shape} pixels and a "
      f"truth of {there_HW.shape}"
    )
  for what, labels_HW, least in (("prediction", found_HW, 0), ("truth", there_HW, IGNORE)):
    low, high = labels_HW.min(initial=0), labels_HW.max(initial=0)
    if low < least or high >= classes:
      raise DataError(
        f"segmentation metric: image {image_id}: the {what} has the class "
        f"{low if low < least else high}, but there are {classes}, counted from 0"
      )
  return found_HW, there_HW


def _scores(counts: Int[np.ndarray, "g a"]) -> Scores:
  right_C, there_C = np.diagonal(counts), counts.sum(axis=1)
  union_C = there_C + counts.sum(axis=0) - right_C
  with np.errstate(invalid="ignore"):
    return Scores(right_C / union_C, right_C / there_C)


def _by_class(scores: Scores, classes: Sequence[str]) -> dict[str, float]:
  return dict(zip(classes, np.nan_to_num(scores.iou, nan=_NONE).tolist(), strict=True))


def _mean(values: Float[np.ndarray, " _"], none: float) -> float:
  """Mean of those that are numbers."""
  known = values[np.isfinite(values)]
  return float(known.mean()) if known.size else none
