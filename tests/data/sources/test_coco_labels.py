"""Label maps of JSON files: right ones, wrong ones, and the real ones beside the checkout."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from rtune.data.source import LabelSource, PixelCounts
from rtune.data.sources.coco_labels import CocoLabels, PanopticLabels
from rtune.data.sources.coco_panoptic import CocoPanoptic
from rtune.errors import DataError, UsageError
from rtune.predictions.labels import IGNORE


def save(path, values):
  path.parent.mkdir(exist_ok=True)
  Image.fromarray(np.array(values, np.uint8)).save(path)


@pytest.fixture
def data(tmp_path):
  """Three images of 3 x 2 pixels, two of them by night; number 2 is ignored."""
  for shade, name in enumerate(("a", "b", "c")):
    save(tmp_path / f"photos/{name}.jpg", np.full((2, 3, 3), 90 * shade))
    save(tmp_path / f"maps/{name}.png", [[0, 1, 2], [1, 1, "abc".index(name)]])
  return {
    "info": {
      "image_root": "photos",
      "mask_root": "maps",
      "mask_encoding": "8-bit PNG: index into classes; 2 = unlabelled, ignore",
    },
    "classes": [{"index": 1, "name": "road"}, {"index": 0, "name": "sky"}],
    "images": [
      {"file_name": "a.jpg", "mask": "a.png", "domain": "day"},
      {"file_name": "b.jpg", "domain": "night"},
      {"file_name": "c.jpg", "mask": "c.png", "domain": "night"},
    ],
  }


def write(tmp_path, data):
  (tmp_path / "labels.json").write_text(json.dumps(data))
  return str(tmp_path / "labels.json")


def error_of(tmp_path, data, **options):
  with pytest.raises(DataError) as error:
    CocoLabels(write(tmp_path, data), **options)
  assert "labels.json" in str(error.value)
  return str(error.value)


def test_examples(tmp_path, data):
  source = CocoLabels(write(tmp_path, data))
  assert isinstance(source, LabelSource) and isinstance(source, PixelCounts)
  assert source.classes == ("road", "sky") and source.category_ids == (1, 0)
  assert source.names == ("a", "b", "c") and source.warnings == ()
  example = source[1]
  assert example["image_id"] == 2 and example["label_map"].dtype == np.int16
  np.testing.assert_array_equal(example["label_map"], [[1, 0, IGNORE], [0, 0, 0]])
  assert source.pixel_counts().tolist() == [10, 4]


def test_one_domain_alone(tmp_path, data):
  path = write(tmp_path, data)
  assert CocoLabels(path, domain="night").names == ("b", "c")
  with pytest.raises(UsageError, match="domain 'dusk'; there are day, night"):
    CocoLabels(path, domain="dusk")


def test_what_is_ignored_is_said_in_several_ways(tmp_path, data):
  counts = CocoLabels(write(tmp_path, data)).pixel_counts().tolist()
  del data["info"]["mask_encoding"]
  assert "that stand for no class (3)" in error_of(tmp_path, data)
  assert CocoLabels(write(tmp_path, data), ignore=(2,)).pixel_counts().tolist() == counts
  data["info"]["ignore_index"] = 2
  assert CocoLabels(write(tmp_path, data)).pixel_counts().tolist() == counts
  assert CocoLabels(write(tmp_path, data), ignore=(2, "sky")).classes == ("road",)


def test_images_without_a_mask(tmp_path, data):
  (tmp_path / "maps/b.png").unlink()
  text = error_of(tmp_path, data)
  assert "images without a mask (1). Add the masks" in text and "b.png" in text
  source = CocoLabels(write(tmp_path, data), unlabeled=True)
  assert len(source) == 3 and (source[1]["label_map"] == IGNORE).all()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"classes": None}, "lists no classes"),
    ({"classes": [{"index": 0}]}, "has no `name`"),
    ({"images": None}, "'images'"),
    ({"images": []}, "at least one image"),
    ({"images": [{"mask": "a.png"}]}, "without a usable file_name"),
    ({"images": [{"file_name": "a.jpg", "mask": 3}]}, "without a usable name of a mask"),
    ({"images": [{"file_name": "../a.jpg", "mask": "a.png"}]}, "lead out of the image folder"),
    ({"images": [{"file_name": "a.jpg", "mask": "../maps/../labels.json"}]}, "lead out"),
    ({"images": [{"file_name": "n.jpg", "mask": "a.png"}]}, "n.jpg' does not exist"),
    ({"classes": ["sky"]}, r"stand for no class \(3\)"),
  ],
)
def test_files_that_cannot_be_used(tmp_path, data, change, message):
  assert re.search(message, error_of(tmp_path, {**data, **change}))


def test_masks_that_cannot_be_used(tmp_path, data):
  save(tmp_path / "maps/a.png", np.zeros((3, 3)))
  Image.fromarray(np.zeros((2, 3), np.uint16)).save(tmp_path / "maps/b.png")
  save(tmp_path / "maps/c.png", np.zeros((2, 3, 3)))
  data["classes"] = ["sky", "road"]
  text = error_of(tmp_path, data)
  assert "masks of another size than their image (1)" in text and "is 3 x 3" in text
  assert "has 16 bits a pixel" in text and "is a picture in colors" in text
  data["classes"] = [{"index": 0, "name": "sky", "color": "#000000"}]  # says what both mean
  data["images"] = data["images"][1:]
  assert CocoLabels(write(tmp_path, data)).pixel_counts().tolist() == [12]


def test_day_and_dusk(shared_data):
  folder = shared_data / "semseg" / "camvid" / "dev"
  source = CocoLabels(str(folder / "train.json"))
  assert len(source) == 367 and len(source.classes) == 11 and source.warnings == ()
  day, dusk = (CocoLabels(str(folder / "train.json"), domain=d) for d in ("day", "dusk"))
  assert (len(day), len(dusk)) == (305, 62)
  example = dusk[5]
  assert example["image"].shape == (288, 384, 3)
  assert example["label_map"].min() >= -1 and example["label_map"].max() <= 10
  brute = np.zeros(12, np.int64)
  for index in range(len(dusk)):
    brute += np.bincount(dusk[index]["label_map"].ravel() + 1, minlength=12)
  np.testing.assert_array_equal(dusk.pixel_counts(), brute[1:])


def test_semantic_labels_are_those_made_of_the_panoptic_ones(shared_data):
  """Both ways to the same maps: written as masks of classes, and from segments."""
  labels = CocoLabels(str(shared_data / "semseg" / "coco" / "dev" / "val.json"))
  panoptic = PanopticLabels(str(shared_data / "panoptic" / "coco" / "dev" / "val.json"))
  assert len(labels) == len(panoptic) == 40 and labels.classes == panoptic.classes
  assert isinstance(panoptic, LabelSource) and panoptic.warnings == ()
  by_id = {panoptic[index]["image_id"]: index for index in range(40)}
  for index in range(0, 40, 7):
    example = labels[index]
    other = panoptic[by_id[example["image_id"]]]
    np.testing.assert_array_equal(example["label_map"], other["label_map"])
    np.testing.assert_array_equal(example["image"], other["image"])
  np.testing.assert_array_equal(labels.pixel_counts(), panoptic.pixel_counts())


def test_panoptic_segments_become_their_classes(tmp_path):
  ids = np.array([[0, 3, 3], [300, 300, 7]])
  save(tmp_path / "panoptic/a.png", np.stack([ids % 256, ids // 256, 0 * ids], axis=-1))
  save(tmp_path / "a.jpg", np.zeros((2, 3, 3)))
  segments = [
    {"id": 3, "category_id": 9, "iscrowd": 1},
    {"id": 300, "category_id": 2},
    {"id": 7, "category_id": 9},
  ]
  (tmp_path / "panoptic.json").write_text(
    json.dumps(
      {
        "images": [{"id": 5, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 5, "file_name": "a.png", "segments_info": segments}],
        "categories": [
          {"id": 9, "name": "dog", "isthing": 1},
          {"id": 2, "name": "sky", "isthing": 0},
        ],
      }
    )
  )
  source = PanopticLabels(str(tmp_path / "panoptic.json"))
  assert len(source) == 1 and source.category_ids == (2, 9) and source[0]["image_id"] == 5
  np.testing.assert_array_equal(source[0]["label_map"], [[IGNORE, 1, 1], [0, 0, 1]])
  assert source[0]["label_map"].dtype == np.int16
  assert source.pixel_counts().tolist() == [2, 3]
  assert len(CocoPanoptic(str(tmp_path / "panoptic.json"))[0]["labels"]) == 3
  with pytest.raises(IndexError):
    source[1]
