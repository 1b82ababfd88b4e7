"""Where classes of a label map meet, and how well two maps agree about it. numpy.

Dimension key:
  H, W: height and width of an image in pixels
  N: pixels that lie at a boundary
  C: classes
"""

import functools
import math

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from rtune.predictions.labels import IGNORE

_NOWHERE = -2  # no class, and not what nobody has labeled


def boundary_f1(
  predicted_HW: Integer[np.ndarray, "h w"],
  truth_HW: Integer[np.ndarray, "h w"],
  classes: int,
  tolerance: float,
) -> Float[np.ndarray, " c"]:
  """F1 of the boundaries of each class in one image (Csurka et al., BMVC 2013).

  A pixel lies at the boundary of its class if one of its four neighbors has another class. The
  border of the image is none, and neither is that of what nobody has labeled: nothing is known of
  it. Precision is the share of a class's predicted boundary pixels with an annotated one of the
  same class within the tolerance, recall the reverse, 0 of none.

  Args:
    predicted_HW: classes from 0 on.
    truth_HW: classes from 0 on, and `IGNORE`.
    classes: how many there are.
    tolerance: a distance as a share of the image's diagonal (theirs is 0.0075), rounded up to whole
      pixels as the DAVIS benchmark does it.

  Returns:
    F1 of each class, NaN where neither map has a boundary of it.
  """
  known_HW = truth_HW != IGNORE
  found_HW, there_HW = (_at_boundary(x, known_HW) for x in (predicted_HW, truth_HW))
  radius = math.ceil(tolerance * math.hypot(*truth_HW.shape))
  precision_C, found_C = _share_near(found_HW, there_HW, classes, radius)
  recall_C, there_C = _share_near(there_HW, found_HW, classes, radius)
  f1_C = 2 * precision_C * recall_C / np.maximum(precision_C + recall_C, 1e-12)
  return np.where(found_C + there_C > 0, f1_C, np.nan)


def _at_boundary(
  labels_HW: Integer[np.ndarray, "h w"], known_HW: Bool[np.ndarray, "h w"]
) -> Int[np.ndarray, "h w"]:
  """The class of pixels that lie at a boundary; the others are nowhere."""
  at_HW = np.zeros(labels_HW.shape, bool)
  for one, other in (
    (np.s_[1:], np.s_[:-1]),
    (np.s_[:, 1:], np.s_[:, :-1]),
  ):
    differ = (labels_HW[one] != labels_HW[other]) & known_HW[one] & known_HW[other]
    at_HW[one] |= differ
    at_HW[other] |= differ
  return np.where(at_HW, labels_HW, _NOWHERE).astype(np.int32)


def _share_near(
  from_HW: Int[np.ndarray, "h w"], to_HW: Int[np.ndarray, "h w"], classes: int, radius: int
) -> tuple[Float[np.ndarray, " c"], Int[np.ndarray, " c"]]:
  """Of each class: the share of its pixels in one map with one in the other near, and how many."""
  padded_HW = np.pad(to_HW, radius, constant_values=_NOWHERE)
  width, flat = padded_HW.shape[1], padded_HW.ravel()
  y_N, x_N = np.nonzero(from_HW != _NOWHERE)
  labels_N, places_N = from_HW[y_N, x_N], (y_N + radius) * width + x_N + radius
  total_C = np.bincount(labels_N, minlength=classes)
  # From near to far: few pixels are left after the first steps.
  for down, right in _disk(radius):
    left_N = flat[places_N + (down * width + right)] != labels_N
    labels_N, places_N = labels_N[left_N], places_N[left_N]
    if not labels_N.size:
      break
  far_C = np.bincount(labels_N, minlength=classes)
  return (total_C - far_C) / np.maximum(total_C, 1), total_C


@functools.cache
def _disk(radius: int) -> tuple[tuple[int, int], ...]:
  """Steps (down, right) to all pixels within a distance, the nearest first."""
  reach = range(-radius, radius + 1)
  steps = [(y * y + x * x, y, x) for y in reach for x in reach if y * y + x * x <= radius**2]
  return tuple((y, x) for _, y, x in sorted(steps))
