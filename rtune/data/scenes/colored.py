"""The embedded data of colorization: the scenes of `rtune.data.scenes.shapes`, as pictures alone.

A kind of object wears its own color in 60 of 100 cases, a region of the background always does: so
color can be guessed and not known. And scenes are pale or vivid as weather and camera have it,
which nobody can tell from a gray picture: imitation answers with what is usual, and that is pale.
"""

import dataclasses
import functools
import operator
from typing import SupportsIndex

import numpy as np

from rtune.data.scenes.shapes import Shapes
from rtune.data.source import Example
from rtune.errors import UsageError
from rtune.predictions.lab import LUMA


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
  fade: float = 2.0  # power of the uniform number that scales a scene's colors; 0: as drawn

  def __post_init__(self):
    if not 0 <= self.fade <= 10:
      raise UsageError(f"ColoredShapes: fade is {self.fade}; it must lie between 0 and 10")
    len(self._scenes)  # checks the other fields

  @functools.cached_property
  def _scenes(self) -> Shapes:
    fields = dataclasses.asdict(self)
    del fields["fade"]
    return Shapes(**fields)

  def __len__(self) -> int:
    return self.num

  def __getitem__(self, index: SupportsIndex) -> Example:
    index = operator.index(index)
    image = self._scenes.scene(index).image.astype(np.float32)
    # The scene's own stream, moved so far that the two never meet.
    key = np.array([self.seed, 2 * index + (self.split == "val")], np.uint64)
    strength = np.random.Generator(np.random.Philox(key=key).jumped()).random() ** self.fade
    gray = (image @ np.array(LUMA, np.float32))[..., None]
    faded = np.rint(gray + np.float32(strength) * (image - gray)).clip(0, 255).astype(np.uint8)
    return {"image": faded, "image_id": index}
