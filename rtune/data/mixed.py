"""Sources made of others."""

from collections.abc import Sequence

from rtune.data.source import Example, Source


class Mixed:
  """Two sources as one: a fixed share of its examples is the first one's.

  The shorter one comes again and again, so that both are drawn in these shares.
  """

  def __init__(self, first: Source, second: Source, share: float):
    """Mixes; `share` is of `first`, above 0 and below 1."""
    self._sources, self._share = (first, second), share
    self._length = round(max(len(first) / share, len(second) / (1 - share)))

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: int) -> Example:
    before = int(index * self._share)
    first, second = self._sources
    if int((index + 1) * self._share) > before:
      return first[before % len(first)]
    return second[(index - before) % len(second)]


class Chosen:
  """Some of a source's examples."""

  def __init__(self, source: Source, indices: Sequence[int]):
    self._source, self._indices = source, list(indices)

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, index: int) -> Example:
    return self._source[self._indices[index]]
