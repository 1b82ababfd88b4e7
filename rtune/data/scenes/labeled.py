"""The embedded data of semantic segmentation: scenes of `rtune.data.scenes.shapes` as label maps.

Classes are the six kinds of objects, some of them rare, and the six kinds of regions behind them.
Annotators overlook most of what is small, and it is labeled as the region behind it; so likelihood
learns to leave rare and small objects out, which mIoU punishes.

Dimension key:
  C: classes
"""

import dataclasses
import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int

from rtune.data.scenes import render
from rtune.data.scenes.base import NoticedScenes
from rtune.data.scenes.style import restyle
from rtune.data.source import Example
from rtune.errors import UsageError

_COUNTED = 1000  # scenes that stand for all where pixels are counted: a second


@dataclasses.dataclass(frozen=True)
class LabeledShapes(NoticedScenes):
  """A `LabelSource`; every pixel has a class.

  `style` and `true_labels` change neither what is drawn where nor what annotators notice. Raises
  UsageError for fields that make no sense, IndexError for an index outside the split.
  """

  miss_small: float = 0.9
  small: float = 0.45
  rarity: Sequence[float] = (0.40, 0.26, 0.16, 0.10, 0.05, 0.03)  # how often each kind is drawn
  true_labels: bool = False  # nothing is overlooked: to measure what annotation hides
  style: float = 0.0  # strength of a second style, see `style`: a domain to adapt to

  def __post_init__(self):
    super().__post_init__()
    self._check(style=(0, 1))
    kinds = len(render.KINDS)
    if len(self.rarity) != kinds or min(self.rarity) < 0 or abs(sum(self.rarity) - 1) > 1e-6:
      raise UsageError(
        f"LabeledShapes: rarity is {self.rarity}; give {kinds} shares that make 1 in all"
      )

  @property
  def classes(self) -> tuple[str, ...]:
    return (*render.KINDS, *(name for name, _, _ in render.STUFF))

  @property
  def category_ids(self) -> tuple[int, ...]:
    return tuple(range(len(self.classes)))

  def pixel_counts(self) -> Int[np.ndarray, " C"]:
    """Pixels of each class in the first thousand scenes: to count in all would take minutes."""
    maps = [self[index]["label_map"] for index in range(min(self.num, _COUNTED))]
    return np.bincount(np.concatenate(maps).ravel(), minlength=len(self.classes))

  def _rarity(self) -> Sequence[float]:
    return self.rarity

  def __getitem__(self, index: SupportsIndex) -> Example:
    scene, rng = self._draw(index)
    seen_N = scene.area_N > 0 if self.true_labels else self._notice(rng, scene)
    # By the id in view: 0 is background, which a hidden or overlooked object counts as, too.
    label_of = np.append(-1, np.where(seen_N, scene.kinds_N, -1)).astype(np.int16)
    labels_SS = label_of[scene.ids_SS]
    behind_SS = len(render.KINDS) + scene.stuff_SS.astype(np.int16)
    return {
      "image": restyle(scene.image, self.style, self._other_rng(index)),
      "image_id": operator.index(index),
      "label_map": np.where(labels_SS < 0, behind_SS, labels_SS),
    }
