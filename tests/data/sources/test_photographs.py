"""Photographs as people have them: folders, lists, gray ones, and files that are none."""

import json

import numpy as np
import pytest
from PIL import Image

from rtune.data.files.images import color_spread
from rtune.data.sources.photographs import Photographs
from rtune.errors import DataError, UsageError

RAMP = np.linspace(0, 255, 30 * 40).reshape(30, 40).astype(np.uint8)
COLORED = np.stack([RAMP, RAMP[::-1], np.full_like(RAMP, 90)], -1)


@pytest.fixture
def photos(tmp_path):
  """Four in color, one of them deep in the folder, and three gray in their own ways."""
  where = tmp_path / "photos"
  (where / "deep" / "er").mkdir(parents=True)
  colored = Image.fromarray(COLORED)
  for name in ("b.jpg", "a.png", "deep/er/17.webp"):
    colored.save(where / name)
  alpha = colored.convert("RGBA")
  alpha.putalpha(Image.fromarray(np.where(RAMP > 128, 255, 0).astype(np.uint8)))
  alpha.save(where / "alpha.png")
  Image.fromarray(RAMP).save(where / "gray.png")
  Image.fromarray(RAMP).convert("RGB").save(where / "gray_rgb.jpg", quality=60)
  Image.fromarray(RAMP).convert("LA").save(where / "deep" / "gray_alpha.png")
  (where / "notes.txt").write_text("no photograph")
  return where


def ids(source):
  return [source[i]["image_id"] for i in range(len(source))]


def test_a_folder(photos):
  source = Photographs(str(photos))
  assert ids(source) == [1, 2, 3, 17]  # a, alpha, b, and the one that is called 17
  assert all(source[i]["image"].shape == (30, 40, 3) for i in range(4))
  np.testing.assert_array_equal(source[0]["image"], COLORED)
  (text,) = source.warnings
  assert "gray photographs, of 7 in all (3). Left out" in text
  assert all(name in text for name in ("gray.png", "gray_rgb.jpg", "gray_alpha.png"))
  with pytest.raises(IndexError):
    source[4]


def test_transparent_pixels_are_white(photos):
  image = Photographs(str(photos))[1]["image"]
  np.testing.assert_array_equal(image[RAMP <= 128], 255)
  np.testing.assert_array_equal(image[RAMP > 128], COLORED[RAMP > 128])


def test_gray_ones_stay_if_that_is_asked_for(photos):
  source = Photographs(str(photos), least_color=0.0)
  assert len(source) == 7 and source.warnings == ()


def test_how_colored_an_image_is(photos, tmp_path):
  tinted = np.stack([RAMP, RAMP, np.maximum(RAMP, 10) - 10], -1)  # a yellowed print
  Image.fromarray(tinted).save(tmp_path / "tinted.png")
  assert color_spread(tmp_path / "tinted.png") == pytest.approx(10, abs=0.5)
  assert color_spread(photos / "gray_rgb.jpg") < 1 < 50 < color_spread(photos / "b.jpg")
  assert "does not exist" in color_spread(tmp_path / "missing.png")


def test_splits_part_the_set_and_follow_from_the_name(tmp_path):
  for number in range(60):
    Image.fromarray(COLORED).save(tmp_path / f"{number}.png")
  both = [set(ids(Photographs(str(tmp_path), split=s, holdout=0.25))) for s in ("train", "val")]
  assert both[0] | both[1] == set(range(60)) and not both[0] & both[1]
  assert 5 <= len(both[1]) <= 25
  for number in range(0, 60, 2):
    (tmp_path / f"{number}.png").unlink()
  fewer = set(ids(Photographs(str(tmp_path), split="val", holdout=0.25)))
  assert fewer == {number for number in both[1] if number % 2}


def test_a_list_of_names(photos, tmp_path):
  (photos / "list.txt").write_text("\ufeffdeep/er/17.webp\n\n  a.png \n")
  assert ids(Photographs(str(photos / "list.txt"))) == [17, 1]
  (tmp_path / "list").write_text("b.jpg")
  assert len(Photographs(str(tmp_path / "list"), str(photos))) == 1


def test_a_json_with_and_without_ids(photos, tmp_path):
  path = tmp_path / "photos.json"
  records = [{"file_name": "deep/er/17.webp", "category": "x"}, {"file_name": "gray.png"}]
  records.append({"file_name": "b.jpg"})
  path.write_text(json.dumps({"info": {"image_root": "photos"}, "images": records}))
  source = Photographs(str(path))
  assert ids(source) == [17, 2] and "(1). Left out" in source.warnings[0]
  for number, record in enumerate(records):
    record["id"] = 40 + number
  path.write_text(json.dumps({"images": records}))
  assert ids(Photographs(str(path), str(photos))) == [40, 42]


@pytest.mark.parametrize(
  ("records", "message"),
  [
    ([], "photograph in color"),
    ([{"name": "a.png"}], "without a usable file_name"),
    ([{"file_name": "../a.png"}], "lead out of the image folder"),
    ([{"file_name": "a.png", "id": 1}, {"file_name": "b.jpg"}], "not whole numbers"),
    ([{"file_name": "missing.png"}], r"missing\.png' does not exist"),
    ([{"file_name": "gray.png"}], "sets without a photograph in color"),
    ("a.png", "'images'"),
  ],
)
def test_what_cannot_be_used_is_an_error(photos, records, message):
  (photos / "images.json").write_text(json.dumps({"images": records}))
  with pytest.raises(DataError, match=message) as error:
    Photographs(str(photos / "images.json"))
  assert "images.json" in str(error.value)


def test_unreadable_files_are_named(photos):
  (photos / "empty.jpg").write_bytes(b"")
  whole = (photos / "a.png").read_bytes()
  (photos / "half.png").write_bytes(whole[: len(whole) // 2] + whole[-12:])
  with pytest.raises(DataError, match=r"empty\.jpg' is empty"):
    Photographs(str(photos))
  (photos / "empty.jpg").unlink()
  # A header and an end that are sound: found when its color is looked at, or else when it is read.
  with pytest.raises(DataError, match=r"half\.png' cannot be decoded"):
    Photographs(str(photos))
  source = Photographs(str(photos), least_color=0.0)
  with pytest.raises(DataError, match=r"half\.png"):
    [source[i] for i in range(len(source))]


def test_arguments_that_make_no_sense(photos, tmp_path):
  with pytest.raises(UsageError, match="'test'"):
    Photographs(str(photos), split="test")
  with pytest.raises(UsageError, match=r"1\.5"):
    Photographs(str(photos), split="val", holdout=1.5)
  with pytest.raises(DataError, match="cannot be read"):
    Photographs(str(tmp_path / "nowhere"))
  with pytest.raises(DataError, match="is not text"):
    Photographs(str(photos / "b.jpg"))


def test_real_photographs(shared_data):
  folder = shared_data / "colorization" / "caltech101" / "dev"
  sources = [Photographs(str(folder / f"{split}.json")) for split in ("train", "val")]
  assert [len(source) for source in sources] == [245, 33]
  assert all(source.warnings == () for source in sources)
  coco = Photographs(str(shared_data / "coco_images" / "dev"))
  assert len(coco) == 374 and "(11)" in coco.warnings[0]
