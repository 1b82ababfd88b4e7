"""Datasets of TensorFlow Datasets (TFDS), read at random and without TensorFlow: detection.

Those of captions are in `rtune.data.sources.tfds_captions`.

A dataset is prepared once, in the ArrayRecord format, by the only function here that needs
TensorFlow; the command (for COCO it downloads tens of gigabytes) is

  python -c "from rtune.data.sources.tfds import prepare; prepare('coco/2017', '/data/tfds')"

Reading goes by what is on disk. `tfds.builder(name)` would run the dataset's own code, which
imports TensorFlow (seen with tensorflow-datasets 4.9.10 and COCO).
"""

import io
import re
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8
from PIL import Image

from rtune.data.source import Example
from rtune.errors import DataError, UsageError


class TfdsDetection:
  """A `DetectionSource` on a prepared TFDS dataset.

  Boxes are cut at the image's edges, those with nothing left are dropped. Where the dataset has no
  `image/id`, `is_crowd` or `area`, the index, False and the box's own area stand for them. The
  metric scores the boxes as they are, all but those with NaN or infinite numbers and those of an
  unknown class: an example has them as official_boxes, float64 [M, 4] as (x, y, width, height) in
  pixels, and official_labels, official_crowd, official_area [M].

  Attributes:
    classes: class names, by label.
    category_ids: the labels themselves: TFDS does not keep the ids of COCO's own files.
  """

  def __init__(
    self,
    name: str,
    split: str,
    data_dir: str | None = None,
    *,
    objects: str = "objects",
    label: str = "label",
  ):
    """Opens the dataset; no image is read yet.

    Args:
      name: as in TFDS: "coco/2017", "voc/2007:4.0.0"; without a version the newest on disk.
      split: as in TFDS: "train", "validation[:10%]".
      data_dir: folder of all prepared datasets. None: TFDS_DATA_DIR or ~/tensorflow_datasets.
      objects: feature that holds the boxes ("bobjects" in open_images_v4).
      label: feature of `objects` that is the class ("type" in kitti).

    Raises:
      UsageError: TFDS is not installed.
      DataError: the dataset is not prepared, has no such split, or is not of this kind.
    """
    self._name, self._objects, self._label = name, objects, label
    builder = find_builder(name, data_dir)
    self.classes: tuple[str, ...] = self._check(builder.info.features)
    self.category_ids: tuple[int, ...] = tuple(range(len(self.classes)))
    self._records = open_split(builder, name, split)

  def _check(self, features: Any) -> tuple[str, ...]:
    """Class names, if the dataset has images with boxes and classes."""
    tree = fields_of(features)
    fields = fields_of(tree.get(self._objects))
    names = getattr(fields.get(self._label), "names", None)
    dtype = getattr(tree.get("image"), "np_dtype", None)
    if dtype != np.uint8 or "bbox" not in fields or names is None:
      known = [f"{name}/{field}" for name in tree for field in fields_of(tree[name])]
      raise DataError(
        f"{self._name} needs the features image (uint8), {self._objects}/bbox and "
        f"{self._objects}/{self._label} (a ClassLabel); name others with `objects` and `label`. "
        f"It has {', '.join([*tree, *known])}."
      )
    return tuple(names)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Example:
    """Reads and decodes one image; raises DataError, naming dataset and index, if that fails."""
    if not 0 <= index < len(self):
      raise IndexError(f"image {index} of {len(self)}")
    record = self._records[index]
    image_id = record.get("image/id", index)
    image = decode_image(record["image"], f"{self._name}, image {index}")
    height, width = image.shape[:2]
    fields = record[self._objects]
    relative = np.array(fields["bbox"], np.float32).reshape(-1, 4)
    scale = np.array([height, width, height, width], np.float32)
    boxes = np.clip(relative, 0, 1) * scale
    labels = np.array(fields[self._label], np.int32).reshape(-1)
    # Negative labels mean "unknown"; comparisons with NaN are False.
    keep = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (labels >= 0)
    crowd = np.array(fields.get("is_crowd", np.zeros(len(labels))), bool)
    area = fields.get("area", (boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    return {
      "image": image,
      "image_id": int(image_id) if isinstance(image_id, (int, np.integer)) else index,
      "boxes": boxes[keep],
      "labels": labels[keep],
      "crowd": crowd[keep],
      "area": np.array(area, np.float32)[keep],
      **_official(relative, scale, labels, crowd, fields.get("area")),
    }


def _official(
  relative: Float32[np.ndarray, "n 4"],
  scale: Float32[np.ndarray, "4"],
  labels: Int32[np.ndarray, " n"],
  crowd: Bool[np.ndarray, " n"],
  area: Any,
) -> Example:
  """What the metric scores, neither cut nor rounded; without `area` those of the boxes."""
  scored = np.isfinite(relative).all(axis=1) & (labels >= 0)
  y0, x0, y1, x1 = (relative[scored].astype(np.float64) * scale).T
  boxes = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)
  return {
    "official_boxes": boxes,
    "official_labels": labels[scored],
    "official_crowd": crowd[scored],
    "official_area": boxes[:, 2:].prod(axis=1) if area is None else np.array(area, float)[scored],
  }


def find_builder(name: str, data_dir: str | None) -> Any:
  """A prepared dataset; UsageError without TFDS, DataError if it is not there."""
  tfds = _import_tfds()
  return tfds.builder_from_directory(_find(tfds, name, data_dir))


def open_split(builder: Any, name: str, split: str, images: Sequence[str] = ("image",)) -> Any:
  """Records to be read at random, these `images` as bytes; DataError if there are none."""
  tfds = _import_tfds()
  try:
    # TFDS would decode with OpenCV or Pillow, whichever is there, and leave CMYK as it is.
    decoders = {image: tfds.decode.SkipDecoding() for image in images}
    return builder.as_data_source(split=split, decoders=decoders)
  except NotImplementedError as error:
    raise DataError(
      f"{name} is prepared in {builder.data_dir} as {builder.info.file_format.value}, which "
      f"cannot be read at random. {_how_to_prepare(name, 'ANOTHER_FOLDER')}"
    ) from error
  except ValueError as error:
    known = ", ".join(builder.info.splits)
    raise DataError(f"{name} has no examples in split {split!r}; splits: {known}.") from error


def decode_image(encoded: bytes, what: str) -> UInt8[np.ndarray, "h w 3"]:
  """An image file's pixels; DataError that says `what` they cannot be decoded of."""
  try:
    with Image.open(io.BytesIO(encoded)) as image:
      return np.array(image.convert("RGB"))
  except Exception as error:  # Pillow's readers raise nearly anything on damaged data
    raise DataError(f"{what}, cannot be decoded ({error}).") from error


def prepare(name: str, data_dir: str | None = None) -> None:
  """Downloads a TFDS dataset and writes it as ArrayRecord. Imports TensorFlow, unlike all else.

  Args:
    name: as in TFDS: "coco/2017".
    data_dir: folder of all prepared datasets. None: TFDS_DATA_DIR or ~/tensorflow_datasets.

  Raises:
    UsageError: TFDS or TensorFlow is not installed, or TFDS has no such dataset.
  """
  tfds = _import_tfds()
  try:
    import tensorflow  # noqa: F401 (TFDS would import it late and print a page if it is missing)
  except ImportError as error:
    raise UsageError(f"Preparing TFDS data needs TensorFlow ({error}). {_INSTALL}") from error
  try:
    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
  except tfds.core.registered.DatasetNotFoundError as error:
    raise UsageError(
      f"TFDS {tfds.__version__} has no dataset {name!r}; "
      "https://www.tensorflow.org/datasets/catalog lists them."
    ) from error
  builder.download_and_prepare()


_INSTALL = "Run: pip install 'rtune[tfds]'"


def _import_tfds() -> types.ModuleType:
  try:
    import tensorflow_datasets
  except ImportError as error:
    raise UsageError(f"TFDS data need tensorflow-datasets ({error}). {_INSTALL}") from error
  return tensorflow_datasets


def fields_of(feature: Any) -> dict[str, Any]:
  """What a TFDS feature is made of; nothing for a plain one."""
  return dict(feature.items()) if hasattr(feature, "items") else {}


def _find(tfds: types.ModuleType, name: str, data_dir: str | None) -> Any:
  """The folder of a prepared dataset's version, the newest if the name does not say which."""
  base, _, version = name.partition(":")
  root = tfds.core.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / base
  folders = list(root.iterdir()) if root.is_dir() else []
  found = {path.name: path for path in folders if re.fullmatch(r"\d+\.\d+\.\d+", path.name)}
  if version in found:
    return found[version]
  if found and not version:
    return found[max(found, key=lambda number: [int(part) for part in number.split(".")])]
  inside = sorted(path.name for path in folders)
  hint = f" That folder holds {', '.join(inside)}: name one of these." if inside else ""
  raise DataError(f"{name} is not prepared in {root}.{hint} {_how_to_prepare(name, data_dir)}")


def _how_to_prepare(name: str, data_dir: str | None) -> str:
  args = f"'{name}', '{data_dir}'" if data_dir else f"'{name}'"
  return f'To download it: python -c "from rtune.data.sources.tfds import prepare; prepare({args})"'
