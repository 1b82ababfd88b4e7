"""How often each class of a source is annotated.

Dimension key:
  C: classes
"""

import numpy as np
from jaxtyping import Int

from rtune.data.source import ClassCounts, PixelCounts, Source
from rtune.predictions.labels import IGNORE


def count(source: Source) -> tuple[str, Int[np.ndarray, " C"]]:
  """What a source annotates, "boxes" or "pixels", and how many of each class.

  Asks the source where it offers an answer; otherwise every example is read, images included. Crowd
  regions and pixels that nobody has labeled are not counted.
  """
  if isinstance(source, PixelCounts):
    return "pixels", np.asarray(source.pixel_counts(), np.int64)
  if isinstance(source, ClassCounts):
    return "boxes", np.asarray(source.class_counts(), np.int64)
  has_maps = "label_map" in source[0]
  counts_C = np.zeros(len(source.classes), np.int64)
  for index in range(len(source)):
    example = source[index]
    if has_maps:
      labels = example["label_map"][example["label_map"] != IGNORE]
    else:
      labels = example["labels"][~example["crowd"]]
    counts_C += np.bincount(labels, minlength=len(counts_C))
  return "pixels" if has_maps else "boxes", counts_C


def count_classes(source: Source) -> Int[np.ndarray, " C"]:
  """The numbers alone."""
  return count(source)[1]
