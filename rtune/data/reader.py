"""One example after the other out of a source, with what is said where that fails or takes long."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from rtune.data.cached import source_name
from rtune.data.slow import SlowReads
from rtune.data.source import Example, Source
from rtune.data.unreadable import Unreadable
from rtune.errors import DataError

Features = Mapping[str, np.ndarray | np.generic]
MakeExample = Callable[[Example, np.random.Generator | None], Features]


class Read(NamedTuple):
  """An example as it was read."""

  index: int
  raw: Example
  features: Features


class Reader:
  """Reads examples of a source; several threads may.

  Args:
    example: (raw, rng) -> features of one example.
    unreadable: takes examples with a DataError; None: they are errors.
    timeout_s: seconds that one example may take, where it is read by `slow.limited`; 0 = no limit.
  """

  def __init__(
    self,
    source: Source,
    example: MakeExample,
    unreadable: Unreadable | None,
    timeout_s: float = 0.0,
  ):
    self._source, self._example, self._unreadable = source, example, unreadable
    self.slow = SlowReads(timeout_s)

  def read(self, index: int, rng: np.random.Generator | None = None) -> Read | None:
    """The example; None where it is left out."""
    try:
      with self.slow.reading(self._name(index)):
        return self._read(index, rng)
    except DataError as error:
      if self._unreadable is None:
        raise
      self._unreadable.leave_out(index, error)
      return None

  def read_from(
    self, index: int, make_rng: Callable[[int], np.random.Generator | None] = lambda index: None
  ) -> Read:
    """The example, or the next one of the source that is not left out."""
    for at in _from(index, len(self._source)):
      found = self.read(at, make_rng(at))
      if found is not None:
        return found
    raise DataError(f"{source_name(self._source)} has no example that can be read.")

  def _name(self, index: int) -> str:
    return f"example {index} of {source_name(self._source)}"

  def _read(self, index: int, rng: np.random.Generator | None) -> Read:
    where = self._name(index)
    try:
      raw = self._source[index]
      where += f" (image_id {raw['image_id']})" if "image_id" in raw else ""
      return Read(index, raw, self._example(raw, rng))
    except DataError as error:
      raise DataError(f"{where}: {error}") from error
    except SystemExit as error:
      raise DataError(f"{where}: reading it called sys.exit({error.code!r}).") from error
    except Exception as error:
      error.add_note(f"This was {where}.")
      raise


def _from(index: int, length: int) -> Iterator[int]:
  """All indices of a source, from this one on."""
  return ((index + offset) % length for offset in range(length))
