"""Four images as one: more kinds of neighbors, smaller objects and other borders for small data.

As YOLOv4 has it (2004.10934, "Mosaic"). Boxes, segments and label maps move with their pixels.

Dimension key:
  H, W: height and width of an image in pixels
  N: boxes of one image
"""

from collections.abc import Sequence

import numpy as np

from rtune.data import augment
from rtune.data.cached import source_name
from rtune.data.source import Example, Partial, Source, forward
from rtune.errors import UsageError

_CENTER = (0.3, 0.7)  # range of the place where the four meet, as fractions of the image
_ZOOM = (0.5, 1.0)  # range of how large an image is shown, where it still fills its quarter
_VISIBLE = 0.3  # boxes of which a smaller share is left are not kept


class Mosaics:
  """A `Source` with as many mosaics after its images as a share of them says.

  Mosaic k is always the same: what is new each time is the view that a task takes of it.

  Attributes:
    source: the other source. What else it offers (classes, ...) is an attribute here as well.
  """

  def __init__(self, source: Source, share: float, seed: int):
    """UsageError where there is nothing that moves with the pixels."""
    if isinstance(source, Partial) or not {"boxes", "segments", "label_map"} & {*source[0]}:
      raise UsageError(
        f"config.data.mosaic is {share}, but {source_name(source)} has no boxes, segments or label "
        "maps that move with the pixels; set it to 0."
      )
    self.source, self._seed = source, seed
    self._more = round(share * len(source))
    forward(self, source)

  def __len__(self) -> int:
    return len(self.source) + self._more

  def __getitem__(self, index: int) -> Example:
    if index < len(self.source):
      return self.source[index]
    if index >= len(self):
      raise IndexError(f"image {index} of {len(self)}")
    rng = np.random.default_rng((self._seed, index))
    parts = [self.source[int(k)] for k in rng.integers(0, len(self.source), 4)]
    return {**mosaic(parts, rng), "image_id": -1 - index}


def mosaic(parts: Sequence[Example], rng: np.random.Generator) -> Example:
  """Four examples as one, as large as the first; each is zoomed and cut to fill its quarter."""
  height, width = parts[0]["image"].shape[:2]
  if min(height, width) < 2:
    return parts[0]
  center = rng.uniform(*_CENTER, 2) * (height, width)
  y, x = np.clip(center.round(), 1, (height - 1, width - 1)).astype(int).tolist()
  corners = (0, 0), (0, x), (y, 0), (y, x)
  sizes = (y, x), (y, width - x), (height - y, x), (height - y, width - x)
  quarters = [_quarter(part, size, rng) for part, size in zip(parts, sizes, strict=True)]
  whole = {"image": _stitched([one["image"] for one in quarters])}
  if "label_map" in quarters[0]:
    whole["label_map"] = _stitched([one["label_map"] for one in quarters])
  if "segments" in quarters[0]:
    # Numbers of segments go on from quarter to quarter.
    before = np.cumsum([0] + [len(one["labels"]) for one in quarters[:-1]])
    maps = [one["segments"].astype(np.uint32) for one in quarters]
    maps = [np.where(ids > 0, ids + n, 0) for ids, n in zip(maps, before, strict=True)]
    whole["segments"] = _stitched(maps)
  if "boxes" in quarters[0]:
    moved = [one["boxes"] + np.tile(at, 2) for one, at in zip(quarters, corners, strict=True)]
    whole["boxes"] = np.concatenate(moved).astype(np.float32)
  of_all = [name for name in ("labels", "crowd", "area") if name in quarters[0]]
  return whole | {name: np.concatenate([one[name] for one in quarters]) for name in of_all}


def _quarter(part: Example, size: tuple[int, int], rng: np.random.Generator) -> Example:
  """What of an example fills a part of this size, at a random zoom and place."""
  shape = part["image"].shape[:2]
  least = max(side / length for side, length in zip(size, shape, strict=True))
  zoom = max(least, rng.uniform(*_ZOOM))
  scaled = [max(round(zoom * length), side) for length, side in zip(shape, size, strict=True)]
  place = rng.random(2)
  free = [length - side + 1 for length, side in zip(scaled, size, strict=True)]
  view = augment.View(
    tuple(scaled), (int(place[0] * free[0]), int(place[1] * free[1])), size, False
  )
  found = {**part, "image": augment.see(part["image"], view, size)}
  for name in ("segments", "label_map"):
    if name in part:
      found[name] = augment.see_map(part[name], view, size)
  return found if "boxes" not in part else found | _boxes(part, view)


def _boxes(part: Example, view: augment.View) -> Example:
  """The boxes of which enough is left in a view, in its pixels, with what belongs to them."""
  zoom = np.divide(view.scaled, part["image"].shape[:2])
  moved = part["boxes"] * np.tile(zoom, 2) - np.tile(view.corner, 2)
  cut = np.clip(moved, 0, np.tile(view.shown, 2))
  left, whole = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (cut, moved))
  keep = (left >= _VISIBLE * whole) & (cut[:, 2:] > cut[:, :2]).all(axis=1)
  return {
    "boxes": cut[keep],
    "labels": part["labels"][keep],
    "crowd": part["crowd"][keep],
    "area": (part["area"] * zoom.prod())[keep].astype(np.float32),
  }


def _stitched(quarters: Sequence[np.ndarray]) -> np.ndarray:
  upper, lower = (np.concatenate(quarters[k : k + 2], axis=1) for k in (0, 2))
  return np.concatenate([upper, lower])
