"""The embedded data of colorization: the scenes of `rtune.data.shapes`, as pictures alone.

A kind of object wears its own color in 60 of 100 cases, a region of the background always does: so
color can be guessed and not known, and what imitation says on average is paler than any scene.
"""

import dataclasses
import functools
import operator
from typing import SupportsIndex

from rtune.data.shapes import Shapes
from rtune.data.source import Example


@dataclasses.dataclass(frozen=True)
class ColoredShapes:
  """A source of pictures (see `rtune.data.source`): `image` and `image_id`.

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

  def __post_init__(self):
    len(self._scenes)  # checks the fields

  @functools.cached_property
  def _scenes(self) -> Shapes:
    return Shapes(**dataclasses.asdict(self))

  def __len__(self) -> int:
    return self.num

  def __getitem__(self, index: SupportsIndex) -> Example:
    return {"image": self._scenes.scene(index).image, "image_id": operator.index(index)}
