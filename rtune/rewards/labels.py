"""Rewards of label maps: pure functions of one prediction and its truth. jit, vmap.

Those with `credit` say what each pixel earned: how the reward changes with this pixel's class and
nothing else. That takes the noise of all other pixels out of the gradient and keeps its
expectation; a reward of the whole map, given to thousands of pixels, teaches them nothing.

Dimension key:
  H, W: height and width of the model's input in pixels
  T: pixels, row by row
  C: classes, of the truth (G) or of the prediction (A)
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rtune.errors import UsageError
from rtune.predictions import boundaries
from rtune.predictions.labels import (
  IGNORE,
  LabelMap,
  confusion,
  intersection_and_union,
)
from rtune.rewards.boxes import balanced_weights
from rtune.rewards.mark import on_host
from rtune.rewards.running import Running

Confusion = Float[Array, "c c"]


class Effects(NamedTuple):
  """What one pixel does to mIoU, times the number of pixels: r[g, a] of truth g and class a.

  r[g, g] = gain[g] and r[g, a] = -cost[a] elsewhere, up to what is the same for all a.
  """

  gain: Float[Array, " c"]
  cost: Float[Array, " c"]


def class_confusion(classes: Sequence[str], decay: float = 0.97) -> Running:
  """The confusion matrix of the likeliest predictions, rows = truth: older batches fade.

  Args:
    classes: their names.
    decay: what is left of the matrix at each step; its memory is 1 / (1 - decay) batches.
  """
  if not 0 <= decay < 1:
    raise UsageError(f"class_confusion: decay is {decay}; it must be at least 0 and below 1.")
  size = len(classes)

  def update(state: Confusion, prediction: LabelMap, truth: LabelMap) -> Confusion:
    return decay * state + confusion(prediction.labels, truth.labels, size)

  return Running(lambda: jnp.zeros((size, size), jnp.float32), update)


def effects(
  counts: Confusion, there: Float[Array, " c"], class_weights: Sequence[float] = ()
) -> Effects:
  """How mIoU over many images changes with one pixel, from their confusion matrix: its derivative.

  With I and U intersection and union of a class, one more pixel of truth g that gets class a
  changes IoU_g by (1 - IoU_g) / U_g if a = g; else IoU_g by -IoU_g / U_g and IoU_a by -IoU_a / U_a.
  The term -IoU_g / U_g is in both and cancels between the choices of a pixel: without it the gain
  is 1 / U_g and the cost IoU_a / U_a, each times the class's share of the mean.

  Classes that are nowhere have no IoU, cost nothing, and are left out of the mean as the metric
  leaves them out. (A pixel that brings one in as a mistake makes mIoU jump; no derivative has it.)

  Args:
    counts: pixels, rows = truth, columns = prediction.
    there: pixels of each class in the image at hand. No union is taken for smaller: a class that
      the counts have forgotten would be worth any sum.
    class_weights: shares in the mean, of any scale; (): all the same.
  """
  intersection_C, union_C = intersection_and_union(counts)
  iou_C = intersection_C / jnp.maximum(union_C, _tiny(union_C))
  union_C = jnp.maximum(union_C, there)
  total = jnp.maximum(jnp.sum(counts), jnp.sum(there))
  worth_C = total * _shares(union_C > 0, class_weights) / jnp.maximum(union_C, _tiny(union_C))
  return Effects(worth_C, worth_C * iou_C)


def miou_change(
  prediction: LabelMap,
  truth: LabelMap,
  *,
  running: Confusion,
  class_weights: Sequence[float] = (),
) -> dict[str, Array]:
  """What each pixel changes in mIoU over the data set, to first order; see `effects`.

  mIoU is no mean over images, so no reward of one image is it; but its derivative by the count of
  each pixel is a reward of one pixel.

  Args:
    prediction: labels [H, W].
    truth: labels [H, W]; `IGNORE` earns 0.
    running: state of `class_confusion`.
    class_weights: shares of the classes in the mean, of any scale; (): all the same.

  Returns:
    credit [T], and reward: its mean over labeled pixels.
  """
  known_HW = truth.labels != IGNORE
  own_HW = jnp.maximum(truth.labels, 0)
  effect = effects(running, class_areas(truth, running.shape[0]), class_weights)
  right_HW = prediction.labels == truth.labels
  credit_HW = jnp.where(right_HW, effect.gain[own_HW], -effect.cost[prediction.labels])
  return _by_pixel(credit_HW, known_HW)


def balanced_miou_change(
  prediction: LabelMap,
  truth: LabelMap,
  *,
  running: Confusion,
  class_counts: Sequence[int],
  smoothing: float = 0.05,
) -> dict[str, Array]:
  """`miou_change` where rare classes weigh more in the mean, by `balanced_weights`.

  Args:
    class_counts: pixels of each class; a config need not give those of the training data.
    smoothing: share of all pixels that is added to those of each class.
  """
  weights = tuple(balanced_weights(class_counts, smoothing).tolist())
  return miou_change(prediction, truth, running=running, class_weights=weights)


def accuracy(prediction: LabelMap, truth: LabelMap) -> dict[str, Array]:
  """1 for each right pixel: what cross-entropy is after as well, in a reward's words.

  Returns:
    credit [T], 0 where nobody has labeled, and reward: its mean over labeled pixels.
  """
  right_HW = (prediction.labels == truth.labels).astype(jnp.float32)
  return _by_pixel(right_HW, truth.labels != IGNORE)


def mean_iou(
  prediction: LabelMap,
  truth: LabelMap,
  *,
  classes: Sequence[str],
  class_weights: Sequence[float] = (),
) -> Float[Array, ""]:
  """mIoU of one image, over the classes that are in its prediction or its truth.

  A number of the whole map, for comparison: as a reward of thousands of independent pixels it is
  nearly all noise, and classes that an image has not weigh nothing until one pixel is wrong.

  Args:
    prediction: labels [H, W].
    truth: labels [H, W].
    classes: their names.
    class_weights: shares in the mean, of any scale; (): all the same.

  Returns:
    NaN, so no reward, where nothing is labeled.
  """
  counts = confusion(prediction.labels, truth.labels, len(classes))
  intersection_C, union_C = intersection_and_union(counts)
  there_C = union_C > 0
  iou_C = intersection_C / jnp.maximum(union_C, 1.0)
  mean = jnp.sum(_shares(there_C, class_weights) * iou_C)
  return jnp.where(jnp.any(there_C), mean, jnp.nan)


@on_host
def boundary_f1(
  prediction: LabelMap,
  truth: LabelMap,
  *,
  classes: Sequence[str],
  tolerance: float = 0.0075,
) -> float:
  """F1 of the boundaries of one image's classes, averaged (Csurka et al., BMVC 2013). On the host.

  Args:
    prediction: labels [H, W].
    truth: labels [H, W].
    classes: their names.
    tolerance: how far off a boundary may be, as a share of the diagonal; see
      `rtune.predictions.boundaries`.

  Returns:
    The mean over classes with a boundary in either map; 1 where no class has one.
  """
  maps = (np.asarray(one.labels) for one in (prediction, truth))
  f1_C = boundaries.boundary_f1(*maps, len(classes), tolerance)
  known_C = np.isfinite(f1_C)
  return float(f1_C[known_C].mean()) if known_C.any() else 1.0


def class_areas(truth: LabelMap, classes: int) -> Float[Array, " {classes}"]:
  """Pixels of each class."""
  labels_T = truth.labels.reshape(-1)
  labels_T = jnp.where(labels_T == IGNORE, classes, labels_T)
  return jnp.zeros(classes, jnp.int32).at[labels_T].add(1, mode="drop").astype(jnp.float32)


def _by_pixel(credit_HW: Float[Array, "h w"], known_HW: Bool[Array, "h w"]) -> dict[str, Array]:
  """Credit of labeled pixels, and its mean."""
  credit_HW = jnp.where(known_HW, credit_HW, 0.0)
  known = jnp.maximum(jnp.sum(known_HW, dtype=jnp.float32), 1.0)
  return {"reward": jnp.sum(credit_HW) / known, "credit": credit_HW.reshape(-1)}


def _shares(there_C: Bool[Array, " c"], class_weights: Sequence[float]) -> Float[Array, " c"]:
  """What each class that is there weighs in a mean; they sum to 1, or to 0 of none."""
  weights_C = weights_of(class_weights, there_C.shape[0]) * there_C.astype(jnp.float32)
  total = jnp.sum(weights_C)
  return weights_C / jnp.maximum(total, _tiny(total))


def weights_of(class_weights: Sequence[float], classes: int) -> Float[Array, " {classes}"]:
  """Weights of classes with a mean of 1; (): all 1.

  Raises:
    UsageError: there are not as many as classes, or they weigh nothing.
  """
  if not len(class_weights):
    return jnp.ones(classes, jnp.float32)
  if len(class_weights) != classes:
    raise UsageError(
      f"class_weights has {len(class_weights)} numbers for {classes} classes; give one for each."
    )
  if min(class_weights) < 0 or max(class_weights) == 0:
    raise UsageError(f"class_weights is {tuple(class_weights)}; give numbers above 0.")
  weights_C = jnp.asarray(class_weights, jnp.float32)
  return weights_C / jnp.mean(weights_C)


def _tiny(like: Float[Array, "..."]) -> float:
  """The least divisor that is no 0."""
  return float(jnp.finfo(like.dtype).tiny)
