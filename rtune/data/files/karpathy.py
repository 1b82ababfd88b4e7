"""Karpathy's files of captions (1412.2306), such as dataset_coco.json, as COCO has captions."""

import os
from collections.abc import Mapping
from typing import Any

from rtune.data.files import validate
from rtune.errors import UsageError

_PARTS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}


def as_coco(
  data: Mapping[str, Any], root: str, split: str, report: validate.Report
) -> dict[str, Any]:
  """`images` and `annotations` of one of his splits; DataError for records that are none.

  Args:
    root: folder of images; his `filepath` is a folder in it, or is left away where it is not.
    split: "train", with his restval, "val" or "test"; "" for all of them, which is a warning.
  """
  if split not in ("", *_PARTS):
    raise UsageError(f"split is {split!r}; it must be one of {', '.join(_PARTS)}, or empty")
  records = validate.sections(data, ("images",), report)["images"]
  found = [record.get("split") for record in records]
  if not split and len(set(found)) > 1:
    for name in sorted(map(str, set(found))):
      mend = "All are used together; set `split` to train, val or test"
      report.warn("splits in one file", mend, f"{name}, {found.count(name)} images")
  chosen = [one for one in records if not split or one.get("split") in _PARTS[split]]
  if not chosen:
    report.error("splits without an image", "Set another `split`", repr(split))
  images, annotations = [], []
  for record in chosen:
    number = next((record[key] for key in ("cocoid", "imgid") if key in record), None)
    images.append({"id": number, "file_name": _name(record, root)})
    for sentence in record.get("sentences") or ():
      known = sentence if isinstance(sentence, dict) else {}
      caption = known.get("raw")
      annotations.append({"id": len(annotations), "image_id": number, "caption": caption})
  return {"images": images, "annotations": annotations}


def _name(record: Mapping[str, Any], root: str) -> Any:
  name, folder = record.get("filename"), record.get("filepath")
  if not (validate.is_file_name(name) and validate.is_file_name(folder)):
    return name
  inner = os.path.join(folder, name)
  return inner if os.path.exists(os.path.join(root, inner)) else name
