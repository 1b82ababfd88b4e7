"""What all embedded data sets are made of: rendered scenes that follow from (seed, split, index).

So there is nothing to download and nothing to store, and any example can be read at any time.
"""

import dataclasses
import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
from jaxtyping import Bool

from rtune.data.scenes import render
from rtune.errors import UsageError

_SPLITS = ("train", "val")


@dataclasses.dataclass(frozen=True)
class Rendered:
  """What is drawn with a stream of chance of its own for each image: the same fields, the same.

  Raises UsageError for fields that make no sense, IndexError for an index outside the split.
  """

  split: str  # "train" or "val"; no scene is in both
  num: int  # scenes in this split
  size: int = 64  # side of the square image in pixels
  seed: int = 0  # another seed, other scenes

  def __post_init__(self):
    if self.split not in _SPLITS:
      who = type(self).__name__
      raise UsageError(f"{who}: split is {self.split!r}; it must be 'train' or 'val'")
    self._check(num=(1, 2**62), size=(16, 4096), seed=(0, 2**63))

  def _check(self, **bounds: tuple[int | float, int | float]) -> None:
    """UsageError for the first of these fields that lies outside its bounds, or is NaN."""
    for name, (low, high) in bounds.items():
      value = getattr(self, name)
      if not low <= value <= high:
        who = type(self).__name__
        raise UsageError(f"{who}: {name} is {value}; it must lie between {low} and {high}")

  def __len__(self) -> int:
    return self.num

  def _stream(self, index: SupportsIndex) -> np.random.Philox:
    index = operator.index(index)
    if not 0 <= index < self.num:
      who = type(self).__name__
      raise IndexError(f"{who}: index {index} of a split with {self.num} scenes")
    # A key of its own for each scene: Philox streams never meet, and seeding costs next to nothing.
    key = np.array([self.seed, 2 * index + _SPLITS.index(self.split)], np.uint64)
    return np.random.Philox(key=key)


@dataclasses.dataclass(frozen=True)
class Scenes(Rendered):
  """Scenes of one split: the same fields give the same scenes.

  Raises UsageError for fields that make no sense, IndexError for an index outside the split.
  """

  min_objects: int = 1  # fewest objects drawn
  max_objects: int = 6  # most objects drawn
  smallest: float = 0.12  # longer side of the smallest object, as a fraction of the image
  largest: float = 0.5  # longer side of the largest object, as a fraction of the image

  def __post_init__(self):
    super().__post_init__()
    self._check(
      min_objects=(0, self.max_objects),
      max_objects=(0, 255),
      smallest=(0.01, self.largest),
      largest=(0.01, 1),
    )

  def scene(self, index: SupportsIndex) -> render.Scene:
    """All that is true of image `index`, whether annotated or not."""
    return self._draw(index)[0]

  def _draw(self, index: SupportsIndex) -> tuple[render.Scene, np.random.Generator]:
    """The scene and the generator that it was drawn with."""
    rng = np.random.Generator(self._stream(index))
    sizes = self.smallest, self.largest
    scene = render.render(
      rng, self.size, self.min_objects, self.max_objects, *sizes, self._rarity()
    )
    return scene, rng

  def _rarity(self) -> Sequence[float]:
    """How often each kind of object is drawn, as `render` has it."""
    return ()

  def _other_rng(self, index: SupportsIndex) -> np.random.Generator:
    """Chance for what is no part of the scene: its stream, moved so far that the two never meet."""
    return np.random.Generator(self._stream(index).jumped())


@dataclasses.dataclass(frozen=True)
class NoticedScenes(Scenes):
  """Scenes as annotators see them, who miss what is small or mostly hidden."""

  # Chance of missing an object of no size, falling linearly to 0 at `small`.
  miss_small: float = 0.8
  small: float = 0.25  # sqrt(height * width) that is never missed, as a fraction of the image
  hidden: float = 0.3  # objects with less than this share in view are left out

  def __post_init__(self):
    super().__post_init__()
    self._check(miss_small=(0, 1), small=(0.01, 1), hidden=(0, 1))

  def noticed(self, index: SupportsIndex) -> tuple[render.Scene, Bool[np.ndarray, " N"]]:
    """The scene of image `index` and which of its objects the annotators have noticed."""
    scene, rng = self._draw(index)
    return scene, self._notice(rng, scene)

  def _notice(self, rng: np.random.Generator, scene: render.Scene) -> Bool[np.ndarray, " N"]:
    extent_N2 = scene.boxes_N4[:, 2:] - scene.boxes_N4[:, :2]
    side_N = np.sqrt(extent_N2[:, 0] * extent_N2[:, 1]) / self.size
    missed_N = self.miss_small * np.maximum(0, 1 - side_N / self.small)
    in_view_N = (scene.visible_N >= self.hidden) & (scene.area_N > 0)
    return in_view_N & (rng.random(len(side_N)) >= missed_N)
