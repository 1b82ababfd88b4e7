"""Whether the scores of predicted boxes say how good the boxes are.

Dimension key:
  N: predicted boxes of an image
  G: annotated boxes of an image
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.stats
from jaxtyping import Float


@runtime_checkable
class Judged(Protocol):
  """One image: boxes [N, 4] (y0, x0, y1, x1), labels and scores [N], and the same of its truth."""

  boxes: np.ndarray
  labels: np.ndarray
  scores: np.ndarray
  truth_boxes: np.ndarray
  truth_labels: np.ndarray


def score_iou(records: Sequence[Judged]) -> float | None:
  """Spearman's rank correlation, over all predicted boxes, of the score with the true IoU.

  The true IoU of a box is that with the annotated box of its class that it overlaps most, 0 if
  there is none. None where ranks mean nothing: fewer than two boxes, or all alike.
  """
  scores = np.concatenate([np.zeros(0), *(record.scores for record in records)])
  ious = np.concatenate([np.zeros(0), *(best_iou(record) for record in records)])
  if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(ious) == 0:
    return None
  return float(scipy.stats.spearmanr(scores, ious).statistic)


def best_iou(record: Judged) -> Float[np.ndarray, " n"]:
  """IoU of each predicted box with the object of its class that it overlaps most."""
  if not len(record.truth_boxes):
    return np.zeros(len(record.boxes))
  own, other = record.boxes[:, None].astype(float), record.truth_boxes[None].astype(float)
  low, high = np.maximum(own[..., :2], other[..., :2]), np.minimum(own[..., 2:], other[..., 2:])
  overlap_NG = np.maximum(high - low, 0).prod(-1)
  areas_NG = (own[..., 2:] - own[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1)
  same_NG = record.labels[:, None] == record.truth_labels[None]
  return (overlap_NG / np.maximum(areas_NG - overlap_NG, 1e-9) * same_NG).max(1)
