"""How long the checks of a data set take before training: generated files as large as COCO's."""

import io
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Sequence
from statistics import median

import numpy as np
from PIL import Image

from rtune.benchmark.row import Row
from rtune.data.sources.coco import CocoDetection

# Images and boxes of val2017, and of train2017.
SIZES = ((5_000, 40_000), (118_000, 860_000))
_CLASSES, _SIDES = 80, (48, 64)


def file_rows(repeats: int, sizes: Sequence[tuple[int, int]]) -> list[Row]:
  """One row for each number of images and boxes; the files are made anew and removed."""
  rows = []
  for images, boxes in sizes:
    with tempfile.TemporaryDirectory(prefix="rtune_files_") as folder:
      path = write(pathlib.Path(folder), images, boxes)
      times = []
      for _ in range(min(repeats, 3)):
        start = time.perf_counter()
        CocoDetection(str(path))
        times.append(time.perf_counter() - start)
    figure = f"open {images:,} images with {boxes:,} boxes, all headers checked"
    rows.append(Row("files", figure, median(times), images, "images"))
  return rows


def write(folder: pathlib.Path, images: int, boxes: int) -> pathlib.Path:
  """A COCO file with polygons, and its images beside it, no two with the same bytes."""
  rng, (height, width) = np.random.default_rng(0), _SIDES
  buffer = io.BytesIO()
  Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(buffer, "JPEG")
  picture, end = buffer.getvalue()[:-2], buffer.getvalue()[-2:]
  for number in range(images):
    (folder / f"{number:06}.jpg").write_bytes(picture + b"%06d" % number + end)
  low = rng.uniform(0, 0.5, (boxes, 2)) * (width, height)
  sides = rng.uniform(0.05, 0.5, (boxes, 2)) * (width, height)
  corners = np.concatenate([low, low + sides], axis=1).round(2)
  rows = zip(
    np.concatenate([low, sides], axis=1).round(2).tolist(),
    corners[:, [0, 1, 2, 1, 2, 3, 0, 3]].tolist(),
    rng.integers(0, images, boxes).tolist(),
    rng.integers(1, _CLASSES + 1, boxes).tolist(),
    strict=True,
  )
  data = {
    "images": [
      {"id": k, "file_name": f"{k:06}.jpg", "height": height, "width": width} for k in range(images)
    ],
    "categories": [{"id": k, "name": f"class {k}"} for k in range(1, _CLASSES + 1)],
    "annotations": [
      {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": 0.9 * box[2] * box[3],
        "iscrowd": 0,
        "segmentation": [polygon],
      }
      for number, (box, polygon, image, category) in enumerate(rows)
    ],
  }
  path = folder / "annotations.json"
  path.write_text(json.dumps(data))
  os.sync()  # else the disk is still busy with them while they are read
  return path
