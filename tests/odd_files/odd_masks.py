"""Masks of segments and classes that hold something else than their owner thinks."""

import pathlib

import numpy as np
import pytest
from odd_base import HEIGHT, WIDTH, Row, detection, pictures, write
from PIL import Image

from rtune.data.sources.coco_panoptic import CocoPanoptic
from rtune.errors import DataError

_KIND = "Masks"
_IDS = (300, 70000)


def _mask(mode: str = "RGB", alpha: int = 255) -> Image.Image:
  """The left half is the first segment, the right half the second."""
  ids = np.where(np.arange(WIDTH) < WIDTH // 2, *_IDS)[None].repeat(HEIGHT, 0)
  colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
  image = Image.fromarray(colors)
  if mode == "RGBA":
    image.putalpha(alpha)
  return image if mode in ("RGB", "RGBA") else image.convert(mode)


def _opened(
  folder: pathlib.Path, change=lambda data: None, mask=None, ending="png"
) -> CocoPanoptic:
  pictures(folder)
  (folder / "masks").mkdir()
  for number in range(1, 5):
    (mask or _mask()).save(folder / "masks" / f"{number:04}.{ending}")
  data = detection()
  data["categories"] = [{**one, "isthing": 1} for one in data["categories"]]
  data["annotations"] = [
    {
      "image_id": k,
      "file_name": f"{k:04}.png",
      "segments_info": [
        {"id": number, "category_id": c, "iscrowd": 0} for c, number in enumerate(_IDS, 1)
      ],
    }
    for k in range(1, 5)
  ]
  change(data)
  return CocoPanoptic(write(folder, data), masks=str(folder / "masks"))


def _read(change=lambda data: None, text: str = "", classes=("red", "blue"), **more):
  def check(folder: pathlib.Path) -> None:
    source = _opened(folder, change, **more)
    assert text in "\n".join(source.warnings) and (text or source.warnings == ())
    assert source.classes == classes
    assert np.unique(source[0]["segments"]).tolist() == [1, 2]
    assert source[0]["labels"].tolist() == [0, 1]

  return check


def _refused(text: str, change=lambda data: None, **more):
  def check(folder: pathlib.Path) -> None:
    with pytest.raises(DataError) as error:
      _opened(folder, change, **more)
    assert text in str(error.value)

  return check


def _segments(**values):
  def change(data: dict) -> None:
    for record in data["annotations"]:
      for segment in record["segments_info"]:
        segment.update(values)

  return change


def _root(data: dict) -> None:
  roots = [{"id": 0, "name": "things", "supercategory": "none", "isthing": 1}]
  data["categories"] = roots + [{**one, "supercategory": "things"} for one in data["categories"]]


def _text_ids(data: dict) -> None:
  for record in (*data["images"], *data["annotations"]):
    key = "image_id" if "image_id" in record else "id"
    record[key] = f"n{record[key]}"


ROWS = [
  Row(_KIND, "RGBA whose alpha is opaque", "read", _read(mask=_mask("RGBA"))),
  Row(
    _KIND,
    "RGBA with transparent pixels",
    "an error",
    _refused("has transparent pixels", mask=_mask("RGBA", 200)),
  ),
  Row(
    _KIND, "a palette", "an error that names what is needed", _refused("mode P", mask=_mask("P"))
  ),
  Row(
    _KIND,
    "one number a pixel",
    "an error that names what is needed",
    _refused("mode L", mask=_mask("L")),
  ),
  Row(
    _KIND,
    "JPEG, which changes ids",
    "an error, and the other file is named",
    _refused("but '0001.jpg' does", ending="jpg"),
  ),
  Row(
    _KIND,
    "ids that the JSON does not list",
    "an error",
    _refused(
      "ids that the file does not list", lambda d: d["annotations"][0]["segments_info"].pop()
    ),
  ),
  Row(
    _KIND,
    "segments that no pixel has",
    "an error",
    _refused(
      "segments without a pixel",
      lambda d: d["annotations"][0]["segments_info"].append({"id": 9, "category_id": 1}),
    ),
  ),
  Row(
    _KIND,
    "every segment is iscrowd 1",
    "an error",
    _refused("every segment is a crowd", _segments(iscrowd=1)),
  ),
  Row(
    _KIND,
    "no segments at all",
    "an error",
    _refused(
      "without a single segment",
      lambda d: [r.update(segments_info=[]) for r in d["annotations"]],
      mask=Image.new("RGB", (WIDTH, HEIGHT)),
    ),
  ),
  Row(
    _KIND,
    "a category that is the supercategory of others, and no segment of it",
    "left out, in one warning",
    _read(_root, "supercategory of others"),
  ),
  Row(
    _KIND,
    "ids of images that are names",
    "numbered, in one warning",
    _read(_text_ids, "images whose ids are names (4)"),
  ),
  Row(
    _KIND,
    "category_id in quotes",
    "read as numbers",
    _read(
      lambda d: [
        s.update(category_id=str(s["category_id"]))
        for r in d["annotations"]
        for s in r["segments_info"]
      ]
    ),
  ),
  Row(
    _KIND,
    "two categories of one name",
    "told apart by id, with a warning",
    _read(
      lambda d: d["categories"][1].update(name="red"),
      "names that several categories have",
      ("red", "red"),
    ),
  ),
]
