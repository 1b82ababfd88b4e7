"""The embedded captioning data: the scenes of `shapes`, each with several captions.

As there, a scene and its captions follow from (seed, split, index) alone. Five people describe the
same scene in their own words (`rtune.data.scenes.grammar`), so no caption is the right one: where
likelihood spreads over all of them, a metric asks for what most of them agree on.
"""

import dataclasses
import functools
import operator
from typing import SupportsIndex

import numpy as np

from rtune.data.scenes import grammar
from rtune.data.scenes.shapes import Shapes
from rtune.data.source import Example
from rtune.errors import UsageError

_COUNTED = 4000  # scenes that stand for all where words are counted: four seconds


@dataclasses.dataclass(frozen=True)
class CaptionedShapes:
  """A captioning source (see `rtune.data.source`): `image`, `image_id` and `captions`.

  Raises UsageError for fields that make no sense, IndexError for an index outside the split.
  """

  split: str  # "train" or "val"; no scene is in both
  num: int  # scenes in this split
  size: int = 64  # side of the square image in pixels
  seed: int = 0  # another seed, other scenes
  min_objects: int = 1  # fewest objects drawn
  max_objects: int = 6  # most objects drawn, six at most: nobody counts further
  smallest: float = 0.12  # longer side of the smallest object, as a fraction of the image
  largest: float = 0.5  # longer side of the largest object, as a fraction of the image
  captions: int = 5  # captions of a scene

  def __post_init__(self):
    for name, most in (("captions", 100), ("max_objects", 6)):
      if not 1 <= getattr(self, name) <= most:
        value = getattr(self, name)
        raise UsageError(f"CaptionedShapes: {name} is {value}; it must lie between 1 and {most}")
    len(self._scenes)  # checks the other fields

  @functools.cached_property
  def _scenes(self) -> Shapes:
    return Shapes(
      self.split,
      self.num,
      self.size,
      self.seed,
      self.min_objects,
      self.max_objects,
      self.smallest,
      self.largest,
    )

  def references(self, limit: int = 0) -> list[tuple[str, ...]]:
    """The captions of the first `limit` scenes; 0: of thousands, as all would take long."""
    return [self[index]["captions"] for index in range(min(self.num, limit or _COUNTED))]

  def __len__(self) -> int:
    return self.num

  def __getitem__(self, index: SupportsIndex) -> Example:
    index = operator.index(index)
    scene = self._scenes.scene(index)
    # The scene's own stream, moved so far that the two never meet.
    key = np.array([self.seed, 2 * index + (self.split == "val")], np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key).jumped())
    return {
      "image": scene.image,
      "image_id": index,
      "captions": grammar.describe(scene, rng, self.captions),
    }
