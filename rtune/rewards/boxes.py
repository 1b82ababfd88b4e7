"""Rewards of detected boxes: pure functions of one prediction and its truth. jit, vmap.

Dimension key:
  P: predicted box slots
  G: annotated box slots
  T: IoU thresholds
  C: classes
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int, Integer

from rtune.errors import UsageError
from rtune.predictions.boxes import Boxes

COCO_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def recall(
  prediction: Boxes,
  truth: Boxes,
  *,
  iou_thresholds: Sequence[float] = COCO_THRESHOLDS,
  duplicate_weight: float = 0.3,
  unmatched_weight: float = 0.0,
  class_weights: Sequence[float] | np.ndarray | None = None,
  released_averaging: bool = False,
  by_box: bool = False,
) -> dict[str, Float[Array, "..."]]:
  """Found objects minus a price for finding one twice, averaged over IoU thresholds (2302.08242).

  Matching is greedy: each predicted box points to the object of its own class that it overlaps
  most, if their IoU exceeds the threshold; each object is matched by the best box that points to
  it, and the others are duplicates. A box that points to nothing is free in the paper, and the sum
  is not divided by the number of objects. Inverted and empty boxes match nothing.

  Where nothing of it is found, a model that may draw boxes for nothing draws ever more of them;
  `unmatched_weight` is a price for each, which small data sets want (docs/small_data.md).

  Args:
    prediction: boxes [P, 4] and so on; the scores do not matter.
    truth: boxes [G, 4] and so on.
    iou_thresholds: one or several; the paper's mAP reward takes these ten.
    duplicate_weight: price of a duplicate, in matches.
    unmatched_weight: price of a box that points to nothing, in matches; the paper's is 0.
    class_weights: [C] what a match or duplicate counts, see `balanced_weights`; None = 1.
    released_averaging: weigh the thresholds as the released code does. It files results under the
      threshold with one decimal, so that those with one name count as the last of them: of the ten,
      0.50 counts once, 0.60 and 0.70 twice, 0.85 three times, 0.95 twice.
    by_box: also say what each slot earned, for answers whose decisions are slots.

  Returns:
    reward, and the unweighted numbers of matches, duplicates and unmatched boxes, averaged over
    the thresholds; with `by_box` credit [P], whose sum is the reward.
  """
  thresholds = _released(iou_thresholds) if released_averaging else tuple(iou_thresholds)
  if not thresholds:
    raise UsageError("recall reward: iou_thresholds is empty; name at least one, such as [0.5]")
  iou_P, pointed_P = nearest(prediction, truth)
  # What a box points to is the same at every threshold that it passes, and so is the best of the
  # boxes that point to one object: two vectors say it all.
  points_PG = pointed_P[:, None] == jnp.arange(truth.labels.shape[-1])[None]
  reach_PG = jnp.where(points_PG, iou_P[:, None], 0.0)
  matched_G = _passed(jnp.max(reach_PG, axis=0, initial=0.0), thresholds)
  pointing_P = _passed(iou_P, thresholds)
  unmatched_P = jnp.where(prediction.present, len(thresholds) - pointing_P, 0)
  matches, pointing, unmatched = (jnp.sum(x) for x in (matched_G, pointing_P, unmatched_P))
  parts = {"matches": matches, "duplicates": pointing - matches, "unmatched": unmatched}
  worth_P, worth_G = (_worth(boxes.labels, class_weights) for boxes in (prediction, truth))
  won_G, pointing_P = worth_G * matched_G, worth_P * pointing_P
  # A box and the object that it matches are of one class, and so of one worth.
  duplicates = jnp.sum(pointing_P) - jnp.sum(won_G)
  price_P = unmatched_weight * worth_P * unmatched_P
  parts["reward"] = jnp.sum(won_G) - duplicate_weight * duplicates - jnp.sum(price_P)
  if by_box:
    best_PG = jnp.arange(len(iou_P))[:, None] == _best(reach_PG)[None]
    won_P = jnp.sum(jnp.where(best_PG & points_PG, won_G[None], 0.0), axis=1)
    parts["credit"] = won_P - duplicate_weight * (pointing_P - won_P) - price_P
  return {name: value / len(thresholds) for name, value in parts.items()}


def _worth(labels: Int[Array, " n"], class_weights) -> Float[Array, " n"]:
  if class_weights is None:
    return jnp.ones(labels.shape, jnp.float32)
  return jnp.asarray(class_weights, jnp.float32)[labels]


def _best(reach_PG: Float[Array, "p g"]) -> Int[Array, " g"]:
  """The box that reaches each object best, the first of equals; no boxes, no matter."""
  if not reach_PG.shape[0]:
    return jnp.zeros(reach_PG.shape[1], jnp.int32)
  return jnp.argmax(reach_PG, axis=0)


def weighted_recall(
  prediction: Boxes,
  truth: Boxes,
  *,
  class_counts: Sequence[int],
  smoothing: float = 0.05,
  iou_thresholds: Sequence[float] = COCO_THRESHOLDS,
  duplicate_weight: float = 0.3,
  unmatched_weight: float = 0.0,
  released_averaging: bool = False,
  by_box: bool = False,
) -> dict[str, Float[Array, "..."]]:
  """The paper's mAP reward: `recall` with rare classes worth more, from boxes counted by class."""
  return recall(
    prediction,
    truth,
    iou_thresholds=iou_thresholds,
    duplicate_weight=duplicate_weight,
    unmatched_weight=unmatched_weight,
    class_weights=balanced_weights(class_counts, smoothing),
    released_averaging=released_averaging,
    by_box=by_box,
  )


def match_iou(prediction: Boxes, truth: Boxes, iou_threshold: float = 0.5) -> Float[Array, " p"]:
  """IoU of each predicted box with the object it points to in `recall`, 0 if it points to nothing.

  Duplicates keep theirs. It is what confidence tokens learn to expect (2302.08242).
  """
  iou_P, _ = nearest(prediction, truth)
  return jnp.where(iou_P > iou_threshold, iou_P, 0.0)


def balanced_weights(
  counts: Sequence[int] | Integer[np.ndarray, " c"], smoothing: float = 0.05
) -> Float64[np.ndarray, " c"]:
  """Worth of each class, falling with its number of boxes n: 1 / (n + smoothing * sum n).

  Its mean is 1 over the classes that have boxes: others, such as what an export calls the whole
  project, would shrink what all that occur are worth.

  COCO's counts give 0.165 (person) to 1.166 (hair drier) with the smoothing of 2302.08242. Raises
  UsageError for a class without boxes where nothing is smoothed.
  """
  counts_C = np.asarray(counts, np.float64)
  if counts_C.sum() == 0:
    return np.ones_like(counts_C)
  smoothed_C = counts_C + smoothing * counts_C.sum()
  if not (smoothed_C > 0).all():
    raise UsageError(
      f"class weights: class {int(np.argmin(smoothed_C))} has no boxes; smoothing must be above 0"
    )
  weights_C = 1 / smoothed_C
  return weights_C / weights_C[counts_C > 0].mean()


def pairwise_iou(
  boxes_P4: Float[Array, "p 4"], boxes_G4: Float[Array, "g 4"]
) -> Float[Array, "p g"]:
  """IoU of every pair of (y0, x0, y1, x1) boxes; 0 for inverted and for empty ones."""
  corner_P12, corner_1G2 = boxes_P4[:, None, :2], boxes_G4[None, :, :2]
  end_P12, end_1G2 = boxes_P4[:, None, 2:], boxes_G4[None, :, 2:]
  overlap_PG2 = jnp.minimum(end_P12, end_1G2) - jnp.maximum(corner_P12, corner_1G2)
  intersection_PG = jnp.prod(jnp.maximum(overlap_PG2, 0.0), axis=-1)
  area_P1 = jnp.prod(jnp.maximum(end_P12 - corner_P12, 0.0), axis=-1)
  area_1G = jnp.prod(jnp.maximum(end_1G2 - corner_1G2, 0.0), axis=-1)
  union_PG = area_P1 + area_1G - intersection_PG
  return jnp.where(union_PG > 0, intersection_PG / jnp.where(union_PG > 0, union_PG, 1.0), 0.0)


def comparable(prediction: Boxes, truth: Boxes) -> Bool[Array, "p g"]:
  """Which pairs are both present and of one class."""
  present_PG = prediction.present[:, None] & truth.present[None, :]
  return present_PG & (prediction.labels[:, None] == truth.labels[None, :])


def nearest(prediction: Boxes, truth: Boxes) -> tuple[Float[Array, " p"], Int[Array, " p"]]:
  """Largest IoU of each predicted box with an object of its class, and which object that is."""
  iou_PG = pairwise_iou(prediction.boxes, truth.boxes)
  iou_PG = jnp.where(comparable(prediction, truth), iou_PG, 0.0)
  iou_P = jnp.max(iou_PG, axis=1, initial=0.0)
  # The first of equals, like argmax, which is a slow reduction of pairs on CPU.
  slots = truth.labels.shape[-1]
  equal_PG = iou_PG == iou_P[:, None]
  pointed_P = jnp.min(jnp.where(equal_PG, jnp.arange(slots)[None], slots), axis=1, initial=slots)
  return iou_P, pointed_P


def _passed(iou_N: Float[Array, " n"], thresholds: tuple[float, ...]) -> Float[Array, " n"]:
  """How many thresholds each IoU exceeds."""
  passed_NT = iou_N[:, None] > jnp.array(thresholds, iou_N.dtype)[None]
  return jnp.sum(passed_NT, axis=1, dtype=iou_N.dtype)


def _released(thresholds: Sequence[float]) -> tuple[float, ...]:
  """The thresholds that are in truth averaged where results of one printed name are overwritten."""
  last = {f"{threshold:.1f}": threshold for threshold in thresholds}
  return tuple(last[f"{threshold:.1f}"] for threshold in thresholds)
