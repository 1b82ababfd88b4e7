"""The embedded data of colorization: the scenes of `rtune.data.scenes.shapes`, as pictures alone.

A kind of object wears its own color in 60 of 100 cases, a region of the background always does: so
color can be guessed and not known. And scenes are pale or vivid as weather and camera have it,
which nobody can tell from a gray picture: imitation answers with what is usual, and that is pale.
"""

import dataclasses
import operator
from typing import SupportsIndex

import numpy as np

from rtune.data.scenes.base import Scenes
from rtune.data.source import Example
from rtune.predictions.lab import LUMA


@dataclasses.dataclass(frozen=True)
class ColoredShapes(Scenes):
  """A `Source` of pictures.

  Raises UsageError for fields that make no sense, IndexError for an index outside the split.
  """

  fade: float = 2.0  # power of the uniform number that scales a scene's colors; 0: as drawn

  def __post_init__(self):
    self._check(fade=(0, 10))
    super().__post_init__()

  def __getitem__(self, index: SupportsIndex) -> Example:
    image = self.scene(index).image.astype(np.float32)
    strength = self._other_rng(index).random() ** self.fade
    gray = (image @ np.array(LUMA, np.float32))[..., None]
    faded = np.rint(gray + np.float32(strength) * (image - gray)).clip(0, 255).astype(np.uint8)
    return {"image": faded, "image_id": operator.index(index)}
