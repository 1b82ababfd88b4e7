"""The batches of a phase, and which examples were in one of them."""

import contextlib
import itertools
import pathlib
from collections.abc import Callable, Generator
from typing import Any

import jax

from rtune.data import loader
from rtune.data.cached import source_name
from rtune.data.unreadable import left_out
from rtune.data.views import Views
from rtune.errors import DataError
from rtune.training import adapt
from rtune.training.phases import Phase
from rtune.training.setup import Setup

_SEEDS_A_RUN = 3  # seeds of data that runs of neighboring seeds do not share
_NAMED = 16  # examples of a batch that a message names


class Feed:
  """Batches of the steps of a phase after `done`.

  Args:
    folder: the workdir.
    labeling: gives the parameters that label images at that moment, where a phase asks for labels.
    views: those that each example has; None: a new one each time.
  """

  def __init__(
    self,
    setup: Setup,
    phase: Phase,
    folder: pathlib.Path,
    done: int,
    labeling: Callable[[], Any],
    views: Views | None = None,
  ):
    self._setup, self._phase, self._folder = setup, phase, folder
    self._spans = adapt.spans(setup, phase.name, folder, done, labeling)
    self._size = getattr(setup.config, phase.name).batch_size
    self._seed = setup.config.seed * _SEEDS_A_RUN + phase.seed
    self._source, self._views = setup.train, views

  def batches(self) -> Generator[dict, None, None]:
    """One batch after the other; close it to stop the threads."""
    data = self._setup.config.data
    for span in self._spans:
      self._source = span.source
      batches = loader.train_batches(
        span.source,
        self._setup.task.example,
        batch_size=self._size,
        seed=self._seed,
        start_step=span.first,
        num_threads=data.threads,
        prefetch=data.prefetch,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        unreadable=left_out(data, "the training data", span.source, self._folder),
        timeout_s=data.timeout_s,
        views=self._views,
      )
      with contextlib.closing(batches):
        yield from itertools.islice(batches, span.last - span.first)

  def examples(self, step: int) -> str:
    """The examples of the batch of a step of this phase (1 is the first), as messages name them."""
    indices = loader.batch_indices(len(self._source), self._seed, self._size, step - 1)
    ids = [_image_id(self._source, index) for index in indices[:_NAMED]]
    more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
    pairs = ", ".join(f"{at} (image_id {one})" for at, one in zip(indices, ids, strict=False))
    return f"its batch has the examples {pairs}{more} of {source_name(self._source)}"


def _image_id(source: Any, index: int) -> Any:
  try:
    return source[index].get("image_id", "?")
  except DataError:
    return "?"
