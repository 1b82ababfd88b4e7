"""Caption files as people write them: right, cut from larger ones, and beyond use."""

import json

import numpy as np
import pytest
from PIL import Image

from rtune.data.sources.coco_captions import CocoCaptions
from rtune.errors import DataError


@pytest.fixture
def data(tmp_path):
  """Two images, one with two captions and one with one."""
  for name, color in (("a.png", "red"), ("b.png", "blue")):
    Image.new("RGB", (30, 20), color).save(tmp_path / name)
  return {
    "images": [{"id": 7, "file_name": "a.png"}, {"id": 5, "file_name": "b.png"}],
    "annotations": [
      {"id": 1, "image_id": 7, "caption": "A dog."},
      {"id": 2, "image_id": 5, "caption": " Zwei Hunde \U0001f600\0 "},
      {"id": 3, "image_id": 7, "caption": "the dog"},
    ],
  }


def write(tmp_path, data):
  path = tmp_path / "captions.json"
  path.write_text(json.dumps(data))
  return str(path)


def error_of(tmp_path, data):
  with pytest.raises(DataError) as error:
    CocoCaptions(write(tmp_path, data))
  assert "captions.json" in str(error.value)
  return str(error.value)


def test_examples(tmp_path, data):
  source = CocoCaptions(write(tmp_path, data))
  assert len(source) == 2 and source.warnings == ()
  first, second = source[0], source[1]
  assert first["image"].shape == (20, 30, 3) and first["image"].dtype == np.uint8
  assert (first["image_id"], second["image_id"]) == (7, 5)
  assert first["captions"] == ("A dog.", "the dog")
  assert second["captions"] == (" Zwei Hunde \U0001f600\0 ",)
  assert source.references() == [first["captions"], second["captions"]]
  assert source.references(1) == [first["captions"]]
  for index in (-1, 2):
    with pytest.raises(IndexError):
      source[index]


def test_what_is_left_out_is_counted_and_named(tmp_path, data):
  data["images"].append({"id": 9, "file_name": "no_such_file.png"})
  data["annotations"] += [
    {"id": 4, "image_id": 99, "caption": "of another file"},
    {"id": 5, "image_id": 7, "caption": " ... "},
    {"id": 6, "image_id": 7, "caption": ""},
  ]
  source = CocoCaptions(write(tmp_path, data))
  assert len(source) == 2  # an image that nothing is said of need not be there
  assert source[0]["captions"] == ("A dog.", "the dog")
  text = "\n".join(source.warnings)
  assert "images without a caption (1). Left out: image 9" in text
  assert "captions of images that are not listed (1). Left out: annotation 4 (99)" in text
  assert "captions without a word (2). Left out: annotation 5 (' ... ') annotation 6 ('')" in text


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"annotations": []}, "files without a single caption"),
    ({"annotations": [{"id": 1, "image_id": 7, "caption": 3}]}, "annotations without a caption"),
    ({"annotations": [{"id": 1, "image_id": [], "caption": "a"}]}, "not whole numbers"),
    ({"annotations": [{"id": 1, "image_id": 7, "bbox": [1, 2, 3, 4]}]}, "without a caption"),
    ({"annotations": None}, "'annotations'"),
    ({"images": []}, "at least one image"),
    ({"images": [{"id": 7, "file_name": "../a.png"}]}, "lead out of the image folder"),
    ({"images": [{"id": 7}]}, "without a usable file_name"),
  ],
)
def test_what_cannot_be_used_is_an_error(tmp_path, data, change, message):
  assert message in error_of(tmp_path, {**data, **change})


def test_missing_and_broken_images_are_found_at_once(tmp_path, data):
  (tmp_path / "b.png").write_bytes(b"no picture")
  assert "b.png" in error_of(tmp_path, data)
  source = CocoCaptions(write(tmp_path, data), check_images=False)
  with pytest.raises(DataError, match=r"b\.png"):
    source[1]


def test_another_folder_of_images(tmp_path, data):
  (tmp_path / "else").mkdir()
  for name in ("a.png", "b.png"):
    (tmp_path / name).rename(tmp_path / "else" / name)
  assert len(CocoCaptions(write(tmp_path, data), str(tmp_path / "else"))) == 2
  data["info"] = {"image_root": "else"}
  assert len(CocoCaptions(write(tmp_path, data))) == 2


def test_real_captions(shared_data):
  folder = shared_data / "captions" / "coco" / "dev"
  train, val = (CocoCaptions(str(folder / f"{split}.json")) for split in ("train", "val"))
  assert (len(train), len(val)) == (195, 52)
  assert train.warnings == val.warnings == ()
  assert sum(map(len, train.references())) == 976
