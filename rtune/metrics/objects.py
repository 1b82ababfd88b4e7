"""How many objects of label maps were found, from arrays.

Dimension key:
  H, W: height and width of an image in pixels
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer
from scipy import ndimage

from rtune.errors import UsageError
from rtune.metrics.metric import Metric
from rtune.predictions.labels import IGNORE


class Found(NamedTuple):
  """Of one image.

  Attributes:
    objects: connected regions of the truth.
    found: those of which enough pixels have their class.
    drawn: connected regions of the prediction.
    right: those that lie on their class with so many pixels.
  """

  objects: int
  found: int
  drawn: int
  right: int


def objects(
  classes: Sequence[str], of: Sequence[str] = (), share: float = 0.5, least: int = 4
) -> Metric:
  """Recall and precision of objects: regions of one class, connected by edges.

  The state is a list of (image_id, Found). A prediction is {image_id, labels [H, W]}, a truth
  {image_id, label_map [H, W]}; pixels that nobody has labeled count nowhere.

  Args:
    classes: names.
    of: names of those whose regions are objects; (): all.
    share: of a region's pixels that must agree: more than this.
    least: smaller regions do not count.

  Raises:
    UsageError: `of` names no class.
  """
  unknown = [name for name in of if name not in classes]
  if unknown:
    raise UsageError(f"metric objects: {unknown[0]!r} is no class; there are {', '.join(classes)}.")
  places = [place for place, name in enumerate(classes) if not of or name in of]

  def update(state: list, prediction: Mapping[str, Any], truth: Mapping[str, Any]) -> list:
    known = truth["label_map"] != IGNORE
    annotated = truth["label_map"]
    predicted = np.where(known, prediction["labels"], IGNORE)
    found = _agreeing(annotated, predicted, places, share, least)
    right = _agreeing(predicted, annotated, places, share, least)
    return [*state, (prediction["image_id"], Found(*found, *right))]

  def compute(state: list) -> dict[str, float]:
    total = Found(*np.sum([found for _, found in state], axis=0)) if state else Found(0, 0, 0, 0)
    return {
      "object_recall": total.found / max(total.objects, 1),
      "object_precision": total.right / max(total.drawn, 1),
    }

  return Metric(list, update, compute)


def _agreeing(
  labels: Integer[np.ndarray, "h w"],
  other: Integer[np.ndarray, "h w"],
  places: Sequence[int],
  share: float,
  least: int,
) -> tuple[int, int]:
  """Regions of one map, and how many of them the other one confirms."""
  count = confirmed = 0
  for place in places:
    regions, number = ndimage.label(labels == place)
    size = np.bincount(regions.ravel(), minlength=number + 1)[1:]
    same = np.bincount(regions[other == place], minlength=number + 1)[1:]
    counts = size >= least
    count += int(counts.sum())
    confirmed += int((counts & (same > share * size)).sum())
  return count, confirmed
