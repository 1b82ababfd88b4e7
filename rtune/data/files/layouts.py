"""Annotation files of other tools and tasks: what they are, and the line that converts them."""

import re
from typing import Any

_FIFTYONE = (
  "Convert it: fiftyone convert --input-dir FOLDER --input-type fiftyone.types.{} --output-dir COCO"
  " --output-type fiftyone.types.COCODetectionDataset"
)
_LABELME = "pip install labelme2coco && labelme2coco FOLDER"
_LINES = tuple(
  (re.compile(pattern, re.MULTILINE), text)
  for pattern, text in (
    (
      rb"\A(?:\xef\xbb\xbf)?ImageID,Source,LabelName",
      "is Open Images' CSV. " + _FIFTYONE.format("OpenImagesV7Dataset"),
    ),
    (
      rb"\A[^\n]*#\d\t",
      "is Flickr's list of captions (token.txt). Give Karpathy's dataset_flickr30k.json instead,"
      " which has the same captions (`sentences`) and which rtune reads",
    ),
    (
      rb"<annotation\b[^>]*>[\s\S]*<(?:folder|filename|size|object)>",
      "is Pascal VOC's XML. " + _FIFTYONE.format("VOCDetectionDataset"),
    ),
    (rb"\A\s*<\?xml|\A\s*<annotations\b", "is XML, such as CVAT's. Export it from there as COCO"),
    (
      rb"\A\s*\d+(?: +-?\d*\.?\d+){4}[ \d.]*\s*$",
      "is YOLO's text. " + _FIFTYONE.format("YOLOv5Dataset"),
    ),
    (
      rb"^(?:nc|names|train|val): *\S*",
      "is YOLO's data.yaml. " + _FIFTYONE.format("YOLOv5Dataset"),
    ),
    (rb"\A\s*\{[^\n]*\}\s*\n\s*\{", "has one JSON a line. Write one JSON with COCO's lists"),
    (
      rb"\A[^\n{\[]*[,;\t][^\n]*\n",
      "is a table (CSV). Write COCO's JSON: lists images, annotations, categories",
    ),
  )
)


def of_text(head: bytes) -> str:
  """What a text file that is not JSON is, as the rest of a sentence with a mend; "": unknown."""
  return next((text for pattern, text in _LINES if pattern.search(head)), "")


def of_json(data: Any) -> str:
  """What parsed JSON is that lacks COCO's lists, with a mend; "" where nobody knows."""
  first = _first(data)
  if isinstance(data, dict):
    if is_karpathy(data):
      return "has Karpathy's layout (images[].sentences[].raw): captions, without boxes or segments"
    if "_via_img_metadata" in data or {"regions", "filename"} <= first.keys():
      return "is VIA's own project. Export it there as COCO: Annotation, Export Annotations (COCO)"
    if "shapes" in data and ("imagePath" in data or "version" in data):
      return f"is labelme's, one file an image. Convert the folder: {_LABELME}"
    if {"objects", "size"} <= data.keys():
      return "is Supervisely's, one file an image. Export the project there as COCO"
    if data.get("type") in ("FeatureCollection", "Feature"):
      return (
        "is GeoJSON, a map and no list of pictures. Export COCO's JSON from the tool that wrote it"
      )
  return _of_list(first)


def _of_list(first: dict[str, Any]) -> str:
  """What a list with this first record is."""
  if {"image_id", "score"} <= first.keys() or {"image_id", "caption"} <= first.keys():
    return "is a file of results, not of annotations. Give the ground truth"
  if "data" in first and ("annotations" in first or "completions" in first):
    return "is Label Studio's own JSON. Export it there as COCO"
  if "annotations" in first and ("image" in first or "imagefilename" in first):
    return "is CreateML's. Export COCO's JSON from the tool that wrote it, or upload it to Roboflow"
  if "labels" in first and "name" in first:
    return "is BDD100K's. " + _FIFTYONE.format("BDDDataset")
  return ""


def _first(data: Any) -> dict[str, Any]:
  """The first record of a list, or of the values of a dict; {} where there is none."""
  values = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
  first = next(iter(values), None)
  return first if isinstance(first, dict) else {}


def is_karpathy(data: Any) -> bool:
  """Whether parsed JSON has the layout of Karpathy's dataset_coco.json (1412.2306)."""
  images = data.get("images") if isinstance(data, dict) else None
  first = images[0] if isinstance(images, list) and images else None
  return isinstance(first, dict) and isinstance(first.get("sentences"), list)
