"""The embedded dataset: rendered scenes of shapes, with boxes drawn as real annotators draw them.

A scene follows from (seed, split, index) alone, so there is nothing to download, nothing to store,
and any example can be read at any time. Annotation is ambiguous on purpose, in training and
validation alike: objects come in no particular order, small ones are missed at times, mostly hidden
ones are left out, and extents are a little off. That is where likelihood and metric part ways.
"""

import dataclasses
import operator
from typing import SupportsIndex

import numpy as np
from jaxtyping import Bool, Float32, Int

from rtune.data.scenes import render
from rtune.data.source import Example
from rtune.errors import UsageError

_SPLITS = ("train", "val")


@dataclasses.dataclass(frozen=True)
class Shapes:
  """A detection source (see `rtune.data.source`): the same fields give the same examples.

  Annotation fields change what is annotated and never the images. Raises UsageError for fields
  that make no sense, IndexError for an index outside the split.
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
  loose: float = 0.035  # std of each edge, as a fraction of the object's extent along that axis
  jitter: float = 0.25  # std in pixels that comes on top, whatever the object's size
  clean: bool = False  # exact boxes of all objects in view, from back to front: for tests, studies

  def __post_init__(self):
    if self.split not in _SPLITS:
      raise UsageError(f"Shapes: split is {self.split!r}; it must be 'train' or 'val'")
    for name, low, high in (
      ("num", 1, 2**62),
      ("size", 16, 4096),
      ("seed", 0, 2**63),
      ("min_objects", 0, self.max_objects),
      ("max_objects", 0, 255),
      ("smallest", 0.01, self.largest),
      ("largest", 0.01, 1),
      ("miss_small", 0, 1),
      ("small", 0.01, 1),
      ("hidden", 0, 1),
      ("loose", 0, 0.2),
      ("jitter", 0, 8),
    ):
      value = getattr(self, name)
      if not low <= value <= high:
        raise UsageError(f"Shapes: {name} is {value}; it must lie between {low} and {high}")

  @property
  def classes(self) -> tuple[str, ...]:
    return render.KINDS

  @property
  def category_ids(self) -> tuple[int, ...]:
    return tuple(range(1, len(render.KINDS) + 1))

  def class_counts(self) -> Int[np.ndarray, "C"]:
    """Boxes of each class in the first thousand scenes: to count in all would take minutes."""
    labels = [self[index]["labels"] for index in range(min(self.num, 1000))]
    return np.bincount(np.concatenate(labels), minlength=len(self.classes))

  def __len__(self) -> int:
    return self.num

  def __getitem__(self, index: SupportsIndex) -> Example:
    scene, rng = self._draw(index)
    if self.clean:
      keep, boxes_N4 = scene.area_N.nonzero()[0], scene.boxes_N4
    else:
      keep = rng.permutation(self._noticed(rng, scene).nonzero()[0])
      boxes_N4 = self._loosen(rng, scene.boxes_N4)
    return {
      "image": scene.image,
      "image_id": operator.index(index),
      "boxes": boxes_N4[keep],
      "labels": scene.kinds_N[keep],
      "crowd": np.zeros(len(keep), bool),
      "area": scene.area_N[keep].astype(np.float32),
    }

  def scene(self, index: SupportsIndex) -> render.Scene:
    """All that is true of image `index`, whether annotated or not."""
    return self._draw(index)[0]

  def noticed(self, index: SupportsIndex) -> tuple[render.Scene, Bool[np.ndarray, "N"]]:
    """The scene of image `index` and which of its objects the annotators have noticed."""
    scene, rng = self._draw(index)
    return scene, self._noticed(rng, scene)

  def _draw(self, index: SupportsIndex) -> tuple[render.Scene, np.random.Generator]:
    """The scene and the generator that goes on to annotate it."""
    index = operator.index(index)
    if not 0 <= index < self.num:
      raise IndexError(f"Shapes: index {index} of a split with {self.num} scenes")
    # A key of its own for each scene: Philox streams never meet, and seeding costs next to nothing.
    key = np.array([self.seed, 2 * index + _SPLITS.index(self.split)], np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key))
    scene = render.render(
      rng, self.size, self.min_objects, self.max_objects, self.smallest, self.largest
    )
    return scene, rng

  def _noticed(self, rng: np.random.Generator, scene: render.Scene) -> Bool[np.ndarray, "N"]:
    """Which objects the annotators have drawn a box for."""
    extent_N2 = scene.boxes_N4[:, 2:] - scene.boxes_N4[:, :2]
    side_N = np.sqrt(extent_N2[:, 0] * extent_N2[:, 1]) / self.size
    missed_N = self.miss_small * np.maximum(0, 1 - side_N / self.small)
    in_view_N = (scene.visible_N >= self.hidden) & (scene.area_N > 0)
    return in_view_N & (rng.random(len(side_N)) >= missed_N)

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
