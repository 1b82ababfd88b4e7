"""Boxes that teach or score something else than their owner thinks."""

import pathlib

import pytest
from odd_base import (
  Row,
  both,
  detection,
  each,
  first,
  learned,
  opened,
  pictures,
  refused,
  silent,
  warned,
  write,
)

from rtune.data import classes, findings
from rtune.data.sources.coco import CocoDetection
from rtune.errors import DataError
from rtune.rewards.boxes import balanced_weights

_KIND = "Boxes and classes"


def _add(**more):
  def change(data: dict) -> None:
    data["annotations"].append({**data["annotations"][0], "id": 99, **more})

  return change


def _root(data: dict) -> None:
  data["categories"] = [
    {"id": 0, "name": "shapes", "supercategory": "none"},
    *({**one, "supercategory": "shapes"} for one in data["categories"]),
  ]


def _unseen(folder: pathlib.Path) -> None:
  source = opened(folder, lambda data: data["categories"].append({"id": 3, "name": "green"}))
  assert "classes without a box (1 of 3)" in "\n".join(findings.gather({"data.train": source}))
  weights = balanced_weights(source.class_counts())
  assert weights[:2].tolist() == [1, 1]  # the mean is of those that occur


def _pair(folder: pathlib.Path, categories: list[dict]) -> tuple[CocoDetection, CocoDetection]:
  pictures(folder)
  other = {**detection(), "categories": categories}
  return CocoDetection(write(folder, detection())), CocoDetection(write(folder, other, "val.json"))


def _swapped(folder: pathlib.Path) -> None:
  train, val = _pair(folder, [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}])
  same = classes.same_classes(val, train.classes, train.category_ids, "data.val", "Training data")
  assert same.classes == ("red", "blue") and same.own_ids == (2, 1)
  assert "go by name" in same.warnings[-1]
  # Its first box is of id 1, which is blue there: label 1 of the training data.
  assert same[0]["labels"].tolist() == [1, 0] == same[0]["official_labels"].tolist()
  assert val[0]["labels"].tolist() == [0, 1]


def _other_ids(folder: pathlib.Path) -> None:
  train, val = _pair(folder, [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}])
  given = ("red", "blue"), (7, 9)
  same = classes.same_classes(val, *given, "data.val", "Training data")
  assert same.category_ids == (7, 9) and same[0]["labels"].tolist() == [0, 1]
  assert same.class_counts().tolist() == train.class_counts().tolist() == [4, 4]


def _other_names(folder: pathlib.Path) -> None:
  train, val = _pair(folder, [{"id": 1, "name": "red"}, {"id": 2, "name": "azure"}])
  with pytest.raises(DataError, match=r"first has \[2 'blue'\], only the second \[2 'azure'\]"):
    classes.same_classes(val, train.classes, train.category_ids, "data.val", "Training data")


def _unusable(change, text: str):
  def check(folder: pathlib.Path) -> None:
    source = opened(folder, change)
    assert learned(source) == 0
    for train in ("data.train", "val.json"):
      with pytest.raises(DataError, match=f"{train} has not a single box") as error:
        findings.check_usable(train, source)
      assert text in str(error.value)

  return check


def _shared(folder: pathlib.Path) -> None:
  source = opened(folder, lambda data: None)
  told = "\n".join(findings.gather({"data.train": source, "data.val": source}))
  assert "data.val has 4 of its 4 images in common with data.train" in told


def _shared_copies(folder: pathlib.Path) -> None:
  train, val = folder / "train", folder / "val"
  for side in (train, val):
    side.mkdir()
  source = opened(train, lambda data: None)
  pictures(val)
  (val / "0001.jpg").write_bytes((val / "0003.jpg").read_bytes() + b"another end")
  (val / "0002.jpg").rename(val / "b.jpg")
  data = detection()
  data["images"][1]["file_name"] = "b.jpg"
  told = findings.gather({"data.train": source, "data.val": CocoDetection(write(val, data))})
  assert "data.val has 3 of its 4 images in common with data.train" in "\n".join(told)


def _copied(folder: pathlib.Path) -> None:
  pictures(folder)
  (folder / "0002.jpg").write_bytes((folder / "0001.jpg").read_bytes())
  source = CocoDetection(write(folder, detection()))
  assert "image files that are copies of another (1)" in "\n".join(source.warnings)


def _centered(record: dict) -> list[float]:
  x, y, width, height = record["bbox"]
  return [x + width / 2, y + height / 2, width, height]


def _corners(record: dict) -> list[float]:
  x, y, width, height = record["bbox"]
  return [x, y, x + width, y + height]


def _percent(record: dict) -> list[float]:
  x, y, width, height = record["bbox"]
  return [x / 0.48, y / 0.4, width / 0.48, height / 0.4]


_LEFT_OUT = "left out in training and counted; scored, as COCO's scorer does"
ROWS = [
  Row(
    _KIND,
    "a category that is the supercategory of others, and no box of it (Roboflow's root)",
    "left out, in one warning",
    warned(_root, "supercategory of others", lambda s: s.classes, ("red", "blue")),
  ),
  Row(
    _KIND,
    "a supercategory that boxes do have",
    "a class like others",
    silent(
      lambda d: (_root(d), _add(category_id=0)(d))[0],
      lambda s: s.class_counts().tolist(),
      [1, 4, 4],
    ),
  ),
  Row(
    _KIND,
    "a class without a box",
    "warned of; the mean of class weights is taken without it",
    _unseen,
  ),
  Row(
    _KIND,
    "two categories of one name",
    "told apart by id, as COCO's scorer does; warned of",
    warned(
      lambda d: d["categories"][1].update(name="red"),
      "names that several categories have (1)",
      both,
      (8, 8),
    ),
  ),
  Row(
    _KIND,
    "validation data with the same names under other ids",
    "mapped by name, and said; results files keep the file's ids",
    _swapped,
  ),
  Row(
    _KIND, "validation data with other numbers altogether", "mapped by name, and said", _other_ids
  ),
  Row(_KIND, "validation data with other names", "an error that lists them", _other_names),
  Row(
    _KIND,
    "every box is iscrowd 1",
    "an error, for training and for scores",
    _unusable(each("iscrowd", 1), "8 boxes with iscrowd 1"),
  ),
  Row(
    _KIND,
    "every box has a width or height of 0 or less",
    "an error; no guess at fractions",
    _unusable(each("bbox", lambda r: [*r["bbox"][:2], -5, -4]), "without width or height (8)"),
  ),
  Row(
    _KIND,
    "every box is outside its image",
    "an error",
    _unusable(each("bbox", [500, 500, 9, 9]), "outside their image (8)"),
  ),
  Row(
    _KIND,
    "every box says that it does not count",
    "an error",
    _unusable(each("ignore", 1), "say they do not count (8)"),
  ),
  Row(
    _KIND,
    "no annotations at all",
    "an error, once nothing is to be learned or scored from them",
    _unusable(lambda d: d.update(annotations=[]), "without a single usable box"),
  ),
  Row(
    _KIND,
    "some boxes are iscrowd 1",
    "not learned; scored as COCO's scorer does",
    silent(first(iscrowd=1), both, (7, 8)),
  ),
  Row(
    _KIND,
    "the same box twice",
    _LEFT_OUT,
    warned(_add(), "boxes that are there twice, of one image and class (1)", both, (8, 9)),
  ),
  Row(
    _KIND,
    "every box twice",
    _LEFT_OUT,
    warned(
      lambda d: d["annotations"].extend({**a, "id": 100 + a["id"]} for a in list(d["annotations"])),
      "boxes that are there twice, of one image and class (8)",
      both,
      (8, 16),
    ),
  ),
  Row(
    _KIND,
    "the same box of another class",
    "both are taken",
    silent(_add(category_id=2), both, (9, 9)),
  ),
  Row(
    _KIND,
    "annotations with `ignore: 1` (CrowdHuman, mmdetection)",
    _LEFT_OUT,
    warned(first(ignore=1), "annotation 1 (ignore)", both, (7, 8)),
  ),
  Row(
    _KIND,
    "annotations with `difficult: 1` (Pascal VOC)",
    _LEFT_OUT,
    warned(first(difficult=1), "annotation 1 (difficult)", both, (7, 8)),
  ),
  Row(
    _KIND,
    "annotations that a reviewer rejected (`rejected`, `was_cancelled`)",
    _LEFT_OUT,
    warned(first(rejected=True), "annotation 1 (rejected)", both, (7, 8)),
  ),
  Row(
    _KIND,
    "images whose classes are not exhaustive (LVIS)",
    "warned of: AP counts unchecked boxes as false",
    warned(
      lambda d: d["images"][0].update(not_exhaustive_category_ids=[1]),
      "not_exhaustive_category_ids) (1)",
      both,
      (8, 8),
    ),
  ),
  Row(
    _KIND,
    "images of which only some classes are checked (LVIS)",
    "warned of in the same way",
    warned(
      lambda d: d["images"][0].update(neg_category_ids=[]), "neg_category_ids) (1)", both, (8, 8)
    ),
  ),
  Row(
    _KIND,
    "an area larger than its box",
    "taken as it is, as COCO's scorer does; warned of",
    warned(
      first(area=9999),
      "area is larger than their box (1)",
      lambda s: s[0]["official_area"][0],
      9999,
    ),
  ),
  Row(
    _KIND,
    "an area of 0 of a box that has one",
    "taken as it is, as COCO's scorer does; warned of",
    warned(first(area=0), "area of 0, but with a box (1)", lambda s: s[0]["official_area"][0], 0),
  ),
  Row(
    _KIND,
    "no area",
    "the area of the box",
    silent(
      lambda d: d["annotations"][0].pop("area") and None, lambda s: s[0]["official_area"][0], 108
    ),
  ),
  Row(
    _KIND,
    "an area that is no number",
    "the area of the box, in one warning",
    warned(first(area="big"), "area is no area (1)", lambda s: s[0]["area"][0], 108),
  ),
  Row(
    _KIND,
    "boxes as corners",
    "taken as they are, with a warning",
    warned(each("bbox", _corners), "look like corners", lambda s: len(s), 4),
  ),
  Row(
    _KIND,
    "boxes as centers",
    "taken as they are, with a warning",
    warned(each("bbox", _centered), "look like centers", lambda s: len(s), 4),
  ),
  Row(
    _KIND,
    "boxes in percent",
    "taken as they are, with a warning",
    warned(each("bbox", _percent), "look like percent", lambda s: len(s), 4),
  ),
  Row(
    _KIND,
    "boxes as fractions",
    "taken as they are, with a warning",
    warned(
      each("bbox", lambda r: [v / 48 for v in r["bbox"]]),
      "look like fractions",
      lambda s: len(s),
      4,
    ),
  ),
  Row(
    _KIND,
    "an empty object, bbox [0, 0, 0, 0]",
    _LEFT_OUT,
    warned(_add(bbox=[0, 0, 0, 0]), "without width or height (1)", both, (8, 9)),
  ),
  Row(
    _KIND,
    "an empty object, bbox []",
    "left out, in one warning",
    warned(
      _add(bbox=[], segmentation=[]), "empty objects, without box and shape (1)", both, (8, 8)
    ),
  ),
  Row(
    _KIND,
    "an empty object, neither bbox nor shape",
    "left out, in one warning",
    warned(_add(bbox=None, segmentation=[]), "empty objects", both, (8, 8)),
  ),
  Row(
    _KIND,
    "a box that is no four numbers",
    "an error",
    refused(_add(bbox=["1", 2, 3, 4]), "annotations without four numbers as bbox (1)"),
  ),
  Row(
    _KIND,
    "an image file under two ids",
    "each counts as an image of its own, with a warning",
    warned(
      lambda d: d["images"].append({"id": 5, "file_name": "0001.jpg"}),
      "image files that are listed before (1)",
      lambda s: len(s),
      5,
    ),
  ),
  Row(
    _KIND,
    "two image files with the same bytes",
    "each counts as an image of its own, with a warning",
    _copied,
  ),
  Row(
    _KIND,
    "one image id of two files",
    "an error",
    refused(lambda d: d["images"][1].update(id=1), "images with an id used before (1)"),
  ),
  Row(
    _KIND, "training images among the validation images", "warned of, with their number", _shared
  ),
  Row(
    _KIND,
    "copies of training images among the validation images, under other names",
    "the same",
    _shared_copies,
  ),
]
