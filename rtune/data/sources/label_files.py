"""What all sources of masks in files share: reading pairs of an image and its mask.

Dimension key:
  C: classes
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from rtune.data.files import label_masks, label_pairs, validate
from rtune.data.files.images import read_image
from rtune.data.files.label_classes import Classes
from rtune.data.files.label_pairs import Checks, Pair
from rtune.data.files.threads import in_threads
from rtune.data.source import Example
from rtune.errors import DataError
from rtune.predictions.labels import IGNORE


class LabelFiles:
  """A `LabelSource` of pairs of files. It counts pixels, too.

  Attributes:
    classes: their names.
    category_ids: what stands for each in files, see `label_classes.Classes`.
    paths: of the images, in the order of the source.
    names: of the images, by which a list says them.
    warnings: what was found and put right, one line for each kind; empty if nothing was.
  """

  def __init__(
    self, pairs: Sequence[Pair], classes: Classes, checks: Checks, report: validate.Report
  ):
    """Checks the pairs; raises DataError, one report of all that is wrong, what `report` holds too.

    Args:
      pairs: in the order of the source.
      classes: and how masks say them.
      checks: what to look at now.
      report: what is wrong already.
    """
    self._coding, self._max_pixels = classes.coding, checks.max_pixels
    self._pairs = label_pairs.usable(pairs, classes.coding, checks, report)
    report.raise_errors()
    self.classes, self.category_ids = classes.names, classes.ids
    self.paths = [pair.image for pair in self._pairs]
    self.names = tuple(pair.name for pair in self._pairs)
    self.warnings = report.warnings()

  def pixel_counts(self) -> Int[np.ndarray, " c"]:
    """Pixels of each class, those that nobody has labeled not counted. Reads all masks."""

    def count(pair: Pair) -> Int[np.ndarray, " c"]:
      labels = label_masks.known_labels(pair.mask, self._coding, self._max_pixels)
      return np.bincount(labels.ravel() + np.int16(1), minlength=len(self.classes) + 1)[1:]

    counts = in_threads(count, [pair for pair in self._pairs if pair.mask])
    return np.sum(counts, axis=0, dtype=np.int64) + np.zeros(len(self.classes), np.int64)

  def __len__(self) -> int:
    return len(self._pairs)

  def __getitem__(self, index: int) -> Example:
    """Reads one image and its mask; raises DataError, naming the file, if that fails."""
    if not 0 <= index < len(self):
      raise IndexError(f"image {index} of {len(self)}")
    pair = self._pairs[index]
    image = read_image(pair.image, self._max_pixels)
    if pair.mask:
      labels = label_masks.known_labels(pair.mask, self._coding, self._max_pixels)
    else:
      labels = np.full(image.shape[:2], IGNORE, np.int16)
    if labels.shape != image.shape[:2]:
      raise DataError(label_pairs.differ(pair.mask, labels.shape, pair.image, image.shape[:2]))
    return {"image": image, "image_id": pair.image_id, "label_map": labels}
