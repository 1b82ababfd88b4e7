"""Box rewards of other people's work, as their released code computes them, for comparison.

Where their code sees one class at a time, a box here only ever matches an object of its own class.
Pure functions of one prediction and its truth. jit, vmap.

Dimension key:
  P: predicted box slots
  G: annotated box slots
  T: IoU thresholds
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from optax import assignment

from rtune.predictions.boxes import Boxes
from rtune.rewards.boxes import COCO_THRESHOLDS, comparable, pairwise_iou

_RECALL_LEVELS = np.linspace(0.0, 1.0, 101)  # where COCO reads the precision curve


def visual_rft(
  prediction: Boxes, truth: Boxes, *, iou_threshold: float = 0.5, confidence_weight: float = 1.0
) -> dict[str, Float[Array, ""]]:
  """IoU of matches over max(#truth, #predicted) plus confidence. Visual-RFT, 2503.01785.

  Boxes choose in the order of their scores, each the free object that it overlaps most, if the IoU
  exceeds the threshold. The confidence term is the mean over predicted boxes of the score of a
  matched and 1 - score of an unmatched box. Exact repetitions of a box are left out first.

  Returns:
    reward = iou + confidence_weight * confidence, and the two.
  """
  present_P = prediction.present & ~_repeated(prediction)
  prediction = _by_score(prediction._replace(present=present_P))
  iou_PG = _comparable_iou(prediction, truth)
  iou_P = _choose(iou_PG, iou_PG > iou_threshold)
  predicted, annotated = _count(prediction.present), _count(truth.present)
  iou = jnp.sum(iou_P) / jnp.maximum(jnp.maximum(predicted, annotated), 1)
  agreement_P = jnp.where(iou_P > 0, prediction.scores, 1 - prediction.scores)
  confidence = jnp.sum(jnp.where(prediction.present, agreement_P, 0.0)) / jnp.maximum(predicted, 1)
  return {
    "reward": iou + confidence_weight * confidence,
    "iou": iou,
    "confidence": confidence,
  }


def vlm_r1(prediction: Boxes, truth: Boxes) -> dict[str, Float[Array, ""]]:
  """COCO mAP of the image times min(1, #truth / #predicted). VLM-R1's odLength, 2504.07615.

  1 where there is nothing and nothing was predicted, 0 where only one of the two holds. Their code
  gives every box the same score, so that the order of the sequence ranks them; equal scores do so
  here.

  Returns:
    reward, and its factors ap and length.
  """
  predicted, annotated = _count(prediction.present), _count(truth.present)
  nothing = (predicted == 0).astype(jnp.float32)
  ap = jnp.where(annotated > 0, average_precision(prediction, truth), nothing)
  length = jnp.where(predicted > annotated, annotated / jnp.maximum(predicted, 1), 1.0)
  return {"reward": ap * length, "ap": ap, "length": length}


def vision_r1(
  prediction: Boxes,
  truth: Boxes,
  *,
  match_threshold: float = 0.5,
  precision_range: Sequence[float] = (0.5, 0.75),
  recall_range: Sequence[float] = (0.5, 0.75),
  same_class: bool = True,
  side: float = 640.0,
) -> dict[str, Float[Array, ""]]:
  """Recall plus precision of optimally assigned boxes. Vision-R1, 2503.18013.

  Boxes are assigned to objects at least total cost (L1 distance in pixels - GIoU - same class).
  Recall is the share of objects whose box has a GIoU above `match_threshold`; precision is the mean
  GIoU of the min(#truth, #predicted) pairs. Below its range a value counts 0, above it 1. These
  defaults are their first 1,500 steps; then they turn to 0.75 and (0.75, 0.9), recall_range as it
  is. Where there is nothing, both are 1 if nothing was predicted, else 0. The assignment is cubic
  in slots: with 100 of them it costs some 10 ms a prediction on CPU.

  Args:
    prediction: boxes [P, 4] and so on; inverted and empty boxes are left out.
    truth: boxes [G, 4] and so on.
    match_threshold: GIoU of a found object.
    precision_range: (low, high) for the GIoU of a pair.
    recall_range: (low, high) for the recall of the image.
    same_class: a pair of two classes counts 0. Their code does not look at the class here.
    side: pixels of the model's square input, in which distances enter the cost.

  Returns:
    reward = recall + precision, and the two.
  """
  there_P, there_G = _proper(prediction), _proper(truth)
  giou_PG = _pairwise_giou(prediction.boxes, truth.boxes)
  alike_PG = prediction.labels[:, None] == truth.labels[None, :]
  distance_PG = jnp.sum(jnp.abs(prediction.boxes[:, None] - truth.boxes[None]), axis=-1)
  pairs_PG = there_P[:, None] & there_G[None, :]
  likeness_PG = giou_PG + alike_PG.astype(jnp.float32)
  # In units of `side`: the price of an absent box, above that of any real pair, costs no digits.
  cost_PG = jnp.where(pairs_PG, distance_PG - likeness_PG / side, 16.0)
  rows, columns = assignment.hungarian_algorithm(cost_PG)
  paired_N = pairs_PG[rows, columns]
  counted_N = paired_N & (alike_PG[rows, columns] | (not same_class))
  giou_N = jnp.where(counted_N, giou_PG[rows, columns], -1.0)
  found = jnp.sum(_clamped(giou_N, (match_threshold, match_threshold)))
  annotated, predicted = _count(there_G), _count(there_P)
  recall = _clamped(found / jnp.maximum(annotated, 1), recall_range)
  precision = jnp.sum(_clamped(giou_N, precision_range)) / jnp.maximum(_count(paired_N), 1)
  nothing = (annotated == 0) & (predicted == 0)
  recall, precision = jnp.where(nothing, 1.0, recall), jnp.where(nothing, 1.0, precision)
  return {"reward": recall + precision, "recall": recall, "precision": precision}


def perception_r1(prediction: Boxes, truth: Boxes) -> dict[str, Float[Array, ""]]:
  """Squared IoU of a single box, for tasks with one object an image. Perception-R1, 2504.07954.

  It looks at the first present slot of prediction and truth; 0 where either is empty.

  Returns:
    reward, and the iou that it is the square of.
  """
  iou_PG = _comparable_iou(prediction, truth)
  iou = iou_PG[jnp.argmax(prediction.present), jnp.argmax(truth.present)]
  return {"reward": iou**2, "iou": iou}


def average_precision(
  prediction: Boxes, truth: Boxes, *, iou_thresholds: Sequence[float] = COCO_THRESHOLDS
) -> Float[Array, ""]:
  """COCO's AP of one image: the mean over thresholds and over the classes that the truth has.

  As pycocotools computes it, in float32, without its limit of 100 boxes a class. 0 where the truth
  has no box.
  """
  prediction = _by_score(prediction)
  # The official matching takes the last of equally good objects.
  iou_PG = _comparable_iou(prediction, truth)[:, ::-1]
  allowed_TPG = iou_PG[None] >= jnp.array(iou_thresholds, iou_PG.dtype)[:, None, None]
  hit_TP = jax.vmap(_choose, in_axes=(None, 0))(iou_PG, allowed_TPG) > 0
  slots = jnp.arange(prediction.labels.shape[-1])
  # Boxes of one class stand in line by score; upto_PP[p, q]: q is p or stands before it.
  upto_PP = comparable(prediction, prediction) & (slots[:, None] >= slots[None, :])
  right_TP = jnp.sum(hit_TP[:, None, :] & upto_PP[None], axis=-1)
  precision_TP = right_TP / jnp.maximum(jnp.sum(upto_PP, axis=-1), 1)[None]
  ahead_TPP = jnp.where(upto_PP.T[None], precision_TP[:, None, :], 0.0)
  highest_TP = jnp.max(ahead_TPP, axis=-1, initial=0.0)
  objects_P = jnp.sum(comparable(prediction, truth), axis=1)
  levels = jnp.asarray(_levels(truth.labels.shape[-1]))
  before_TP = right_TP - hit_TP.astype(right_TP.dtype)
  gained_TP = levels[right_TP, objects_P[None]] - levels[before_TP, objects_P[None]]
  area_TP = jnp.where(hit_TP, highest_TP * gained_TP.astype(jnp.float32), 0.0)
  area = jnp.sum(area_TP) / len(_RECALL_LEVELS)
  return area / len(iou_thresholds) / jnp.maximum(_num_classes(truth), 1.0)


def _levels(most: int) -> Int[np.ndarray, "n n"]:
  """[k, n]: how many of COCO's recall levels k of n objects reach, to its last float64 digit."""
  found, objects = np.meshgrid(np.arange(most + 1), np.arange(most + 1), indexing="ij")
  reached = np.searchsorted(_RECALL_LEVELS, found / np.maximum(objects, 1), side="right")
  return np.where(found > 0, reached, 0).astype(np.int32)


def _num_classes(boxes: Boxes) -> Float[Array, ""]:
  """How many classes the present boxes have."""
  slots = jnp.arange(boxes.labels.shape[-1])
  earlier = comparable(boxes, boxes) & (slots[:, None] > slots[None, :])
  return _count(boxes.present & ~jnp.any(earlier, axis=1))


def _count(which: Bool[Array, " n"]) -> Float[Array, ""]:
  return jnp.sum(which, dtype=jnp.float32)


def _by_score(boxes: Boxes) -> Boxes:
  """Best scores first, absent slots last, equal scores in the order they come."""
  order = jnp.argsort(jnp.where(boxes.present, -boxes.scores, jnp.inf), stable=True)
  return Boxes(*(field[order] for field in boxes))


def _repeated(boxes: Boxes) -> Bool[Array, " p"]:
  """Which boxes have come before with the same class."""
  slots = jnp.arange(boxes.labels.shape[-1])
  same = jnp.all(boxes.boxes[:, None] == boxes.boxes[None], axis=-1) & comparable(boxes, boxes)
  return jnp.any(same & (slots[:, None] > slots[None, :]), axis=1)


def _comparable_iou(prediction: Boxes, truth: Boxes) -> Float[Array, "p g"]:
  iou_PG = pairwise_iou(prediction.boxes, truth.boxes)
  return jnp.where(comparable(prediction, truth), iou_PG, 0.0)


def _choose(iou_PG: Float[Array, "p g"], allowed_PG: Bool[Array, "p g"]) -> Float[Array, " p"]:
  """One after the other, each box takes the free object it overlaps most: the IoU, 0 for none."""

  def choose(free_G: Bool[Array, " g"], row: tuple) -> tuple[Bool[Array, " g"], Float[Array, ""]]:
    iou_G, allowed_G = row
    iou_G = jnp.where(free_G & allowed_G, iou_G, 0.0)
    iou = jnp.max(iou_G, initial=0.0)
    slots_G = jnp.arange(len(iou_G))
    # The first of equals, like argmax, which is slow on CPU.
    chosen = jnp.min(jnp.where((iou_G == iou) & (iou > 0), slots_G, len(iou_G)))
    return free_G & (slots_G != chosen), iou

  return jax.lax.scan(choose, jnp.ones(iou_PG.shape[1], bool), (iou_PG, allowed_PG))[1]


def _proper(boxes: Boxes) -> Bool[Array, " n"]:
  return boxes.present & jnp.all(boxes.boxes[:, 2:] > boxes.boxes[:, :2], axis=-1)


def _pairwise_giou(
  boxes_P4: Float[Array, "p 4"], boxes_G4: Float[Array, "g 4"]
) -> Float[Array, "p g"]:
  """Generalized IoU (1902.09630) of proper boxes; finite for all."""
  corner_P12, corner_1G2 = boxes_P4[:, None, :2], boxes_G4[None, :, :2]
  end_P12, end_1G2 = boxes_P4[:, None, 2:], boxes_G4[None, :, 2:]
  hull_PG = jnp.prod(jnp.maximum(end_P12, end_1G2) - jnp.minimum(corner_P12, corner_1G2), axis=-1)
  overlap_PG2 = jnp.minimum(end_P12, end_1G2) - jnp.maximum(corner_P12, corner_1G2)
  intersection_PG = jnp.prod(jnp.maximum(overlap_PG2, 0.0), axis=-1)
  areas_PG = jnp.prod(end_P12 - corner_P12, axis=-1) + jnp.prod(end_1G2 - corner_1G2, axis=-1)
  union_PG = areas_PG - intersection_PG
  outside_PG = (hull_PG - union_PG) / jnp.where(hull_PG > 0, hull_PG, 1.0)
  return pairwise_iou(boxes_P4, boxes_G4) - outside_PG


def _clamped(values: Float[Array, "*n"], limits: Sequence[float]) -> Float[Array, "*n"]:
  """0 below the limits, 1 above them, the value itself between."""
  low, high = limits
  return jnp.where(values < low, 0.0, jnp.where(values > high, 1.0, values))
