"""A small sound data set, and what makes each odd one of it: the table of docs/odd_files.md."""

import copy
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from rtune.data.sources.coco import CocoDetection
from rtune.data.sources.coco_captions import CocoCaptions
from rtune.errors import DataError

WIDTH, HEIGHT = 48, 40
_BOXES = (
  (1, 1, 16, 3, 12, 9), (1, 2, 15, 20, 17, 15), (2, 1, 5, 11, 10, 9), (2, 2, 16, 19, 12, 12),
  (3, 1, 8, 11, 13, 16), (3, 2, 19, 0, 17, 9), (4, 1, 6, 23, 13, 12), (4, 2, 9, 2, 16, 15),
)  # fmt: skip


class Row(NamedTuple):
  """One oddity.

  Attributes:
    kind: heading of the page under which it stands.
    odd: what the file or folder has.
    does: what rtune does with it.
    check: shows that it does, in an empty folder.
  """

  kind: str
  odd: str
  does: str
  check: Callable[[pathlib.Path], None]


def picture(number: int) -> Image.Image:
  """Another one for each number, in color."""
  noise = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
  return Image.fromarray(noise)


def pictures(folder: pathlib.Path, names: tuple[str, ...] = ()) -> None:
  """Four pictures, by default 0001.jpg to 0004.jpg."""
  for number, name in enumerate(names or [f"{k:04}.jpg" for k in range(1, 5)], 1):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    exact = {"quality": 98, "subsampling": 0} if name.lower().endswith((".jpg", ".jpeg")) else {}
    picture(number).save(folder / name, **exact)


def detection() -> dict[str, Any]:
  """Two classes, one box of each in every image."""
  return {
    "images": [
      {"id": k, "file_name": f"{k:04}.jpg", "width": WIDTH, "height": HEIGHT} for k in range(1, 5)
    ],
    "annotations": [
      {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": 0,
      }
      for number, (image, category, *box) in enumerate(_BOXES, 1)
    ],
    "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
  }


def captions() -> dict[str, Any]:
  """One caption an image."""
  return {
    "images": detection()["images"],
    "annotations": [
      {"id": k, "image_id": k, "caption": f"a picture of noise number {k}"} for k in range(1, 5)
    ],
  }


def write(folder: pathlib.Path, data: Any, name: str = "data.json") -> str:
  """Data as JSON, bytes and text as they are."""
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  if isinstance(data, bytes):
    path.write_bytes(data)
  else:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
  return str(path)


def opened(
  folder: pathlib.Path, change: Callable[[dict], Any], kind: type = CocoDetection, **options
) -> Any:
  """The source of the sound data after `change`, which may return others."""
  if not any(folder.iterdir()):
    pictures(folder)
  data = copy.deepcopy(captions() if kind is CocoCaptions else detection())
  changed = change(data)
  return kind(write(folder, data if changed is None else changed), **options)


def warned(
  change: Callable[[dict], Any], text: str, value: Callable, expected: Any, kind=CocoDetection, **o
) -> Callable[[pathlib.Path], None]:
  """The file is used; a warning has the text, and `value` of the source is right."""

  def check(folder: pathlib.Path) -> None:
    source = opened(folder, change, kind, **o)
    assert text in "\n".join(source.warnings), source.warnings
    assert value(source) == expected

  return check


def silent(
  change: Callable[[dict], Any], value: Callable, expected: Any, kind=CocoDetection, **o
) -> Callable[[pathlib.Path], None]:
  """The file is used as it is meant, and nothing is odd."""

  def check(folder: pathlib.Path) -> None:
    source = opened(folder, change, kind, **o)
    assert source.warnings == () and value(source) == expected

  return check


def refused(
  change: Callable[[dict], Any], *texts: str, kind=CocoDetection, **o
) -> Callable[[pathlib.Path], None]:
  """One error with all these texts."""

  def check(folder: pathlib.Path) -> None:
    with pytest.raises(DataError) as error:
      opened(folder, change, kind, **o)
    for text in texts:
      assert text in str(error.value), str(error.value)

  return check


def learned(source: CocoDetection) -> int:
  """Boxes that are learned."""
  return int(source.box_counts().sum())


def scored(source: CocoDetection) -> int:
  """Boxes that the official scorer counts."""
  return sum(len(source[k]["official_boxes"]) for k in range(len(source)))


def both(source: CocoDetection) -> tuple[int, int]:
  """Learned and scored."""
  return learned(source), scored(source)


def each(key: str, value: Any) -> Callable[[dict], None]:
  """A change of every annotation."""

  def change(data: dict) -> None:
    for record in data["annotations"]:
      record[key] = value(record) if callable(value) else value

  return change


def first(**values: Any) -> Callable[[dict], None]:
  """A change of the first annotation."""
  return lambda data: data["annotations"][0].update(values)


def images(**values: Callable[[dict], Any]) -> Callable[[dict], None]:
  """A change of every image's record."""

  def change(data: dict) -> None:
    for record in data["images"]:
      record.update({key: value(record) for key, value in values.items()})

  return change
