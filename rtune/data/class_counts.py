"""How often each class of a source is annotated.

Dimension key:
  C: classes
"""

import numpy as np
from jaxtyping import Int

from rtune.data.reader import Reader
from rtune.data.source import ClassCounts, PixelCounts, Source
from rtune.data.unreadable import Unreadable
from rtune.predictions.labels import IGNORE


def count(
  source: Source, unreadable: Unreadable | None = None
) -> tuple[str, Int[np.ndarray, " C"]]:
  """What a source annotates, "boxes" or "pixels", and how many of each class.

  Asks the source where it offers an answer; otherwise every example is read, images included, but
  for those that `unreadable` takes. Crowd regions and pixels that nobody has labeled are not
  counted.
  """
  if isinstance(source, PixelCounts):
    return "pixels", np.asarray(source.pixel_counts(), np.int64)
  if isinstance(source, ClassCounts):
    return "boxes", np.asarray(source.class_counts(), np.int64)
  reader = Reader(source, lambda raw, rng: raw, unreadable)
  has_maps = "label_map" in reader.read_from(0).raw
  counts_C = np.zeros(len(source.classes), np.int64)
  for index in range(len(source)):
    found = reader.read(index)
    if found is None:
      continue
    example = found.raw
    if has_maps:
      labels = example["label_map"][example["label_map"] != IGNORE]
    else:
      labels = example["labels"][~example["crowd"]]
    counts_C += np.bincount(labels, minlength=len(counts_C))
  return "pixels" if has_maps else "boxes", counts_C


def count_classes(source: Source, unreadable: Unreadable | None = None) -> Int[np.ndarray, " C"]:
  """The numbers alone."""
  return count(source, unreadable)[1]
