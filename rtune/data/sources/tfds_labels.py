"""Label maps of TensorFlow Datasets, such as oxford_iiit_pet; see `rtune.data.sources.tfds`.

python -c "from rtune.data.sources.tfds import prepare; prepare('oxford_iiit_pet', '/data/tfds')"

Dimension key:
  C: classes
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int16
from PIL import Image

from rtune.data.files import label_classes, label_masks
from rtune.data.source import Example
from rtune.data.sources.tfds import decode_image, fields_of, find_builder, open_split
from rtune.errors import DataError


class TfdsLabels:
  """A `LabelSource` on a prepared TFDS dataset; the index is the id of an image.

  Attributes:
    classes: their names.
    category_ids: what stands for each in masks, see `label_classes.Classes`.
  """

  def __init__(
    self,
    name: str,
    split: str,
    data_dir: str | None = None,
    *,
    classes: str | Sequence[Any] = (),
    image: str = "image",
    mask: str = "segmentation_mask",
    ids: str | Mapping[Any, Any] | None = None,
    divisor: int = 0,
    colors: Mapping[Any, Any] | Sequence[Any] | None = None,
    ignore: Sequence[Any] = (255,),
  ):
    """Opens the dataset; no image is read yet.

    Args:
      name: as in TFDS: "oxford_iiit_pet"; without a version the newest on disk.
      split: as in TFDS: "train", "test[:10%]".
      data_dir: folder of all prepared datasets. None: TFDS_DATA_DIR or ~/tensorflow_datasets.
      classes: names, or a file of them: TFDS does not know what masks mean.
      image: feature that holds the image ("image_left" in cityscapes).
      mask: feature that holds the mask, stored as PNG ("segmentation_label" in cityscapes).
      ids, divisor, colors, ignore: as in `LabelFolder`.

    Raises:
      UsageError: TFDS is not installed, or a setting makes no sense.
      DataError: the dataset is not prepared, has no such split, or is not of this kind.
    """
    self._name, self._image, self._mask = name, image, mask
    meant = label_classes.resolve(classes, ids=ids, colors=colors, ignore=ignore, divisor=divisor)
    self.classes, self.category_ids, self._coding = meant
    builder = find_builder(name, data_dir)
    tree = fields_of(builder.info.features)
    dtypes = [getattr(tree.get(feature), "np_dtype", None) for feature in (image, mask)]
    if dtypes[0] != np.uint8 or dtypes[1] not in (np.uint8, np.uint16):
      raise DataError(
        f"{name} needs the features {image} (uint8) and {mask} (an image of uint8 or uint16); name "
        f"others with `image` and `mask`. It has {', '.join(tree)}."
      )
    self._records = open_split(builder, name, split, (image, mask))

  def pixel_counts(self) -> Int[np.ndarray, " c"]:
    """Pixels of each class, those that nobody has labeled not counted. Reads all masks."""
    counts = np.zeros(len(self.classes) + 1, np.int64)
    for index in range(len(self)):
      labels = self._labels(self._records[index], index)
      counts += np.bincount(labels.ravel() + np.int16(1), minlength=len(counts))
    return counts[1:]

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Example:
    """Reads and decodes one image; DataError, naming dataset and index, if that fails."""
    if not 0 <= index < len(self):
      raise IndexError(f"image {index} of {len(self)}")
    record = self._records[index]
    image = decode_image(record[self._image], f"{self._name}, image {index}")
    labels = self._labels(record, index)
    if labels.shape != image.shape[:2]:
      raise DataError(
        f"{self._name}, image {index}: its mask has the size {labels.shape}, the image has "
        f"{image.shape[:2]}. Take it out of the split."
      )
    return {"image": image, "image_id": index, "label_map": labels}

  def _labels(self, record: Any, index: int) -> Int16[np.ndarray, "h w"]:
    encoded, what = record[self._mask], f"{self._name}, mask {index}"
    try:
      with Image.open(io.BytesIO(encoded)) as image:
        mask = label_masks.decode_mask(encoded, image, self._coding, what)
    except OSError as error:
      raise DataError(f"{what}, cannot be decoded ({error}).") from error
    if mask.unknown:
      kind = label_masks.UNKNOWN_KIND
      raise DataError(f"{what}: {kind}: {label_masks.listed(mask)}. {label_masks.UNKNOWN_MEND}.")
    return mask.labels
