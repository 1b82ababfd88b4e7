"""Captioning datasets of TensorFlow Datasets, such as coco_captions; see `rtune.data.sources.tfds`.

python -c "from rtune.data.sources.tfds import prepare; prepare('coco_captions', '/data/tfds')"
"""

from typing import Any

import numpy as np

from rtune.data.source import Example
from rtune.data.sources.tfds import decode_image, fields_of, find_builder, open_split
from rtune.errors import DataError


class TfdsCaptions:
  """A `CaptionSource` on a prepared TFDS dataset.

  Where the dataset has no `image/id`, the index stands for it.
  """

  def __init__(
    self,
    name: str,
    split: str,
    data_dir: str | None = None,
    *,
    captions: str = "captions",
    text: str = "text",
  ):
    """Opens the dataset; no image is read yet.

    Args:
      name: as in TFDS: "coco_captions"; without a version the newest on disk.
      split: as in TFDS: "train+restval", "test".
      data_dir: folder of all prepared datasets. None: TFDS_DATA_DIR or ~/tensorflow_datasets.
      captions: feature that holds the captions.
      text: feature of `captions` that is the text.

    Raises:
      UsageError: TFDS is not installed.
      DataError: the dataset is not prepared, has no such split, or is not of this kind.
    """
    self._name, self._captions, self._text = name, captions, text
    builder = find_builder(name, data_dir)
    self._check(builder.info.features)
    self._records = open_split(builder, name, split)

  def _check(self, features: Any) -> None:
    tree = fields_of(features)
    dtype = getattr(tree.get("image"), "np_dtype", None)
    if dtype != np.uint8 or self._text not in fields_of(tree.get(self._captions)):
      known = [f"{name}/{field}" for name in tree for field in fields_of(tree[name])]
      raise DataError(
        f"{self._name} needs the features image (uint8) and {self._captions}/{self._text}; name "
        f"others with `captions` and `text`. It has {', '.join([*tree, *known])}."
      )

  def references(self, limit: int = 0) -> list[tuple[str, ...]]:
    """The captions of the first `limit` images; 0: of all.

    TFDS keeps them beside the pixels, so all of that is read.
    """
    return [
      self._texts(index, self._records[index])
      for index in range(min(limit or len(self), len(self)))
    ]

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Example:
    """Reads and decodes one image; DataError, naming dataset and index, if that fails."""
    if not 0 <= index < len(self):
      raise IndexError(f"image {index} of {len(self)}")
    record = self._records[index]
    image_id = record.get("image/id", index)
    return {
      "image": decode_image(record["image"], f"{self._name}, image {index}"),
      "image_id": int(image_id) if isinstance(image_id, (int, np.integer)) else index,
      "captions": self._texts(index, record),
    }

  def _texts(self, index: int, record: Any) -> tuple[str, ...]:
    texts = record[self._captions][self._text]
    if not len(texts):
      raise DataError(f"{self._name}, image {index}, has no caption; take it out of the split.")
    return tuple(t.decode(errors="replace") if isinstance(t, bytes) else str(t) for t in texts)
