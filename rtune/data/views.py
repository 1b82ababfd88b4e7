"""A fixed number of views of each example, in place of a new one each time it is read.

What a view gives can then be computed once. Each epoch shows the next view of every example.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rtune.data.reader import Features


def _nothing(index: int, view: int) -> Features:
  del index, view
  return {}


class Views(NamedTuple):
  """How training data are seen.

  Attributes:
    count: views of each example.
    seed: which views these are.
    beside: (index of the example, number of the view) -> further features of it.
  """

  count: int
  seed: int
  beside: Callable[[int, int], Features] = _nothing

  def number(self, position: int, length: int) -> int:
    """The view at a position of the endless stream of a source of this length."""
    return position // length % self.count

  def rng(self, index: int, view: int) -> np.random.Generator:
    """What a view is drawn with."""
    return np.random.default_rng((self.seed, index, view))
