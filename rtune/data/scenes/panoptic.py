"""The embedded panoptic data: the scenes of `rtune.data.scenes.shapes`, cut into segments.

Things are the six kinds of objects, stuff the six kinds of regions. What annotators have not
noticed, because it is small or mostly hidden, belongs to the region behind it: there is no void.
"""

import dataclasses
import operator
from typing import SupportsIndex

import numpy as np

from rtune.data.scenes import render
from rtune.data.scenes.base import NoticedScenes
from rtune.data.source import Example


@dataclasses.dataclass(frozen=True)
class PanopticShapes(NoticedScenes):
  """A `SegmentSource`; the same objects are noticed as in Shapes.

  Raises UsageError for fields that make no sense, IndexError for an index outside the split.
  """

  @property
  def classes(self) -> tuple[str, ...]:
    return (*render.KINDS, *(name for name, _, _ in render.STUFF))

  @property
  def category_ids(self) -> tuple[int, ...]:
    return tuple(range(1, len(self.classes) + 1))

  @property
  def things(self) -> tuple[bool, ...]:
    return (True,) * len(render.KINDS) + (False,) * len(render.STUFF)

  def __getitem__(self, index: SupportsIndex) -> Example:
    scene, noticed_N = self.noticed(index)
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
