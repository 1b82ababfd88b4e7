"""COCO files as people write them: right, slightly wrong, and beyond use."""

import json
import pathlib
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtune.data.sources.coco import CocoDetection
from rtune.errors import DataError


def _annotation(number: int, image: Any = 7, bbox: Any = (10, 20, 30, 40), **more) -> dict:
  return {"id": number, "image_id": image, "category_id": 3, "bbox": bbox, "iscrowd": 0, **more}


@pytest.fixture
def data(tmp_path) -> dict[str, Any]:
  """Two images of 60 x 100 (height x width) beside the JSON, three boxes, category ids 3 and 90."""
  for name, color in (("a.png", "red"), ("b.png", "blue")):
    Image.new("RGB", (100, 60), color).save(tmp_path / name)
  return {
    "images": [
      {"id": 7, "file_name": "a.png", "width": 100, "height": 60},
      {"id": 5, "file_name": "b.png"},
    ],
    "categories": [{"id": 90, "name": "zebra"}, {"id": 3, "name": "ant"}],
    "annotations": [
      _annotation(1, area=700.5),
      {"id": 2, "image_id": 5, "category_id": 90, "bbox": [0, 0, 100, 60], "iscrowd": 1},
      _annotation(3, bbox=[50.5, 0, 10, 5.25], category_id=90),
    ],
  }


def _write(tmp_path: pathlib.Path, data: Any) -> str:
  path = tmp_path / "train.json"
  path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
  return str(path)


def _error(tmp_path: pathlib.Path, data: Any, **options) -> str:
  path = _write(tmp_path, data)
  with pytest.raises(DataError) as error:
    CocoDetection(path, **options)
  assert path in str(error.value)
  return str(error.value)


def test_examples(tmp_path, data):
  source = CocoDetection(_write(tmp_path, data))
  assert source.classes == ("ant", "zebra") and source.category_ids == (3, 90)
  assert source.warnings == () and len(source) == 2
  first, second = source
  assert first["image"].shape == (60, 100, 3) and first["image"].dtype == np.uint8
  assert tuple(first["image"][0, 0]) == (255, 0, 0)
  assert (first["image_id"], second["image_id"]) == (7, 5)
  np.testing.assert_array_equal(first["boxes"], [[20, 10, 60, 40], [0, 50.5, 5.25, 60.5]])
  np.testing.assert_array_equal(first["labels"], [0, 1])
  np.testing.assert_array_equal(first["crowd"], [False, False])
  np.testing.assert_array_equal(first["area"], [700.5, 52.5])
  np.testing.assert_array_equal(second["crowd"], [True])
  np.testing.assert_array_equal(second["area"], [6000])
  kinds = {key: getattr(value, "dtype", None) for key, value in second.items()}
  assert kinds == {
    "image": np.uint8,
    "image_id": None,
    "boxes": np.float32,
    "labels": np.int32,
    "crowd": np.bool_,
    "area": np.float32,
    "official_boxes": np.float64,
    "official_labels": np.int32,
    "official_crowd": np.bool_,
    "official_area": np.float64,
  }
  with pytest.raises(IndexError):
    source[2]
  copy = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(copy[0]["boxes"], first["boxes"])


def test_images_without_boxes_are_kept(tmp_path, data):
  data["annotations"] = data["annotations"][:1]
  example = CocoDetection(_write(tmp_path, data))[1]
  assert example["boxes"].shape == (0, 4) and example["labels"].shape == (0,)
  data["annotations"] = []
  source = CocoDetection(_write(tmp_path, data))
  assert len(source) == 2 and source[0]["boxes"].shape == (0, 4)
  assert len(source.warnings) == 1 and "without a single usable box" in source.warnings[0]


def test_image_folder(tmp_path, data):
  for name in ("a.png", "b.png"):
    (tmp_path / "über bilder" / "x").mkdir(parents=True, exist_ok=True)
    (tmp_path / name).rename(tmp_path / "über bilder" / "x" / name)
  data["info"] = {"image_root": "über bilder/x"}
  path = _write(tmp_path, data)
  assert len(CocoDetection(path)) == 2
  assert len(CocoDetection(path, str(tmp_path / "über bilder" / "x"))) == 2
  data["info"] = {"image_root": str(tmp_path / "über bilder" / "x")}
  assert "image_root" in _error(tmp_path, data)
  assert len(CocoDetection(_write(tmp_path, data), allow_outside_root=True)) == 2
  assert "do not exist" in _error(tmp_path, data, images=str(tmp_path / "none"))


def test_equal_names_in_different_folders(tmp_path, data):
  for folder, color in (("one", "lime"), ("two", "blue")):
    (tmp_path / folder).mkdir()
    Image.new("RGB", (100, 60), color).save(tmp_path / folder / "1.png")
  data["images"][0]["file_name"], data["images"][1]["file_name"] = "one/1.png", "two/../two/1.png"
  first, second = CocoDetection(_write(tmp_path, data))
  assert tuple(first["image"][0, 0]) == (0, 255, 0)
  assert tuple(second["image"][0, 0]) == (0, 0, 255)


def test_bad_boxes_are_put_right_counted_and_told(tmp_path, data):
  data["annotations"] += [
    _annotation(10, bbox=[-20, 10, 60, 1e30]),
    _annotation(11, bbox=[5, 5, 0, 10]),
    _annotation(12, bbox=[5, 5, 10, -3]),
    _annotation(13, bbox=[float("nan"), 5, 10, 10]),
    _annotation(14, bbox=[5, 5, float("inf"), 0]),
    _annotation(15, bbox=[100, 5, 10, 10]),
    _annotation(16, bbox=[1e30, -1e30, 10, 10]),
    _annotation(17, bbox=[10**400, 0, 1, 1]),
    _annotation(18, bbox=[0, 0, 100.4, 60.4], area=None),
  ]
  source = CocoDetection(_write(tmp_path, data))
  np.testing.assert_array_equal(source[0]["boxes"][2:], [[10, 0, 60, 40], [0, 0, 60, 100]])
  np.testing.assert_array_equal(source[0]["area"][2:], [2000, 6000])
  # The metric has them as they are, all but those that are no numbers.
  whole = [[-20, 10, 60, 1e30], [5, 5, 0, 10], [5, 5, 10, -3], [100, 5, 10, 10]]
  whole += [[1e30, -1e30, 10, 10], [0, 0, 100.4, 60.4]]
  np.testing.assert_array_equal(source[0]["official_boxes"][2:], whole)
  np.testing.assert_array_equal(source[0]["official_labels"], [0, 1] + [0] * 6)
  areas = [700.5, 52.5, 60e30, 0, -30, 100, 100, 100.4 * 60.4]
  np.testing.assert_array_equal(source[0]["official_area"], areas)
  assert source.class_counts().tolist() == [3, 1] and source.box_counts().tolist() == [4, 0]
  told = "\n".join(source.warnings)
  assert "NaN or infinite numbers (3). Left out: annotation 13 annotation 14 annotation 17" in told
  assert "without width or height (2)" in told
  assert "outside their image (2)" in told
  assert "over the edge of their image by more than a pixel (1). Cut there in training" in told
  assert "area is no area (1)" in told
  assert len(source.warnings) == 5


def test_areas_and_crowds_are_scored_as_the_official_tool_reads_them(tmp_path, data):
  # Of -1 the tool says "of no size", of NaN "of any"; 1024.00001 is 1024 in float32.
  areas = [1024.00001, -1, float("nan"), 10**400, 1e300, 0, True, "40"]
  crowds = [1, True, "1", 2, 0, False, "0", None]
  data["annotations"] = [
    _annotation(100 - k, image=(7, 5)[k % 2], area=area) | {"iscrowd": crowd}
    for k, (area, crowd) in enumerate(zip(areas, crowds, strict=True))
  ]
  first, second = CocoDetection(_write(tmp_path, data))
  np.testing.assert_array_equal(first["official_area"], [1024.00001, np.nan, 1e300, 1])
  np.testing.assert_array_equal(second["official_area"], [-1, 1e300, 0, 1200])
  assert first["official_crowd"].tolist() == [True, True, False, False]
  assert second["official_crowd"].tolist() == [True, True, False, False]


def test_without_header_checks_boxes_are_cut_when_read(tmp_path, data):
  data["images"][0].update(width=20, height=10)
  data["annotations"] += [_annotation(10, bbox=[90, 50, 50, 50]), _annotation(11, bbox=[200] * 4)]
  source = CocoDetection(_write(tmp_path, data), check_images=False)
  assert source.warnings == ()
  np.testing.assert_array_equal(source[0]["boxes"][2:], [[50, 90, 60, 100]])
  np.testing.assert_array_equal(source[0]["area"][2:], [100])
  np.testing.assert_array_equal(source[0]["official_boxes"][2:], [[90, 50, 50, 50], [200] * 4])
  (tmp_path / "b.png").unlink()
  assert len(CocoDetection(_write(tmp_path, data), check_images=False)) == 2
  with pytest.raises(DataError, match=r"b\.png.* does not exist"):
    source[1]


def test_the_true_size_wins(tmp_path, data):
  data["images"][0].update(width=60, height=100)
  data["images"][1].update(width=50, height=30)
  source = CocoDetection(_write(tmp_path, data))
  np.testing.assert_array_equal(source[1]["boxes"], [[0, 0, 60, 100]])
  assert len(source.warnings) == 2
  assert "exchanged in the file (1)" in source.warnings[0] and "a.png" in source.warnings[0]
  assert "size is not the one in the file (1)" in source.warnings[1]


def test_corners_and_fractions_are_suspected(tmp_path, data):
  rng = np.random.default_rng(0)
  low = rng.uniform(0, 50, (40, 2)) * (1, 0.6)
  high = low + rng.uniform(5, 45, (40, 2)) * (1, 0.6)
  corners = np.concatenate([low, high], axis=1).round(2)

  def warnings_of(boxes: np.ndarray) -> str:
    data["annotations"] = [_annotation(k, bbox=box) for k, box in enumerate(boxes.tolist(), 1)]
    return "\n".join(CocoDetection(_write(tmp_path, data)).warnings)

  assert "look like corners" in warnings_of(corners)
  assert warnings_of(np.concatenate([low, high - low], axis=1)) == ""
  assert "look like fractions" in warnings_of(corners / 100)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", [None, {}, [1]])
def test_missing_sections(tmp_path, data, key, value):
  data[key] = value
  assert repr(key) in _error(tmp_path, data)
  del data[key]
  assert repr(key) in _error(tmp_path, data)


def test_all_missing_sections_at_once(tmp_path):
  for content in ("[]", "{}", "3"):
    text = _error(tmp_path, content)
    assert "'images'" in text and "'annotations'" in text and "'categories'" in text
  text = _error(tmp_path, '{"images": [], "annotations": [], "categories": []}')
  assert "at least one image" in text and "at least one category" in text


def test_file_that_is_no_json(tmp_path, data):
  text = json.dumps(data, indent=1)
  assert "is truncated" in _error(tmp_path, text[:300])
  assert "is truncated" in _error(tmp_path, text[: text.index("zebra") + 2])
  broken = _error(tmp_path, text.replace('"categories":', '"categories"'))
  assert "is not JSON" in broken and "line 14 column" in broken
  assert "is empty" in _error(tmp_path, " ")
  assert "is not JSON" in _error(tmp_path, "[" * 100_000)
  (tmp_path / "train.json").write_bytes(b'{"images": "\xff"}')
  with pytest.raises(DataError, match="0xff in position 12"):
    CocoDetection(str(tmp_path / "train.json"))
  with pytest.raises(DataError, match=r"none\.json cannot be read: No such file"):
    CocoDetection(str(tmp_path / "none.json"))


def test_byte_order_mark_is_accepted(tmp_path, data):
  (tmp_path / "train.json").write_text(json.dumps(data), encoding="utf-8-sig")
  assert len(CocoDetection(str(tmp_path / "train.json"))) == 2


def test_all_problems_come_in_one_report(tmp_path, data):
  (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
  data["images"] += [
    {"id": 7, "file_name": "a.png"},
    {"id": "8", "file_name": "a.png"},
    {"id": 9},
    {"id": 10, "file_name": "c.png"},
    {"id": 11, "file_name": "gone.png"},
    {"id": 12, "file_name": "../x.png"},
    {"id": 13, "file_name": "nul\0.png"},
    {"id": None, "file_name": "a.png"},
  ]
  data["categories"] += [{"id": 3, "name": "again"}, {"id": 4}]
  data["annotations"] += [
    _annotation(3),
    _annotation(20, image=999),
    _annotation(21, category_id=17),
    _annotation(22, bbox=[1, 2, 3]),
    _annotation(23, bbox=["1", 2, 3, 4]),
    {"id": 24, "image_id": 7, "bbox": [1, 2, 3, 4]},
    _annotation(25, image="7"),
  ]
  text = _error(tmp_path, data)
  for part in (
    "images with an id used before (1). Give each its own id:\n    id 7\n",
    "categories with an id used before (1)",
    "annotations with an id used before (1)",
    "ids that are missing or not whole numbers (2). Give each a whole number:\n"
    "    images[9] (id None)\n    annotation 24 (no category_id)",
    "categories without a name (1)",
    "images without a usable file_name (2)",
    "annotations of unknown images (1). List the image, or remove them:\n"
    "    annotation 20 (image_id 999)",
    "annotations of unknown categories (1)",
    "annotations without four numbers as bbox (2)",
    "c.png' cannot be decoded",
    "gone.png' does not exist",
    "lead out of the image folder",
  ):
    assert part in text, part


def test_reports_list_ten_of_a_kind(tmp_path, data):
  data["annotations"] += [_annotation(100 + k, image=50 + k) for k in range(25)]
  text = _error(tmp_path, data)
  assert "annotations of unknown images (25)" in text and "and 15 more" in text
  assert text.count("image_id") == 10


def test_every_image_missing(tmp_path, data):
  (tmp_path / "empty").mkdir()
  text = _error(tmp_path, data, images=str(tmp_path / "empty"))
  assert "image files, of 2 in all, that cannot be used (2)" in text


def test_file_names_may_not_leave_the_root(tmp_path, data):
  root, outside = tmp_path / "root", tmp_path / "outside"
  root.mkdir()
  outside.mkdir()
  for name in ("a.png", "b.png"):
    (tmp_path / name).rename(outside / name)
  (root / "link.png").symlink_to(outside / "a.png")
  (root / "folder").symlink_to(outside)
  (root / "inner.png").write_bytes((outside / "a.png").read_bytes())
  (root / "inner_link.png").symlink_to("inner.png")

  def load(name: str, **options) -> CocoDetection:
    data["images"][0]["file_name"], data["images"][1]["file_name"] = name, "inner.png"
    return CocoDetection(_write(tmp_path, data), str(root), **options)

  for name in ("../outside/a.png", str(outside / "a.png"), "link.png", "folder/a.png"):
    for check in (True, False):
      with pytest.raises(DataError, match=r"(?s)lead out of the image folder.*allow_outside_root"):
        load(name, check_images=check)
    assert len(load(name, allow_outside_root=True)) == 2
  assert load("inner_link.png")[0]["image"].shape == (60, 100, 3)
  linked = tmp_path / "linked_root"
  linked.symlink_to(root)
  assert len(CocoDetection(_write(tmp_path, data), str(linked))) == 2


def test_too_large_images_are_refused_at_the_start(tmp_path, data):
  text = _error(tmp_path, data, max_pixels=5999)
  assert "100 x 60 pixels, more than max_pixels = 5,999" in text


def test_a_file_that_breaks_later_is_named(tmp_path, data):
  source = CocoDetection(_write(tmp_path, data))
  (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:90])
  with pytest.raises(DataError, match=r"a\.png.* cannot be decoded"):
    source[0]


# Counts from ../shared/data/detection/README.md (train, val).
@pytest.mark.parametrize(
  "name, counts, classes",
  [("coco", (279, 67), 80), ("bccd", (218, 55), 3), ("raccoon", (117, 29), 1)],
)
def test_real_files(shared_data, name, counts, classes):
  for split, count in zip(("train", "val"), counts, strict=True):
    path = shared_data / "detection" / name / "dev" / f"{split}.json"
    annotations = json.loads(path.read_text())["annotations"]
    source = CocoDetection(str(path))
    assert source.warnings == () and len(source) == count
    assert len(source.classes) == len(source.category_ids) == classes
    for index in (0, count // 2, count - 1):
      example = source[index]
      mine = [one for one in annotations if one["image_id"] == example["image_id"]]
      y0, x0, y1, x1 = example["boxes"].T
      boxes = np.array([one["bbox"] for one in mine], np.float32).reshape(-1, 4)
      np.testing.assert_allclose(np.stack([x0, y0, x1 - x0, y1 - y0], axis=1), boxes, atol=1.01)
      ids = [source.category_ids[label] for label in example["labels"]]
      assert ids == [one["category_id"] for one in mine]
      assert example["crowd"].tolist() == [bool(one["iscrowd"]) for one in mine]
      np.testing.assert_allclose(example["area"], [one["area"] for one in mine], rtol=1e-6)
