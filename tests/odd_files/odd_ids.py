"""Ids and names of files as tools write them."""

import pathlib
import unicodedata

import numpy as np
from odd_base import (
  Row,
  both,
  each,
  first,
  images,
  opened,
  picture,
  pictures,
  refused,
  silent,
  warned,
)

_IDS = "Ids"
_NAMES = "Names of files"
_PLAIN = tuple(f"{k:04}.jpg" for k in range(1, 5))
_ACCENTS = tuple(f"Käse ñ {k}.jpg" for k in range(1, 5))
_COMPOSED = tuple(unicodedata.normalize("NFC", name) for name in _ACCENTS)
_APART = tuple(unicodedata.normalize("NFD", name) for name in _ACCENTS)


def _renumbered(image, category=lambda number: number):
  """Ids of images and categories written otherwise, wherever they stand."""

  def change(data: dict) -> None:
    for record in data["images"]:
      record["id"] = image(record["id"])
    for record in data["categories"]:
      record["id"] = category(record["id"])
    for record in data["annotations"]:
      record["image_id"] = image(record["image_id"])
      record["category_id"] = category(record["category_id"])

  return change


def _ids(source) -> list[int]:
  return [source[k]["image_id"] for k in range(len(source))]


def _named(names, files=(), **options):
  """Images of these names in the JSON and these on disk; all are read, `text` is said."""

  def check(folder: pathlib.Path, text: str = "") -> None:
    pictures(folder, files or names)
    change = images(file_name=lambda record: names[record["id"] - 1])
    source = opened(folder, change, **options)
    assert text in "\n".join(source.warnings) and (text or source.warnings == ())
    for number in range(4):
      assert (
        np.abs(source[number]["image"].astype(int) - np.asarray(picture(number + 1))).mean() < 10
      )

  return check


def _with(check, text: str):
  return lambda folder: check(folder, text)


def _png_beside(folder: pathlib.Path) -> None:
  pictures(folder)
  (folder / "0001.jpg").rename(folder / "0001.png")
  refused(lambda data: None, "does not exist, but '0001.png' does")(folder)


def _leads_out(folder: pathlib.Path) -> None:
  pictures(folder)
  (folder / "inner").mkdir()
  change = images(file_name=lambda record: f"..%2F{record['file_name']}")
  refused(change, "lead out of the image folder", images=str(folder / "inner"))(folder)


ROWS = [
  Row(
    _IDS,
    "ids of images in quotes",
    "read as numbers, in one warning",
    warned(
      images(id=lambda r: str(r["id"])), "images whose ids are in quotes (4)", _ids, [1, 2, 3, 4]
    ),
  ),
  Row(
    _IDS,
    "image_id and category_id in quotes",
    "read as numbers, in one warning",
    warned(
      lambda d: (
        each("image_id", lambda r: str(r["image_id"]))(d),
        each("category_id", lambda r: str(r["category_id"]))(d),
      )[0],
      "annotations whose image_id is in quotes (8)",
      both,
      (8, 8),
    ),
  ),
  Row(
    _IDS,
    "ids that are names",
    "numbered in the order of the file, in one warning",
    warned(
      _renumbered(lambda k: f"000000{k}_d"), "images whose ids are names (4)", _ids, [1, 2, 3, 4]
    ),
  ),
  Row(
    _IDS,
    "ids of categories that are names",
    "numbered in the order of the file, in one warning",
    warned(
      _renumbered(lambda k: k, lambda k: "ab"[k - 1]),
      "categories whose ids are names (2)",
      lambda s: s.category_ids,
      (1, 2),
    ),
  ),
  Row(
    _IDS,
    "ids of 64 bits",
    "numbered in the order of the file, in one warning",
    warned(
      _renumbered(lambda k: 10376293541461622784 + k),
      "images whose ids are too large",
      both,
      (8, 8),
    ),
  ),
  Row(
    _IDS,
    "ids of 63 bits",
    "read exactly",
    silent(_renumbered(lambda k: 2**62 + k), _ids, [2**62 + k for k in range(1, 5)]),
  ),
  Row(
    _IDS, "ids such as 1.0", "whole numbers", silent(_renumbered(float, float), _ids, [1, 2, 3, 4])
  ),
  Row(
    _IDS,
    "ids of annotations that are names",
    "taken: nobody refers to them",
    silent(each("id", lambda r: f"u{r['id']}"), both, (8, 8)),
  ),
  Row(
    _IDS,
    "no id, null, or a list",
    "an error",
    refused(
      images(id=lambda r: [None, [1], {}, True][r["id"] - 1]),
      "ids that are missing or not whole numbers (4)",
    ),
  ),
  Row(
    _IDS,
    '1 and "1" as two images',
    "an error",
    refused(lambda d: d["images"][1].update(id="1"), "images with an id used before (1)"),
  ),
  Row(
    _IDS,
    "an annotation of an image that is not listed",
    "an error",
    refused(first(image_id="none"), "annotations of unknown images (1)"),
  ),
  Row(
    _NAMES,
    "backslashes, as Windows writes them",
    "the file with / is taken, in one warning",
    _with(
      _named(tuple(f"a\\{n}" for n in _PLAIN), tuple(f"a/{n}" for n in _PLAIN)),
      "with backslashes, as Windows writes them (4)",
    ),
  ),
  Row(
    _NAMES,
    "backslashes, and no such file",
    "an error that names the sign",
    refused(
      images(file_name=lambda r: f"none\\{r['id']}.jpg"), "Backslashes part folders in Windows"
    ),
  ),
  Row(
    _NAMES,
    "percent signs, as URLs have them",
    "the plain name is taken, in one warning",
    _with(
      _named(tuple(f"a%20b%3A{k}.jpg" for k in range(4)), tuple(f"a b:{k}.jpg" for k in range(4))),
      "with percent signs, as URLs have them (4)",
    ),
  ),
  Row(
    _NAMES,
    "a name that really has a percent sign",
    "taken as it is",
    _named(tuple(f"a%20{k}.jpg" for k in range(4))),
  ),
  Row(
    _NAMES,
    "URLs",
    "their last part, in one warning",
    _with(
      _named(tuple(f"https://cdn.example.org/a/{n}?x=1" for n in _PLAIN), _PLAIN),
      "file names that are URLs (4)",
    ),
  ),
  Row(
    _NAMES,
    "URLs, and no such file",
    "an error that says so",
    refused(images(file_name=lambda r: "https://example.org/none.jpg"), "It is a URL"),
  ),
  Row(
    _NAMES,
    "accents composed in the JSON, apart on disk (macOS)",
    "the file that is meant, in one warning",
    _with(_named(_COMPOSED, _APART), "another Unicode form than on disk (4)"),
  ),
  Row(
    _NAMES,
    "accents apart in the JSON, composed on disk",
    "the file that is meant, in one warning",
    _with(_named(_APART, _COMPOSED), "another Unicode form than on disk (4)"),
  ),
  Row(
    _NAMES,
    "no file_name, but coco_url (LVIS)",
    "its last part, in one warning",
    warned(
      lambda d: (
        [
          r.update(coco_url=f"http://images.example.org/train2017/{r.pop('file_name')}")
          for r in d["images"]
        ]
        and None
      ),
      "images without a file_name, but with coco_url (4)",
      both,
      (8, 8),
    ),
  ),
  Row(
    _NAMES,
    "neither",
    "an error that names both fields",
    refused(
      lambda d: [r.pop("file_name") for r in d["images"]] and None,
      "(`file_name`, or LVIS's `coco_url`)",
    ),
  ),
  Row(
    _NAMES, "0001.jpg in the JSON, 0001.png on disk", "an error that names the other", _png_beside
  ),
  Row(_NAMES, "percent-encoded .. that leads out of the folder", "an error", _leads_out),
]
