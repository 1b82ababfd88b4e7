"""Panoptic files as people have them: right, cut from larger ones, and beyond use."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from rtune.data.files import id_masks
from rtune.data.sources.coco_panoptic import CocoPanoptic
from rtune.errors import DataError
from rtune.metrics.segments import mask_files

BLOB = 3 + 256 * 7 + 65536 * 200


def save_mask(path, ids):
  ids = np.array(ids)
  picture = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
  Image.fromarray(picture).save(path)


def segment(number, category_id, **more):
  return {"id": number, "category_id": category_id, **more}


@pytest.fixture
def data(tmp_path):
  """Two images of 3 x 2 pixels; the masks are in COCO's place, the folder called like the JSON."""
  (tmp_path / "panoptic").mkdir()
  for name, color in (("a", "red"), ("b", "blue")):
    Image.new("RGB", (3, 2), color).save(tmp_path / f"{name}.png")
  save_mask(tmp_path / "panoptic/a.png", [[0, 1, BLOB], [1, 1, BLOB]])
  save_mask(tmp_path / "panoptic/b.png", [[9, 9, 9], [9, 9, 9]])
  return {
    "images": [
      {"id": 7, "file_name": "a.png", "height": 2, "width": 3},
      {"id": 5, "file_name": "b.png", "height": 2, "width": 3},
    ],
    "annotations": [
      {"image_id": 5, "file_name": "b.png", "segments_info": [segment(9, 3)]},
      {
        "image_id": 7,
        "file_name": "a.png",
        "segments_info": [segment(BLOB, 3, iscrowd=1), segment(1, 200, iscrowd=0)],
      },
    ],
    "categories": [
      {"id": 200, "name": "sky", "isthing": 0},
      {"id": 3, "name": "dog", "isthing": 1},
    ],
  }


def write(tmp_path, data):
  path = tmp_path / "panoptic.json"
  path.write_text(json.dumps(data))
  return str(path)


def error_of(tmp_path, data, **options):
  with pytest.raises(DataError) as error:
    CocoPanoptic(write(tmp_path, data), **options)
  assert "panoptic.json" in str(error.value)
  return str(error.value)


def test_examples(tmp_path, data):
  source = CocoPanoptic(write(tmp_path, data))
  assert len(source) == 2 and source.warnings == ()
  assert source.classes == ("dog", "sky") and source.category_ids == (3, 200)
  assert source.things == (True, False)
  assert source.segment_counts().tolist() == [2, 1]
  first, second = source[0], source[1]
  assert (first["image_id"], second["image_id"]) == (7, 5)
  assert first["image"].shape == (2, 3, 3) and first["image"].dtype == np.uint8
  np.testing.assert_array_equal(first["segments"], [[0, 2, 1], [2, 2, 1]])
  assert first["segments"].dtype == np.uint8
  assert first["labels"].tolist() == [0, 1] and first["labels"].dtype == np.int32
  assert first["crowd"].tolist() == [True, False] and first["crowd"].dtype == bool
  assert (second["segments"] == 1).all()
  for index in (-1, 2):
    with pytest.raises(IndexError):
      source[index]


def test_masks_are_found_where_the_file_says(tmp_path, data):
  (tmp_path / "panoptic").rename(tmp_path / "else")
  assert "panoptic.json" in error_of(tmp_path, data)  # the images of the same names are no masks
  assert len(CocoPanoptic(write(tmp_path, data), masks=str(tmp_path / "else"))) == 2
  data["info"] = {"mask_root": "else"}
  assert len(CocoPanoptic(write(tmp_path, data))) == 2
  data["info"] = {"mask_root": "/somewhere"}
  assert "info.mask_root" in error_of(tmp_path, data)


def test_images_without_annotation_are_left_out_and_told(tmp_path, data):
  data["images"].append({"id": 9, "file_name": "no_such_file.png"})
  source = CocoPanoptic(write(tmp_path, data))
  assert len(source) == 2
  assert "images without an annotation (1). Left out: image 9" in source.warnings[0]


@pytest.mark.parametrize(
  ("segments", "kind", "number"),
  [
    ([segment(BLOB, 3)], "masks with ids that the file does not list", 1),
    ([segment(BLOB, 3), segment(1, 3), segment(8, 3)], "segments without a pixel in their mask", 8),
  ],
)
def test_ids_of_mask_and_file_must_agree(tmp_path, data, segments, kind, number):
  """At once for the first masks, later for the others; both name file and id."""
  data["annotations"][1]["segments_info"] = segments
  text = error_of(tmp_path, data)
  assert f"{kind} (1)" in text and f"a.png' (ids {number})" in text
  source = CocoPanoptic(write(tmp_path, data), check_masks=0)
  source[1]
  with pytest.raises(DataError, match=rf"a\.png': {kind}: {number}\. Mend"):
    source[0]


def test_all_that_is_wrong_is_told_at_once(tmp_path, data):
  Image.new("L", (3, 2), 9).save(tmp_path / "panoptic/b.png")
  Image.new("RGB", (4, 2)).save(tmp_path / "a.png")
  data["annotations"][1]["segments_info"] = [segment(1, 3), segment(8, 77)]
  text = error_of(tmp_path, data)
  assert "files that are no masks of ids (1)" in text and "Pillow's mode L" in text
  assert "masks of another size than their image (1)" in text and "is 4 x 2" in text
  assert f"a.png' (ids {BLOB})" in text and "a.png' (ids 8)" in text
  assert "segments of unknown categories (1)" in text and "category_id 77" in text


def test_a_mask_that_claims_more_pixels_than_its_image_is_not_decoded(tmp_path, data, monkeypatch):
  Image.new("RGB", (300, 200)).save(tmp_path / "panoptic/a.png")
  read, read_mask = [], id_masks.read_mask

  def noted(path, *args):
    read.append(pathlib.Path(path).name)
    return read_mask(path, *args)

  monkeypatch.setattr(id_masks, "read_mask", noted)
  assert "a.png' is 300 x 200" in error_of(tmp_path, data)
  assert read == ["b.png"]


def test_eight_bit_and_jpeg_masks_are_refused_when_read_as_well(tmp_path, data):
  for mode, problem in (("P", "mode P"), ("L", "mode L"), ("RGBA", "has transparent pixels")):
    Image.new(mode, (3, 2)).save(tmp_path / "panoptic/b.png")
    assert problem in error_of(tmp_path, data)
    source = CocoPanoptic(write(tmp_path, data), check_images=False, check_masks=0)
    with pytest.raises(DataError, match=rf"b\.png'.* {problem}"):
      source[1]
  Image.new("RGB", (3, 2)).save(tmp_path / "panoptic/b.png", format="JPEG")
  assert "whose compression changes ids" in error_of(tmp_path, data)


def test_another_size_is_found_when_read_as_well(tmp_path, data):
  Image.new("RGB", (4, 2)).save(tmp_path / "a.png")
  source = CocoPanoptic(write(tmp_path, data), check_images=False)
  with pytest.raises(DataError, match=r"a\.png' is 3 x 2, .* is 4 x 2"):
    source[0]


def test_missing_and_broken_masks(tmp_path, data):
  (tmp_path / "panoptic/a.png").unlink()
  (tmp_path / "panoptic/b.png").write_bytes(b"no picture")
  text = error_of(tmp_path, data)
  assert "a.png' does not exist" in text and "b.png' is not an image" in text
  assert "masks that cannot be read" not in text  # not told twice
  assert "masks that cannot be read (2)" in error_of(tmp_path, data, check_images=False)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"file_name": None}, "without a usable file_name"),
    ({"file_name": "../a.png"}, "lead out of the image folder"),
    ({"image_id": 6}, "annotations of unknown images"),
    ({"image_id": ""}, "annotations without an image_id"),
    ({"image_id": 5}, "images that are annotated twice"),
    ({"segments_info": None}, "annotations without segments_info"),
    ({"bbox": [1, 2, 3, 4], "segments_info": 3}, "Give a panoptic file"),
    ({"segments_info": [segment(0, 3)]}, "segments without a usable id"),
    ({"segments_info": [segment(2**24, 3)]}, "segments without a usable id"),
    ({"segments_info": [segment("1", 3)]}, "segments without a usable id"),
    ({"segments_info": [segment(1, 3), segment(1, 200)]}, "segments with an id used before"),
    ({"segments_info": [segment(1, 4)]}, "segments of unknown categories"),
    ({"segments_info": [segment(1, None)]}, "segments of unknown categories"),
  ],
)
def test_annotations_that_cannot_be_used(tmp_path, data, change, message):
  data["annotations"][1] |= change
  assert message in error_of(tmp_path, data)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"annotations": []}, "files without an annotated image"),
    ({"annotations": None}, "'annotations'"),
    ({"images": []}, "at least one image"),
    ({"images": [{"id": 7}]}, "without a usable file_name"),
    ({"categories": [{"id": 3, "name": "dog"}]}, "categories without isthing"),
    ({"categories": []}, "at least one category"),
  ],
)
def test_files_that_cannot_be_used(tmp_path, data, change, message):
  assert message in error_of(tmp_path, {**data, **change})


def test_more_ids_than_a_byte_can_hold():
  ids = np.random.default_rng(0).permutation(2**24)[:900].astype(np.uint32) | 1
  ids = np.unique(ids)
  order = np.random.default_rng(1).permutation(len(ids))
  mask = id_masks.look_up(ids[order][None], ids.tolist())
  assert mask.segments.dtype == np.uint16 and mask.unknown == mask.absent == ()
  np.testing.assert_array_equal(mask.segments, order[None] + 1)


def test_what_is_predicted_can_be_read(tmp_path):
  """COCO's results have the same format as its annotation."""
  segments = np.random.default_rng(0).integers(0, 700, (30, 40))
  ((name, picture),) = mask_files({"image_id": 3, "segments": segments}).items()
  Image.fromarray(picture).save(tmp_path / name)
  ids = np.unique(segments[segments > 0])
  mask = id_masks.read_mask(tmp_path / name, ids.tolist())
  np.testing.assert_array_equal(np.append(0, ids)[mask.segments], segments)


def test_real_labels(shared_data):
  folder = shared_data / "panoptic" / "coco" / "dev"
  for split, images in (("train", 110), ("val", 40)):
    path = folder / f"{split}.json"
    source, listed = CocoPanoptic(str(path)), json.loads(path.read_text())["annotations"]
    assert len(source) == images and source.warnings == ()
    assert (len(source.classes), sum(source.things)) == (133, 80)
    counts = source.segment_counts()
    example, info = source[0], {one["image_id"]: one["segments_info"] for one in listed}
    area = np.bincount(example["segments"].ravel())[1:]
    assert area.tolist() == [one["area"] for one in info[example["image_id"]]]
    assert counts.sum() == sum(len(one["segments_info"]) for one in listed)
