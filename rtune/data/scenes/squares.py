"""Squares on noise: the easiest detection data, which a small model learns in a minute.

Annotators miss many of the dim ones, in training and validation alike. So imitation learns to leave
objects out that it sees, and tuning for recall has something to mend.
"""

import dataclasses
import operator
from typing import SupportsIndex

import numpy as np

from rtune.data.scenes.base import Rendered
from rtune.data.source import Example

_NOISE = 60  # gray values below which the background lies
_BRIGHT, _DIM = 240, 110
_MOST = 3  # squares of one scene
_CELLS = 8  # along a side of the image


@dataclasses.dataclass(frozen=True)
class Squares(Rendered):
  """A `DetectionSource` of one class: the same fields give the same examples.

  Edges lie on a grid of eight by eight cells, sides are two or three of them. Raises UsageError for
  fields that make no sense, IndexError for an index outside the split.
  """

  size: int = 32  # side of the square image in pixels
  miss_dim: float = 0.5  # share of the dim squares that annotators miss

  def __post_init__(self):
    super().__post_init__()
    self._check(miss_dim=(0, 1))

  @property
  def classes(self) -> tuple[str, ...]:
    return ("square",)

  @property
  def category_ids(self) -> tuple[int, ...]:
    return (1,)

  def __getitem__(self, index: SupportsIndex) -> Example:
    rng = np.random.Generator(self._stream(index))
    image = rng.integers(0, _NOISE, (self.size, self.size, 3), np.uint8)
    boxes, cell = [], self.size // _CELLS
    for brightness in rng.choice((_DIM, _BRIGHT), rng.integers(1, _MOST + 1)):
      cells = int(rng.integers(2, 4))
      side = cells * cell
      y, x = cell * rng.integers(0, _CELLS - cells + 1, 2)
      image[y : y + side, x : x + side] = brightness
      if brightness == _BRIGHT or rng.random() >= self.miss_dim:
        boxes.append((y, x, y + side, x + side))
    boxes_N4 = np.array(boxes, np.float32).reshape(-1, 4)
    return {
      "image": image,
      "image_id": operator.index(index),
      "boxes": boxes_N4,
      "labels": np.zeros(len(boxes_N4), np.int32),
      "crowd": np.zeros(len(boxes_N4), bool),
      "area": np.prod(boxes_N4[:, 2:] - boxes_N4[:, :2], axis=1),
    }
