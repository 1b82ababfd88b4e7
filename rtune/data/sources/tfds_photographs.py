"""Pictures of TensorFlow Datasets, such as imagenet2012; see `rtune.data.sources.tfds`.

python -c "from rtune.data.sources.tfds import prepare; prepare('imagenet2012', '/data/tfds')"
"""

import numpy as np

from rtune.data.source import Example
from rtune.data.sources.tfds import decode_image, fields_of, find_builder, open_split
from rtune.errors import DataError


class TfdsPhotographs:
  """A `Source` of pictures on a prepared TFDS dataset; the index is the id of an image.

  Gray ones are not looked for: all would have to be read.
  """

  def __init__(self, name: str, split: str, data_dir: str | None = None):
    """Opens the dataset; no image is read yet.

    Args:
      name: as in TFDS: "imagenet2012"; without a version the newest on disk.
      split: as in TFDS: "train[4096:]", "validation".
      data_dir: folder of all prepared datasets. None: TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      UsageError: TFDS is not installed.
      DataError: the dataset is not prepared, has no such split, or has no images.
    """
    self._name = name
    builder = find_builder(name, data_dir)
    tree = fields_of(builder.info.features)
    if getattr(tree.get("image"), "np_dtype", None) != np.uint8:
      raise DataError(f"{name} needs the feature image (uint8). It has {', '.join(tree)}.")
    self._records = open_split(builder, name, split)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Example:
    """Reads and decodes one image; DataError, naming dataset and index, if that fails."""
    if not 0 <= index < len(self):
      raise IndexError(f"image {index} of {len(self)}")
    encoded = self._records[index]["image"]
    return {"image": decode_image(encoded, f"{self._name}, image {index}"), "image_id": index}
