"""Classes of two sources as pairs of id and name: compared, and brought into one order."""

import functools
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from rtune.data.source import Categories, Example, Source, forward
from rtune.errors import DataError
from rtune.predictions.labels import IGNORE


class Relabeled:
  """A source with the classes of another one, which are called alike and numbered otherwise.

  Attributes:
    source: the other source. What else it offers is an attribute here as well.
    classes, category_ids: those that labels now go by.
    own_ids: what these classes are called in the source's own files, in the order of `classes`.
    warnings: the source's, and one about this.
  """

  def __init__(
    self, source: Source, classes: Sequence[str], category_ids: Sequence[int], name: str
  ):
    """Brings `source` into the order of `classes`; `name` is what to call it."""
    own = {_composed(one): label for label, one in enumerate(source.classes)}
    order = [own[_composed(one)] for one in classes]
    self.source, self._labels = source, np.argsort(order).astype(np.int32)
    self.own_ids = tuple(source.category_ids[k] for k in order)
    forward(self, source)
    self.classes, self.category_ids = tuple(classes), tuple(category_ids)
    if hasattr(source, "things"):
      self.things = tuple(source.things[k] for k in order)
    for counts in ("class_counts", "pixel_counts"):
      if hasattr(source, counts):
        setattr(self, counts, functools.partial(_ordered, getattr(source, counts), order))
    pairs = zip(self.classes, self.own_ids, self.category_ids, strict=True)
    moved = [f"{one!r} is {theirs}, not {ours}" for one, theirs, ours in pairs if theirs != ours]
    listed = ", ".join(moved[:5]) + (f", and {len(moved) - 5} more" if len(moved) > 5 else "")
    note = f"{name} numbers the classes of the training data otherwise. They go by name: {listed}"
    self.warnings = (*getattr(source, "warnings", ()), note)

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Example:
    """The example with the labels of the other classes."""
    example = dict(self.source[index])
    for key in ("labels", "official_labels"):
      if key in example:
        example[key] = self._labels[example[key]]
    if "label_map" in example:
      table = np.append(self._labels, IGNORE).astype(np.int16)  # IGNORE is -1: the last one
      example["label_map"] = table[example["label_map"]]
    return example


def same_classes(
  source: Source, classes: Sequence[str], category_ids: Sequence[int], name: str, whose: str
) -> Source:
  """The source, in the order of these classes if it has them under other ids.

  Args:
    name: what to call the source, such as "data.val".
    whose: and those whose classes are given, such as "Training data".

  Raises:
    DataError: a list of the classes that only one of them has.
  """
  theirs = tuple(source.classes) if isinstance(source, Categories) else ()
  ids = tuple(source.category_ids) if isinstance(source, Categories) else ()
  ours = [_composed(one) for one in classes]
  found = [_composed(one) for one in theirs]
  if found == ours and ids == tuple(category_ids):
    return source
  if sorted(found) == sorted(ours) and len(set(ours)) == len(ours):
    return Relabeled(source, classes, category_ids, name)
  raise DataError(
    f"{whose} and {name} have different categories: {_difference(category_ids, ours, ids, found)}. "
    "Give both files the same 'categories' section."
  )


def _difference(
  ids: Sequence[int], names: Sequence[str], other_ids: Sequence[int], others: Sequence[str]
) -> str:
  """What either has alone, as ids and names; or all of it where names do not tell."""
  first = [pair for pair in zip(ids, names, strict=True) if pair[1] not in others]
  second = [pair for pair in zip(other_ids, others, strict=True) if pair[1] not in names]
  if not first and not second:
    first, second = list(zip(ids, names, strict=True)), list(zip(other_ids, others, strict=True))
  return f"only the first has {_listed(first)}, only the second {_listed(second)}"


def _listed(pairs: Sequence[tuple[int, str]]) -> str:
  more = f", and {len(pairs) - 20} more" if len(pairs) > 20 else ""
  listed = ", ".join(f"{number} {name!r}" for number, name in pairs[:20])
  return f"[{listed}{more}]"


def _composed(name: str) -> str:
  return unicodedata.normalize("NFC", name).strip()


def _ordered(
  count: Callable[[], Int[np.ndarray, " c"]], order: Sequence[int]
) -> Int[np.ndarray, " c"]:
  return np.asarray(count())[list(order)]
