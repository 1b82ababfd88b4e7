"""Stands for training data that are not on this machine, so that a plan needs none."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rtune.data.source import Example

_SIDE = 64  # pixels
_WORDS_OF_A_CAPTION = 8


@dataclasses.dataclass(frozen=True)
class StandIn:
  """One blank image of a source that has so many classes, and captions of so many words.

  Args:
    times: how often each word occurs.
  """

  num_classes: int
  num_words: int
  times: int = 1

  def __len__(self) -> int:
    return 1

  def __getitem__(self, index: int) -> Example:
    if index:
      raise IndexError(index)
    blank = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    return {"image": blank, "image_id": 0, "label_map": np.zeros((_SIDE, _SIDE), np.int16)}

  @property
  def classes(self) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(self.num_classes))

  @property
  def category_ids(self) -> tuple[int, ...]:
    return tuple(range(self.num_classes))

  @property
  def things(self) -> tuple[bool, ...]:
    return (True,) * self.num_classes

  def references(self, limit: int = 0) -> Sequence[Sequence[str]]:
    """Captions of an image in which every word stands `times` times."""
    words = [f"word{index}" for index in range(self.num_words)]
    starts = range(0, len(words), _WORDS_OF_A_CAPTION)
    captions = [" ".join(words[start : start + _WORDS_OF_A_CAPTION]) for start in starts]
    return [captions * self.times]
