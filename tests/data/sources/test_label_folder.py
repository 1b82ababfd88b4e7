"""Masks in folders as people have them: every layout, and every way in which files can be wrong."""

import json
import pathlib
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rtune.data.files import label_masks
from rtune.data.files.label_layouts import LAYOUTS
from rtune.data.source import LabelSource, PixelCounts
from rtune.data.sources.coco_labels import CocoLabels
from rtune.data.sources.label_folder import LabelFolder
from rtune.errors import DataError, UsageError
from rtune.predictions.labels import IGNORE

NAMES = ("sky", "tree", "car")
VALUES = np.array([[0, 1, 2, 255], [2, 2, 1, 0]], np.uint8)
LABELS = np.where(VALUES == 255, IGNORE, VALUES.astype(np.int16))
COLORS = np.array([[128, 64, 128], [0, 0, 142], [70, 70, 70]], np.uint8)


def photo(path, size=(4, 2), seed=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
  Image.fromarray(pixels).save(path)


def mask(path, values=VALUES, palette=False):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = Image.fromarray(np.asarray(values))
  if palette:
    image = image.convert("P") if image.mode != "L" else image
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768).tolist())
    assert image.mode == "P"
  image.save(path)


def few_bits(path, values, bits):
  """A gray PNG of fewer than 8 bits, which Pillow can read and not write."""
  rows = [b"\0" + np.packbits((np.array(row)[:, None] >> np.arange(bits)[::-1]) & 1).tobytes()
          for row in values]  # fmt: skip

  def chunk(kind, data):
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check

  head = struct.pack(">IIBBBBB", len(values[0]), len(values), bits, 0, 0, 0, 0)
  parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
  path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def opened(root, **options):
  options = {"images": "images", "masks": "masks", "classes": NAMES, **options}
  return LabelFolder(str(root), **options)


def error_of(root, **options):
  with pytest.raises(DataError) as error:
    opened(root, **options)
  return str(error.value)


@pytest.fixture
def root(tmp_path):
  """Two images with gray masks."""
  for seed, name in enumerate(("a", "b")):
    photo(tmp_path / f"images/{name}.jpg", seed=seed)
    mask(tmp_path / f"masks/{name}.png")
  return tmp_path


def test_examples(root):
  source = opened(root)
  assert isinstance(source, LabelSource) and isinstance(source, PixelCounts)
  assert len(source) == 2 and source.warnings == () and source.names == ("a", "b")
  assert source.classes == NAMES and source.category_ids == (0, 1, 2)
  example = source[1]
  assert set(example) == {"image", "image_id", "label_map"} and example["image_id"] == 2
  assert example["image"].shape == (2, 4, 3) and example["image"].dtype == np.uint8
  assert example["label_map"].dtype == np.int16
  np.testing.assert_array_equal(example["label_map"], LABELS)
  for index in (-1, 2):
    with pytest.raises(IndexError):
      source[index]


def test_streaming_counts_are_those_of_all_examples(root):
  rng = np.random.default_rng(0)
  for place in range(12):
    photo(root / f"images/x/{place}.png", size=(9, 7))
    values = rng.choice([0, 1, 255] if place % 2 else [1, 255], (7, 9)).astype(np.uint8)
    mask(root / f"masks/x/{place}.png", values)
  source = opened(root)
  maps = [source[index]["label_map"] for index in range(len(source))]
  brute = [sum(int((m == label).sum()) for m in maps) for label in range(3)]
  assert source.pixel_counts().tolist() == brute and source.pixel_counts().dtype == np.int64
  with pytest.raises(DataError, match="every pixel is ignored"):
    opened(root, ignore=(0, 1, 2, 255))


def test_palettes_go_by_index_and_few_bits_are_not_stretched(root):
  mask(root / "masks/a.png", VALUES, palette=True)
  few_bits(root / "masks/b.png", [[0, 1, 2, 3], [2, 2, 1, 0]], 2)
  source = opened(root, ignore=(255, 3))
  for index in range(2):
    np.testing.assert_array_equal(source[index]["label_map"], LABELS)
  few_bits(root / "masks/a.png", [[0, 1, 2, 15], [2, 2, 1, 0]], 4)
  few_bits(root / "masks/b.png", [[0, 1, 1, 0], [1, 1, 1, 0]], 1)
  source = opened(root, ignore=(15,))
  np.testing.assert_array_equal(source[0]["label_map"], LABELS)
  np.testing.assert_array_equal(source[1]["label_map"], [[0, 1, 1, 0], [1, 1, 1, 0]])


@pytest.mark.parametrize(
  "colors",
  [
    COLORS.tolist(),
    {"128, 64, 128": 0, "#00008E": "tree", "70 70 70": 2},
    {"(128,64,128)": "sky", "0 0 142": 1, "#464646": "car"},
  ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colors(root, colors, mode):
  painted = np.concatenate([COLORS, np.zeros((253, 3), np.uint8)])[VALUES]
  for name in ("a", "b"):
    image = Image.fromarray(painted)
    (image.quantize(8) if mode == "P" else image.convert(mode)).save(root / f"masks/{name}.png")
  source = opened(root, colors=colors, ignore=("0, 0, 0",))
  np.testing.assert_array_equal(source[0]["label_map"], LABELS)
  assert source.category_ids == (0, 1, 2)


@pytest.mark.parametrize(
  "ids", [{7: 0, 300: 1, 9: 2, 0: -1}, {"7": "sky", "300": 1, "9": 2, "0": -1}]
)
def test_sixteen_bits_with_a_table(root, ids):
  values = np.array([7, 300, 9, 0], np.uint16)[np.minimum(VALUES, 3)]
  for name in ("a", "b"):
    mask(root / f"masks/{name}.png", values)
  source = opened(root, ids=ids)
  np.testing.assert_array_equal(source[0]["label_map"], LABELS)
  assert source.category_ids == (7, 300, 9)
  assert "has 16 bits a pixel. Say what its numbers mean: `ids`" in error_of(root)


def test_sixteen_bits_of_instances(root):
  for name in ("a", "b"):
    mask(root / f"masks/{name}.png", VALUES.astype(np.uint16) * 256 + np.arange(4, dtype=np.uint16))
  np.testing.assert_array_equal(opened(root, divisor=256)[0]["label_map"], LABELS)


RECORDS = [
  {"id": 4, "name": "car", "color": [70, 70, 70]},
  {"id": 7, "name": "sky", "color": [128, 64, 128]},
  {"id": 5, "name": "dirt", "color": [1, 2, 3]},
]


@pytest.mark.parametrize(
  ("name", "text"),
  [
    ("c.json", json.dumps(RECORDS)),
    (
      "c.json",
      json.dumps({"labels": [{**r, "readable": r["name"], "name": "x"} for r in RECORDS]}),
    ),
    ("c.csv", "id,name,r,g,b\n4,car,70,70,70\n7, sky, 128,64,128\n5,dirt,1,2,3\n"),
    ("c.csv", '\ufeffID,Name,Color\n4,car,"70, 70, 70"\n7,sky,#804080\n5,dirt,#010203\n'),
  ],
)
def test_a_file_of_classes(root, name, text):
  (root / name).write_text(text)
  mask(root / "masks/a.png", np.array([[4, 7, 5, 255]] * 2, np.uint8))
  mask(root / "masks/b.png", np.array([[[70, 70, 70], [128, 64, 128], [1, 2, 3]]] * 2, np.uint8))
  photo(root / "images/b.jpg", size=(3, 2))
  source = opened(root, classes=name, ignore=("dirt", 255))
  assert source.classes == ("car", "sky") and source.category_ids == (4, 7)
  np.testing.assert_array_equal(source[0]["label_map"], [[0, 1, IGNORE, IGNORE]] * 2)
  np.testing.assert_array_equal(source[1]["label_map"], [[0, 1, IGNORE]] * 2)


def test_a_file_of_names(root):
  (root / "names.txt").write_text("sky\n\n tree \ncar\n")
  assert opened(root, classes="names.txt").classes == NAMES
  (root / "colors.txt").write_text("128 64 128\tsky\n0 0 142\t\ttree\n70 70 70 big car\n")
  painted = np.concatenate([COLORS, COLORS])[np.minimum(VALUES, 2)]
  for name in ("a", "b"):
    mask(root / f"masks/{name}.png", painted)
  source = opened(root, classes="colors.txt")
  assert source.classes == ("sky", "tree", "big car")
  np.testing.assert_array_equal(source[0]["label_map"], np.minimum(VALUES, 2))


def test_suffixes_lists_and_one_folder_for_both(tmp_path):
  for name in ("a", "deep/b", "c"):
    photo(tmp_path / f"{name}.jpg")
    mask(tmp_path / f"{name}.png")
    mask(tmp_path / f"{name}_mask.png")
  both = {"images": "", "masks": ""}
  with pytest.raises(UsageError, match="`images` is empty"):
    opened(tmp_path, **both)
  both = {"images": ".", "masks": "."}
  assert opened(tmp_path, **both, image_suffix=".jpg", mask_suffix="_mask.png").names == (
    "a", "c", "deep/b",
  )  # fmt: skip
  (tmp_path / "list.txt").write_text("deep/b\n./c.jpg\nc\n")
  source = opened(tmp_path, **both, image_suffix=".jpg", listed="list.txt")
  assert source.names == ("deep/b", "c")
  for name in ("a", "deep/b", "c"):
    (tmp_path / f"{name}_mask.png").unlink()
  assert opened(tmp_path, **both).names == ("a", "c", "deep/b")
  (tmp_path / "c.png").rename(tmp_path / "mask_c.png")
  text = error_of(tmp_path, **both, mask_suffix="mask_{}.png")
  assert "files of one name (2)" in text and "'deep/b.jpg', 'deep/b.png'" in text
  for name in ("a", "deep/b"):
    (tmp_path / f"{name}.png").unlink()
  (tmp_path / "list.txt").write_text("c.jpg")
  source = opened(tmp_path, **both, listed="list.txt", mask_suffix="mask_{}.png")
  assert source.names == ("c",)
  (tmp_path / "list.txt").write_text("c\nnowhere")
  text = error_of(tmp_path, **both, listed="list.txt", mask_suffix="mask_{}.png")
  assert "without an image (1)" in text and "'nowhere'" in text


def test_unlabeled_images_of_a_set_to_adapt_to(root):
  (root / "masks/a.png").unlink()
  assert "images without a mask (1). Add the masks" in error_of(root)
  source = opened(root, unlabeled=True)
  assert len(source) == 2 and (source[0]["label_map"] == IGNORE).all()
  np.testing.assert_array_equal(source[1]["label_map"], LABELS)
  assert source.pixel_counts().tolist() == [2, 2, 3]
  alone = opened(root, masks="", unlabeled=True)
  assert len(alone) == 2 and alone.pixel_counts().tolist() == [0, 0, 0]
  with pytest.raises(UsageError, match="`masks` is empty"):
    opened(root, masks="")


def test_all_that_is_wrong_is_told_at_once(root):
  """One line for each kind, each with the file and a mend."""
  for name in ("big", "color", "deep", "wide", "above", "broken", "alone", "jpeg", "alpha"):
    photo(root / f"images/{name}.png")
  mask(root / "masks/big.png", np.zeros((2, 5), np.uint8))
  mask(root / "masks/color.png", np.zeros((2, 4, 3), np.uint8))
  mask(root / "masks/deep.png", np.zeros((2, 4), np.uint16))
  few = np.full((2, 4), 3, np.uint8)
  mask(root / "masks/above.png", few + np.arange(4, dtype=np.uint8))
  (root / "masks/broken.png").write_bytes(b"no picture")
  (root / "masks/wide.png").write_bytes(b"")
  Image.fromarray(few).save(root / "masks/jpeg.png", format="JPEG")
  Image.fromarray(few).convert("LA").save(root / "masks/alpha.png")
  mask(root / "masks/nobody.png")
  text = error_of(root)
  for told in (
    "images without a mask (1)",
    "masks without an image (1)",
    "nobody.png",
    "alone.png",
  ):
    assert told in text
  (root / "masks/nobody.png").unlink()
  (root / "images/alone.png").unlink()
  text = error_of(root)
  assert str(root / "images") in text.splitlines()[0]
  lines = text.splitlines()[1:]
  for told, file in (
    ("masks of another size than their image (1). Resize masks with nearest", "big.png"),
    ("is a picture in colors. Give `colors`", "color.png"),
    ("has 16 bits a pixel", "deep.png"),
    ("masks with numbers or colors that stand for no class (1). List them in `classes`", "above"),
    ("is not an image, or damaged", "broken.png"),
    ("is empty (0 bytes)", "wide.png"),
    ("is no PNG file", "jpeg.png"),
    ("has gray values and transparency", "alpha.png"),
  ):
    assert told in text and any(file in line for line in lines), told
  assert "above.png' (3, 4, 5, 6)" in text and "is 5 x 2, " in text
  with pytest.raises(DataError, match=r"above\.png': masks with numbers.*: 3, 4, 5, 6\. List them"):
    opened(root, check_images=False, check_masks=0).pixel_counts()


def test_a_mask_that_claims_more_pixels_than_its_image_is_not_decoded(root, monkeypatch):
  first = sorted((root / "masks").glob("*.png"))[0]
  Image.new("L", (300, 200)).save(first)
  read, read_mask = [], label_masks.read_mask

  def noted(path, *args):
    read.append(pathlib.Path(path).name)
    return read_mask(path, *args)

  monkeypatch.setattr(label_masks, "read_mask", noted)
  assert f"{first.name}' is 300 x 200" in error_of(root)
  assert read and first.name not in read


def test_masks_that_are_not_looked_at_are_told_when_they_are_read(root):
  late = {"check_images": False, "check_masks": 0}
  mask(root / "masks/a.png", np.zeros((3, 4), np.uint8))
  mask(root / "masks/b.png", np.zeros((2, 4, 3), np.uint8))
  source = opened(root, **late)
  with pytest.raises(DataError, match=r"a\.png' is 4 x 3, .*a\.jpg' is 4 x 2"):
    source[0]
  with pytest.raises(DataError, match=r"b\.png' is a picture in colors"):
    source[1]


def test_images_without_a_label_are_left_out_and_told(root):
  mask(root / "masks/a.png", np.full((2, 4), 255, np.uint8))
  source = opened(root)
  assert source.names == ("b",) and source[0]["image_id"] == 2
  assert "every pixel is ignored (1). Their images are left out:" in source.warnings[0]
  assert "a.png" in source.warnings[0]
  mask(root / "masks/b.png", np.full((2, 4), 255, np.uint8))
  text = error_of(root)
  assert "sets of masks in which every pixel is ignored (1). Correct `classes`" in text


@pytest.mark.parametrize(
  ("options", "error", "message"),
  [
    ({"masks": "nowhere"}, DataError, "folders that do not exist"),
    ({"image_suffix": ".webp"}, DataError, "folders without an image"),
    ({"classes": ()}, UsageError, "`classes` is empty"),
    ({"classes": ("a", "b", "a")}, UsageError, "has 'a' twice"),
    ({"classes": "nowhere.txt"}, DataError, "nowhere.txt cannot be read"),
    ({"ids": {"7": 3}}, UsageError, "`ids` names the class 3. There are 0 to 2"),
    ({"ids": {"x": 1}}, UsageError, "'x' is no number of a mask"),
    ({"ids": "coco"}, UsageError, "the tables are cityscapes"),
    ({"colors": [[1, 2, 3]]}, UsageError, "lists 1 colors for 3 classes"),
    ({"colors": {"red": 0}}, UsageError, "'red' is no color"),
    ({"colors": {"1, 2, 300": 0}}, UsageError, "no color"),
    ({"ignore": ("nothing",)}, UsageError, "`ignore` has 'nothing'"),
    ({"layout": "kitti"}, UsageError, "there are cityscapes"),
    ({"masks": "{split}"}, UsageError, "`split` is empty"),
  ],
)
def test_settings_that_make_no_sense(root, options, error, message):
  with pytest.raises(error, match=message):
    opened(root, **options)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{}", "lists no classes"),
    ('[{"id": 1}]', "class 0: .* has no `name`"),
    ('[{"name": "a", "id": -1}]', r"class 0 \(a\): -1 is no number"),
    ('[{"name": "a", "color": [1, 2]}]', "is no color"),
    ('[{"name": "a", "id": 1}, {"name": "b"}]', "some have none"),
  ],
)
def test_files_of_classes_that_cannot_be_used(root, text, message):
  (root / "c.json").write_text(text)
  with pytest.raises(DataError, match=message) as error:
    opened(root, classes="c.json")
  assert "c.json" in str(error.value)


def test_two_classes_of_a_file_may_share_a_color_and_no_number(root):
  """Colors are often there for drawing alone."""
  (root / "c.json").write_text(json.dumps([{**r, "color": [1, 2, 3]} for r in RECORDS]))
  for name in ("a", "b"):
    mask(root / f"masks/{name}.png", np.array([[4, 7, 5, 255]] * 2, np.uint8))
  assert opened(root, classes="c.json").pixel_counts().tolist() == [4, 4, 4]
  mask(root / "masks/a.png", np.array([[[1, 2, 3]] * 4] * 2, np.uint8))
  assert "is a picture in colors. Give `colors`" in error_of(root, classes="c.json")
  (root / "c.json").write_text(json.dumps([{**r, "id": 4} for r in RECORDS]))
  with pytest.raises(UsageError, match="has the id of 'car' twice"):
    opened(root, classes="c.json")


def lay_out(root, images, masks, values, palette=False):
  photo(root / images)
  mask(root / masks, values, palette)


CITY = np.array([[7, 8, 33, 0], [34, 11, 9, 7]], np.uint8)
CITY_LABELS = [[0, 1, 18, -1], [-1, 2, -1, 0]]


@pytest.mark.parametrize(
  ("layout", "split", "images", "masks", "values", "labels", "ids"),
  [
    (
      "cityscapes", "train", "leftImg8bit/train/ulm/x_leftImg8bit.png",
      "gtFine/train/ulm/x_gtFine_labelIds.png", CITY, CITY_LABELS, (7, 8, 11),
    ),
    (
      "cityscapes_train_ids", "val", "leftImg8bit/val/ulm/x_leftImg8bit.png",
      "gtFine/val/ulm/x_gtFine_labelTrainIds.png", [[0, 18, 255, 1]] * 2, [[0, 18, -1, 1]] * 2,
      (0, 1, 2),
    ),
    ("camvid", "train", "train/x.png", "trainannot/x.png", [[0, 10, 11, 1]] * 2,
     [[0, 10, -1, 1]] * 2, (0, 1, 2)),
    ("camvid_colors", "", "701_StillsRaw_full/x.png", "LabeledApproved_full/x_L.png",
     [[[128, 128, 128], [0, 0, 0], [64, 0, 64], [192, 0, 192]]] * 2, [[0, -1, 1, 10]] * 2,
     (0, 1, 2)),
    ("ade20k", "val", "images/validation/x.jpg", "annotations/validation/x.png",
     [[0, 1, 150, 2]] * 2, [[-1, 0, 149, 1]] * 2, (1, 2, 3)),
    ("easyportrait", "test", "images/test/x.jpg", "annotations/test/x.png", [[0, 8, 1, 1]] * 2,
     [[0, 8, 1, 1]] * 2, (0, 1, 2)),
  ],
)  # fmt: skip
def test_layouts(tmp_path, layout, split, images, masks, values, labels, ids):
  lay_out(tmp_path, images, masks, np.array(values, np.uint8))
  source = LabelFolder(str(tmp_path), layout=layout, split=split)
  assert len(source) == 1 and source.category_ids[:3] == ids
  np.testing.assert_array_equal(source[0]["label_map"], labels)
  assert len(source.classes) == {"cityscapes": 19, "cityscapes_train_ids": 19, "camvid": 11,
    "camvid_colors": 11, "ade20k": 150, "easyportrait": 9}[layout]  # fmt: skip


def test_real_camvid_is_the_same_in_folders_as_by_its_list(shared_data, tmp_path):
  root = shared_data / "semseg" / "camvid" / "dev"
  listed = CocoLabels(str(root / "val.json"))
  for one in json.loads((root / "val.json").read_text())["images"]:
    for folder, name in (("images", one["file_name"]), ("masks", one["mask"])):
      into = tmp_path / {"images": "val", "masks": "valannot"}[folder] / name
      into.parent.mkdir(exist_ok=True)
      shutil.copy(root / folder / name, into)
  source = LabelFolder(str(tmp_path), layout="camvid", split="val")
  assert len(source) == len(listed) == 101
  words = [["".join(filter(str.isalpha, name.lower())) for name in s.classes]
           for s in (source, listed)]  # fmt: skip
  assert words[0] == words[1]
  assert source.pixel_counts().tolist() == listed.pixel_counts().tolist()
  for place in range(0, 101, 20):
    for what in ("image", "label_map"):
      np.testing.assert_array_equal(source[place][what], listed[place][what])


def test_other_files_of_cityscapes_are_passed_by(tmp_path):
  lay_out(
    tmp_path,
    "leftImg8bit/train/ulm/x_leftImg8bit.png",
    "gtFine/train/ulm/x_gtFine_labelIds.png",
    CITY,
  )
  mask(tmp_path / "gtFine/train/ulm/x_gtFine_color.png", np.zeros((2, 4, 3), np.uint8))
  mask(tmp_path / "gtFine/train/ulm/x_gtFine_instanceIds.png", np.zeros((2, 4), np.uint16))
  source = LabelFolder(str(tmp_path), layout="cityscapes", split="train")
  assert source.names == ("ulm/x",)
  with pytest.raises(UsageError, match="`split` is empty"):
    LabelFolder(str(tmp_path), layout="cityscapes")


def test_voc(tmp_path):
  lay_out(
    tmp_path, "JPEGImages/2007_01.jpg", "SegmentationClass/2007_01.png",
    np.array([[0, 20, 255, 1]] * 2, np.uint8), palette=True,
  )  # fmt: skip
  photo(tmp_path / "JPEGImages/2007_02.jpg")  # for detection alone
  (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
  (tmp_path / "ImageSets/Segmentation/val.txt").write_text("2007_01\n")
  source = LabelFolder(str(tmp_path), layout="voc", split="val")
  assert source.names == ("2007_01",) and len(source.classes) == 21
  np.testing.assert_array_equal(source[0]["label_map"], [[0, 20, -1, 1]] * 2)


@pytest.mark.parametrize("layout", ["vistas", "vistas_instances"])
def test_vistas(tmp_path, layout):
  names = ("Bird", "Ground Animal", "Unlabeled")
  labels = [{"name": "a--b", "readable": n, "color": [i, 0, 0]} for i, n in enumerate(names)]
  (tmp_path / "config_v1.2.json").write_text(json.dumps({"labels": labels, "version": 1.2}))
  values = np.array([[0, 1, 2, 1]] * 2, np.uint8)
  photo(tmp_path / "training/images/x.jpg")
  mask(tmp_path / "training/v1.2/labels/x.png", values, palette=True)
  mask(tmp_path / "training/v1.2/instances/x.png", values.astype(np.uint16) * 256 + 7)
  source = LabelFolder(str(tmp_path), layout=layout, split="train")
  assert source.classes == names[:2]
  np.testing.assert_array_equal(source[0]["label_map"], [[0, 1, -1, 1]] * 2)


def test_every_layout_is_tested():
  tested = {"cityscapes", "cityscapes_train_ids", "camvid", "camvid_colors", "voc", "ade20k"}
  assert set(LAYOUTS) == tested | {"vistas", "vistas_instances", "easyportrait"}


def test_links_may_not_lead_out(root, tmp_path_factory):
  other = tmp_path_factory.mktemp("elsewhere")
  photo(other / "c.jpg")
  (root / "images/c.jpg").symlink_to(other / "c.jpg")
  mask(root / "masks/c.png")
  assert "lead out of the image folder" in error_of(root)
  assert len(opened(root, allow_outside_root=True)) == 3
