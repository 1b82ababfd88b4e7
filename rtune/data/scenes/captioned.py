"""The embedded captioning data: the scenes of `shapes`, each with several captions.

Five people describe the same scene in their own words (`rtune.data.scenes.grammar`), so no caption
is the right one: where likelihood spreads over all of them, a metric asks for what most of them
agree on.
"""

import dataclasses
import operator
from typing import SupportsIndex

from rtune.data.scenes import grammar
from rtune.data.scenes.base import Scenes
from rtune.data.source import Example

_COUNTED = 4000  # scenes that stand for all where words are counted: four seconds


@dataclasses.dataclass(frozen=True)
class CaptionedShapes(Scenes):
  """A `CaptionSource`; of `max_objects` six at most, as nobody counts further.

  Raises UsageError for fields that make no sense, IndexError for an index outside the split.
  """

  captions: int = 5  # captions of a scene

  def __post_init__(self):
    self._check(captions=(1, 100), max_objects=(1, 6))
    super().__post_init__()

  def references(self, limit: int = 0) -> list[tuple[str, ...]]:
    """The captions of the first `limit` scenes; 0: of thousands, as all would take long."""
    return [self[index]["captions"] for index in range(min(self.num, limit or _COUNTED))]

  def __getitem__(self, index: SupportsIndex) -> Example:
    scene = self.scene(index)
    return {
      "image": scene.image,
      "image_id": operator.index(index),
      "captions": grammar.describe(scene, self._other_rng(index), self.captions),
    }
