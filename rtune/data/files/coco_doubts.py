"""What is odd about the boxes of a COCO file, though each of them could be meant: warnings.

Dimension key:
  I: images
  T: annotations of all images, ordered by image
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from rtune.data.files import coco_boxes, validate
from rtune.data.files.coco_json import Categories

Records = Sequence[Mapping[str, Any]]

_LEARNED = "Left out in training; the metric takes them, as the official scorer does"


def unwanted(
  records: Records, table: np.ndarray, report: validate.Report
) -> Bool[np.ndarray, " t"]:
  """Which annotations nothing is to be learned from: those that say so, and exact copies."""
  flagged = ~table["counts"]
  for row in table["row"][flagged].tolist():
    what = f"{coco_boxes.name_of(records[row])} ({coco_boxes.flags_of(records[row])})"
    report.warn("annotations that say they do not count", _LEARNED, what)
  copies = _copies(table)
  for row in table["row"][copies].tolist():
    kind = "boxes that are there twice, of one image and class"
    report.warn(kind, _LEARNED, coco_boxes.name_of(records[row]))
  return flagged | copies


def _copies(table: np.ndarray) -> Bool[np.ndarray, " t"]:
  """Which rows are equal to one before."""
  fields = [table["xywh"][:, k] for k in range(3, -1, -1)]
  order = np.lexsort((*fields, table["crowd"], table["label"], table["image"]))
  rows = table[order]
  same = np.ones(max(0, len(rows) - 1), bool)
  for name in ("image", "label", "crowd"):
    same &= rows[name][1:] == rows[name][:-1]
  same &= (rows["xywh"][1:] == rows["xywh"][:-1]).all(axis=1)
  found = np.zeros(len(table), bool)
  found[order[1:][same]] = True
  return found


def warn_of_areas(
  records: Records, table: np.ndarray, keep: Bool[np.ndarray, " t"], report: validate.Report
) -> None:
  """Areas that contradict their boxes: larger, or nothing though there is a box."""
  with np.errstate(over="ignore", invalid="ignore"):
    of_box = table["xywh"][:, 2] * table["xywh"][:, 3]
    larger = keep & (table["area"] > 1.1 * of_box + 2)
    nothing = keep & (table["area"] == 0) & (of_box >= 1)
  mend = "The metric sorts by area into small, medium and large, as the official scorer does"
  for kind, which in (
    ("annotations whose area is larger than their box", larger),
    ("annotations with an area of 0, but with a box", nothing),
  ):
    for row in table["row"][which].tolist():
      report.warn(kind, f"{mend}; correct it, or leave it away", coco_boxes.name_of(records[row]))


def warn_of_layout(
  table: np.ndarray, limits: Int[np.ndarray, "i 2"], report: validate.Report
) -> None:
  """Guesses from all boxes together whether they are something else than x, y, w, h in pixels.

  Args:
    limits: (height, width) of each image in pixels.
  """
  sized = np.isfinite(table["xywh"]).all(axis=1) & (table["xywh"][:, 2:] > 0).all(axis=1)
  if not sized.any():
    return
  first, second = table["xywh"][sized][:, :2], table["xywh"][sized][:, 2:]
  size = limits[table["image"][sized]][:, ::-1]
  guess = _layout(first, second, size)
  if guess:
    what, mend = guess
    report.warn(f"files whose boxes look like {what}", f"Look at a few; {mend}", report.path)


def _layout(
  first: Float[np.ndarray, "n 2"], second: Float[np.ndarray, "n 2"], size: Int[np.ndarray, "n 2"]
) -> tuple[str, str] | None:
  """What boxes are that are (first, second), with a mend; None: x, y, width, height."""
  overflow = (first + second > size + 2).any(axis=1).mean()
  if second.max() <= 1:
    return "fractions of the image", "COCO's unit is the pixel: multiply by width and height"
  corners = (second > first).all(axis=1) & (second <= size + 2).all(axis=1)
  if corners.mean() > 0.99 and overflow > 0.1:
    return "corners [x0, y0, x1, y1]", "COCO's layout is [x, y, width, height]"
  inside = (2 * first >= second - 2).all(axis=1) & (2 * first + second <= 2 * size + 2).all(axis=1)
  if inside.mean() > 0.99 and overflow > 0.1:
    return "centers [x, y, width, height]", "COCO's x and y are the upper left corner"
  percent = (first + second <= 100.5).all()
  large = (size > 150).all() and (first + second).max() > 50
  if percent and (overflow > 0.1 or (large and len(first) > 10)):
    return "percent of the image", "COCO's unit is the pixel"
  return None


def warn_of_names(categories: Categories, report: validate.Report) -> None:
  """Classes that are there twice."""
  for name, count in collections.Counter(categories.names).items():
    if count > 1:
      mend = "They are told apart by their id alone, as the official scorer does; merge them"
      report.warn("names that several categories have", mend, repr(name))


def warn_of_federation(records: Records, report: validate.Report) -> None:
  """Images in which not every box is there, as in LVIS."""
  mend = "Boxes that nobody checked count as false in AP; score results with lvis-api"
  for record in records:
    name = f"image {record.get('id')!r:.40}"
    if record.get("not_exhaustive_category_ids"):
      kind = "images in which not every box of a class is there (not_exhaustive_category_ids)"
      report.warn(kind, mend, name)
    if isinstance(record.get("neg_category_ids"), list):
      kind = "images of which only some classes are checked (neg_category_ids)"
      report.warn(kind, mend, name)
