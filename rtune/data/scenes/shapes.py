"""The embedded dataset: rendered scenes of shapes, with boxes drawn as real annotators draw them.

Annotation is ambiguous on purpose, in training and validation alike: objects come in no particular
order, small ones are missed at times, mostly hidden ones are left out, and extents are a little
off. That is where likelihood and metric part ways.
"""

import dataclasses
import operator
from typing import SupportsIndex

import numpy as np
from jaxtyping import Float32, Int

from rtune.data.scenes import render
from rtune.data.scenes.base import NoticedScenes
from rtune.data.source import Example


@dataclasses.dataclass(frozen=True)
class Shapes(NoticedScenes):
  """A `DetectionSource` that counts classes: the same fields give the same examples.

  Annotation fields change what is annotated and never the images. Raises UsageError for fields
  that make no sense, IndexError for an index outside the split.
  """

  loose: float = 0.035  # std of each edge, as a fraction of the object's extent along that axis
  jitter: float = 0.25  # std in pixels that comes on top, whatever the object's size
  clean: bool = False  # exact boxes of all objects in view, from back to front: for tests, studies

  def __post_init__(self):
    super().__post_init__()
    self._check(loose=(0, 0.2), jitter=(0, 8))

  @property
  def classes(self) -> tuple[str, ...]:
    return render.KINDS

  @property
  def category_ids(self) -> tuple[int, ...]:
    return tuple(range(1, len(render.KINDS) + 1))

  def class_counts(self) -> Int[np.ndarray, " C"]:
    """Boxes of each class in the first thousand scenes: to count in all would take minutes."""
    labels = [self[index]["labels"] for index in range(min(self.num, 1000))]
    return np.bincount(np.concatenate(labels), minlength=len(self.classes))

  def __getitem__(self, index: SupportsIndex) -> Example:
    scene, rng = self._draw(index)
    if self.clean:
      keep, boxes_N4 = scene.area_N.nonzero()[0], scene.boxes_N4
    else:
      keep = rng.permutation(self._notice(rng, scene).nonzero()[0])
      boxes_N4 = self._loosen(rng, scene.boxes_N4)
    return {
      "image": scene.image,
      "image_id": operator.index(index),
      "boxes": boxes_N4[keep],
      "labels": scene.kinds_N[keep],
      "crowd": np.zeros(len(keep), bool),
      "area": scene.area_N[keep].astype(np.float32),
    }

  def _loosen(
    self, rng: np.random.Generator, boxes_N4: Float32[np.ndarray, "N 4"]
  ) -> Float32[np.ndarray, "N 4"]:
    """Edges as annotators place them: off by a share of the extent and a bit of a pixel."""
    extent_N2 = boxes_N4[:, 2:] - boxes_N4[:, :2]
    spread_N2 = np.sqrt((self.loose * extent_N2) ** 2 + self.jitter**2)
    # An edge moves by at most a third of the extent: no box turns inside out or loses its object.
    step_N4 = rng.standard_normal(boxes_N4.shape, np.float32) * np.tile(spread_N2, 2)
    limit_N4 = np.tile(extent_N2 / 3, 2)
    moved_N4 = boxes_N4 + np.clip(step_N4, -limit_N4, limit_N4)
    return np.clip(moved_N4, 0, self.size).astype(np.float32)
