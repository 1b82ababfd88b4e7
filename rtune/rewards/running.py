"""A statistic of training that rewards and losses may read, such as a confusion matrix."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Running(NamedTuple):
  """A statistic as a record of functions. jit; its state is part of the training state.

  Attributes:
    init: () -> state, a tree of arrays.
    update: (state, likeliest predictions of a batch, their truths) -> state; leaves of predictions
      and truths are [B, ...].
  """

  init: Callable[[], Any]
  update: Callable[[Any, Any, Any], Any]
