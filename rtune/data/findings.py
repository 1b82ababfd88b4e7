"""What was found odd in the data of a run: the same words for every command, and for the report."""

from collections.abc import Mapping

import numpy as np

from rtune.data.files import copies
from rtune.data.source import (
  BoxCounts,
  CaptionSource,
  ClassCounts,
  SegmentCounts,
  Source,
  warnings_of,
)
from rtune.display import console
from rtune.errors import DataError

_SHOWN = 10
_LOOKED_AT = 500  # images whose captions are looked at


def gather(sources: Mapping[str, Source], train: str = "data.train") -> tuple[str, ...]:
  """Warnings of all sources, each once, with what shows only of their counts and paths.

  Args:
    sources: by what to call them.
    train: which of them is learned from, or counted to weigh classes.
  """
  found = dict.fromkeys(text for source in sources.values() for text in warnings_of(source))
  for name, source in sources.items():
    found |= dict.fromkeys(_uncut(name, source))
  if train in sources:
    found |= dict.fromkeys(_unseen_classes(train, sources[train]))
    for name, source in sources.items():
      if name != train:
        found |= dict.fromkeys(_shared(train, sources[train], name, source))
  return tuple(found)


def tell(sources: Mapping[str, Source], train: str = "data.train") -> tuple[str, ...]:
  """Prints what `gather` finds, and returns it."""
  found = gather(sources, train)
  for text in found:
    console.warn(text)
  return found


def check_usable(name: str, source: Source) -> None:
  """DataError where there is nothing to learn from or to score, though there are images."""
  for kind, counts, count in (
    ("box", BoxCounts, "box_counts"),
    ("segment", SegmentCounts, "segment_counts"),
  ):
    if isinstance(source, counts) and len(source) and not np.any(getattr(source, count)()):
      what = f"{name} has not a single {kind} to learn from or to score in {len(source)} images"
      mend = "(those with iscrowd 1 do not count). Correct the annotations:"
      raise DataError("\n- ".join([f"{what} {mend}", *warnings_of(source)]))


def _unseen_classes(name: str, source: Source) -> list[str]:
  if not isinstance(source, ClassCounts):
    return []
  counts = np.asarray(source.class_counts())
  unseen = [one for one, count in zip(source.classes, counts, strict=True) if not count]
  if not unseen or not counts.any():
    return []
  more = f" and {len(unseen) - _SHOWN} more" if len(unseen) > _SHOWN else ""
  listed = " ".join(repr(one) for one in unseen[:_SHOWN]) + more
  return [
    f"{name}: classes without a box ({len(unseen)} of {len(counts)}). They cannot be learned, and "
    f"the mean weight of classes is taken without them: {listed}"
  ]


def _uncut(name: str, source: Source) -> list[str]:
  """Sentences without spaces, as Chinese, Japanese and Thai are written."""
  if not isinstance(source, CaptionSource):
    return []
  captions = [text for group in source.references(_LOOKED_AT) for text in group]
  single = [text for text in captions if len(text.split()) == 1 and len(text.strip()) > 3]
  if 2 * len(single) <= len(captions):
    return []
  return [
    f"{name}: captions that are a single word ({len(single)} of the first {len(captions)}). Each "
    "is learned and scored as one word. Part words by spaces first, as jieba (Chinese), MeCab "
    "(Japanese) and pythainlp (Thai) do, or name a model in config.task.args.sentence_piece: "
    f"{single[0]!r:.60}"
  ]


def _shared(train: str, learned: Source, name: str, other: Source) -> list[str]:
  """Images that are learned from and scored."""
  paths, others = (getattr(source, "paths", ()) for source in (learned, other))
  both = copies.shared(paths, others)
  if not both:
    return []
  return [
    f"{name} has {len(both)} of its {len(others)} images in common with {train}, as the same files "
    f"or as copies: its scores say in part how well these are known by heart, such as {both[0]!r}"
  ]
