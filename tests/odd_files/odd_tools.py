"""Annotations in the layouts of other tools and tasks."""

import pathlib

import numpy as np
from odd_base import HEIGHT, WIDTH, Row, captions, pictures, refused, warned, write
from pycocotools import mask as rle

from rtune.data.sources.coco_captions import CocoCaptions

_OTHER = "Annotations of other tools"
_PLAIN = tuple(f"{k:04}.jpg" for k in range(1, 5))
_TRUE = [[[16, 3, 12, 9], [15, 20, 17, 15]], [[5, 11, 10, 9], [16, 19, 12, 12]],
         [[8, 11, 13, 16], [19, 0, 17, 9]], [[6, 23, 13, 12], [9, 2, 16, 15]]]  # fmt: skip


def _ids(source) -> list[int]:
  return [source[k]["image_id"] for k in range(len(source))]


def _json(content, *texts: str):
  return refused(lambda data: content, *texts)


def _polygon(record: dict) -> list[list[float]]:
  x, y, width, height = record["bbox"]
  return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def _rle(record: dict, packed: bool) -> dict:
  x, y, width, height = record["bbox"]
  mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
  mask[y : y + height, x : x + width] = 1
  coded = rle.encode(mask)
  if packed:
    return {"size": coded["size"], "counts": coded["counts"].decode()}
  flat = mask.ravel(order="F")
  edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
  runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
  return {"size": [HEIGHT, WIDTH], "counts": runs.tolist()}


def _shapes(shape):
  def change(data: dict) -> None:
    for record in data["annotations"]:
      record["segmentation"] = shape(record)
      del record["bbox"]

  return change


def _boxes(source) -> list[list[float]]:
  return [source[k]["official_boxes"].tolist() for k in range(len(source))]


def _karpathy(**more) -> dict:
  return {
    "dataset": "own",
    "images": [
      {
        "imgid": k,
        "cocoid": 10 + k,
        "filepath": "images",
        "filename": f"{k:04}.jpg",
        "split": ("train", "restval", "val", "test")[k - 1],
        "sentences": [{"raw": f"noise number {k}", "tokens": []}, {"raw": "a picture"}],
        **more,
      }
      for k in range(1, 5)
    ],
  }


def _karpathy_split(folder: pathlib.Path) -> None:
  pictures(folder)
  path = write(folder, _karpathy())
  train, val = (CocoCaptions(path, split=split) for split in ("train", "val"))
  assert _ids(train) == [11, 12] and _ids(val) == [13]
  assert train[0]["captions"] == ("noise number 1", "a picture")
  assert train.warnings == val.warnings == ()
  (folder / "images").mkdir()
  for name in _PLAIN:
    (folder / name).rename(folder / "images" / name)
  assert len(CocoCaptions(path, split="train")) == 2


ROWS = [
  Row(
    _OTHER,
    "polygons and no bbox",
    "the box around them, in one warning",
    warned(_shapes(_polygon), "without a bbox, but with a segmentation (8)", _boxes, _TRUE),
  ),
  Row(
    _OTHER,
    "run-length masks (RLE) and no bbox",
    "the box around them, in one warning",
    warned(
      _shapes(lambda r: _rle(r, True)), "without a bbox, but with a segmentation (8)", _boxes, _TRUE
    ),
  ),
  Row(
    _OTHER,
    "run lengths as numbers and no bbox",
    "the box around them, in one warning",
    warned(
      _shapes(lambda r: _rle(r, False)),
      "without a bbox, but with a segmentation (8)",
      _boxes,
      _TRUE,
    ),
  ),
  Row(
    _OTHER,
    "a polygon that is one flat list, and no bbox",
    "the box around it, in one warning",
    warned(
      _shapes(lambda r: _polygon(r)[0]),
      "without a bbox, but with a segmentation (8)",
      _boxes,
      _TRUE,
    ),
  ),
  Row(
    _OTHER,
    "run lengths of a size of 0, or shapes that are none, and no bbox",
    "an error",
    refused(
      _shapes(
        lambda r: [{"size": [0, 0], "counts": "abc"}, {"size": 3}, "12", [["a"]]][r["id"] % 4]
      ),
      "annotations without four numbers as bbox (8)",
    ),
  ),
  Row(
    _OTHER,
    "Karpathy's captions (dataset_coco.json)",
    "read; `split` says which part",
    _karpathy_split,
  ),
  Row(
    _OTHER,
    "Karpathy's captions, without a `split`",
    "all parts together, with a warning",
    warned(lambda d: _karpathy(), "splits in one file (4)", _ids, [11, 12, 13, 14], CocoCaptions),
  ),
  Row(
    _OTHER,
    "Karpathy's captions for boxes",
    "an error that names the layout",
    _json(_karpathy(), "Karpathy's layout"),
  ),
  Row(
    _OTHER,
    "Flickr's token.txt",
    "an error that names what to give",
    refused(
      lambda d: "0001.jpg#0\tA red box.\n0001.jpg#1\ttwo\n", "Flickr", "Karpathy", kind=CocoCaptions
    ),
  ),
  Row(
    _OTHER,
    "VIA's project",
    "an error: how to export COCO",
    _json({"_via_settings": {}, "_via_img_metadata": {}}, "VIA's own project", "COCO"),
  ),
  Row(
    _OTHER,
    "VIA's regions",
    "an error: how to export COCO",
    _json({"1.jpg": {"filename": "1.jpg", "regions": []}}, "VIA's own project"),
  ),
  Row(
    _OTHER,
    "labelme",
    "an error with the line that converts it",
    _json({"version": "5", "shapes": [], "imagePath": "a.jpg"}, "labelme2coco"),
  ),
  Row(
    _OTHER,
    "CreateML",
    "an error that says so",
    _json([{"image": "a.jpg", "annotations": []}], "CreateML"),
  ),
  Row(
    _OTHER,
    "Label Studio's own JSON",
    "an error: how to export COCO",
    _json([{"data": {}, "annotations": []}], "Label Studio"),
  ),
  Row(
    _OTHER,
    "Supervisely",
    "an error: how to export COCO",
    _json({"objects": [], "size": {}}, "Supervisely"),
  ),
  Row(
    _OTHER,
    "BDD100K",
    "an error with the line that converts it",
    _json([{"name": "a.jpg", "labels": []}], "BDD100K", "fiftyone convert"),
  ),
  Row(
    _OTHER,
    "GeoJSON",
    "an error that says so",
    _json({"type": "FeatureCollection", "features": []}, "GeoJSON"),
  ),
  Row(
    _OTHER,
    "results in place of annotations",
    "an error that says so",
    _json([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}], "file of results"),
  ),
  Row(
    _OTHER,
    "YOLO's text",
    "an error with the line that converts it",
    _json("0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n", "YOLO's text", "fiftyone convert"),
  ),
  Row(
    _OTHER,
    "YOLO's data.yaml",
    "an error with the line that converts it",
    _json("train: images/train\nval: images/val\nnc: 2\nnames: [a, b]\n", "data.yaml"),
  ),
  Row(
    _OTHER,
    "Open Images' CSV",
    "an error with the line that converts it",
    _json("ImageID,Source,LabelName,Confidence\na,b,c,1\n", "Open Images"),
  ),
  Row(
    _OTHER,
    "another CSV",
    "an error that says so",
    _json("filename,x,y\na.jpg,1,2\n", "is a table (CSV)"),
  ),
  Row(
    _OTHER,
    "Pascal VOC's XML",
    "an error with the line that converts it",
    _json("<annotation><folder>a</folder><object/></annotation>", "Pascal VOC", "fiftyone convert"),
  ),
  Row(
    _OTHER,
    "CVAT's XML",
    "an error: how to export COCO",
    _json("<?xml version='1.0'?><annotations/>", "CVAT"),
  ),
  Row(
    _OTHER,
    "one JSON a line",
    "an error that says so",
    _json('{"images": []}\n{"images": []}\n', "one JSON a line"),
  ),
  Row(
    _OTHER, "captions in place of boxes", "an error", refused(lambda d: captions(), "'categories'")
  ),
]
