"""The embedded panoptic data: the scenes of `rtune.data.scenes.shapes`, cut into segments.

As there, a scene and its annotation follow from (seed, split, index) alone. Things are the six
kinds of objects, stuff the six kinds of regions. What annotators have not noticed, because it is
small or mostly hidden, belongs to the region behind it: there is no void.
"""

import dataclasses
import functools
import operator
from typing import SupportsIndex

import numpy as np

from rtune.data.scenes import render
from rtune.data.scenes.shapes import Shapes
from rtune.data.source import Example


@dataclasses.dataclass(frozen=True)
class PanopticShapes:
  """A panoptic source (see `rtune.data.sources.coco_panoptic`); fields as in Shapes.

  Raises UsageError for fields that make no sense, IndexError for an index outside the split.
  """

  split: str  # "train" or "val"; no scene is in both
  num: int  # scenes in this split
  size: int = 64  # side of the square image in pixels
  seed: int = 0  # another seed, other scenes
  min_objects: int = 1  # fewest objects drawn
  max_objects: int = 6  # most objects drawn
  smallest: float = 0.12  # longer side of the smallest object, as a fraction of the image
  largest: float = 0.5  # longer side of the largest object, as a fraction of the image
  miss_small: float = (
    0.8  # chance of missing an object of no size, falling linearly to 0 at `small`
  )
  small: float = 0.25  # sqrt(height * width) that is never missed, as a fraction of the image
  hidden: float = 0.3  # objects with less than this share in view are left out

  def __post_init__(self):
    len(self._scenes)  # checks the fields

  @functools.cached_property
  def _scenes(self) -> Shapes:
    return Shapes(**dataclasses.asdict(self))

  @property
  def classes(self) -> tuple[str, ...]:
    return (*render.KINDS, *(name for name, _, _ in render.STUFF))

  @property
  def category_ids(self) -> tuple[int, ...]:
    return tuple(range(1, len(self.classes) + 1))

  @property
  def things(self) -> tuple[bool, ...]:
    return (True,) * len(render.KINDS) + (False,) * len(render.STUFF)

  def __len__(self) -> int:
    return self.num

  def __getitem__(self, index: SupportsIndex) -> Example:
    scene, noticed_N = self._scenes.noticed(index)
    objects, kinds = len(noticed_N), len(render.KINDS)
    # Every object and region that there might be, then only those with pixels.
    number = np.append(0, np.where(noticed_N, np.arange(objects) + 1, 0))
    candidates_SS = number[scene.ids_SS]
    behind_SS = objects + 1 + scene.stuff_SS.astype(np.int64)
    candidates_SS = np.where(candidates_SS > 0, candidates_SS, behind_SS)
    labels = np.concatenate([scene.kinds_N, kinds + np.arange(len(render.STUFF))])
    area = np.bincount(candidates_SS.ravel(), minlength=len(labels) + 1)[1:]
    rows = area.nonzero()[0]
    slot = np.zeros(len(labels) + 1, np.uint8 if len(rows) < 256 else np.uint16)
    slot[rows + 1] = np.arange(len(rows)) + 1
    return {
      "image": scene.image,
      "image_id": operator.index(index),
      "segments": slot[candidates_SS],
      "labels": labels[rows].astype(np.int32),
      "crowd": np.zeros(len(rows), bool),
    }
