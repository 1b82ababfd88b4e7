"""Pairs of pictures as people have them: by name, by pattern, at a scale, and what is wrong."""

import numpy as np
import pytest
from PIL import Image

from rtune.data.source import PairSource
from rtune.data.sources.pairs import Pairs
from rtune.errors import DataError, UsageError


def picture(height, width, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path, pixels):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)


@pytest.fixture
def equal(tmp_path):
  """Three pairs of equal names, of which one is deeper and one is gray."""
  names = ("b.png", "a.png", "deep/7.png")
  for seed, name in enumerate(names):
    for place, kind in enumerate(("noisy", "clean")):
      save(tmp_path / kind / name, picture(20, 30, 10 * place + seed))
  for place, kind in enumerate(("noisy", "clean")):
    save(tmp_path / kind / "gray.png", picture(20, 30, 50 + place)[..., 0])
  return tmp_path


@pytest.fixture
def double(tmp_path):
  """Two pairs at scale 2, one of them with an odd clean picture."""
  for name, size in (("a", (40, 60)), ("b", (41, 61))):
    save(tmp_path / "LR" / f"{name}x2.png", picture(20, 30, ord(name)))
    save(tmp_path / "HR" / f"{name}.png", picture(*size, seed=1))
  return tmp_path


def test_equal_names(equal):
  source = Pairs(str(equal), degraded="noisy", clean="clean")
  assert isinstance(source, PairSource) and source.scale == 1 and source.warnings == ()
  assert [source[i]["image_id"] for i in range(4)] == [1, 2, 3, 7]
  np.testing.assert_array_equal(source[3]["image"], picture(20, 30, 2))
  np.testing.assert_array_equal(source[3]["clean"], picture(20, 30, 12))
  gray = source[2]
  for key, seed in (("image", 50), ("clean", 51)):
    np.testing.assert_array_equal(gray[key], picture(20, 30, seed)[..., :1].repeat(3, axis=2))
  with pytest.raises(IndexError):
    source[4]


def test_endings_may_differ(tmp_path):
  save(tmp_path / "noisy" / "a.jpg", picture(9, 9))
  save(tmp_path / "clean" / "a.png", picture(9, 9, 1))
  assert len(Pairs(str(tmp_path), degraded="noisy", clean="clean")) == 1
  save(tmp_path / "clean" / "a.bmp", picture(9, 9, 2))
  with pytest.raises(DataError, match=r"files of one name \(1\).*`clean_name`") as error:
    Pairs(str(tmp_path), degraded="noisy", clean="clean")
  assert "a.bmp" in str(error.value) and "a.png" in str(error.value)
  source = Pairs(str(tmp_path), degraded="noisy", clean="clean", clean_name="{}.png")
  np.testing.assert_array_equal(source[0]["clean"], picture(9, 9, 1))


def test_both_in_one_folder(tmp_path):
  for name, seed in (("1.png", 1), ("1_noisy.png", 2), ("2.png", 3), ("2_noisy.png", 4)):
    save(tmp_path / name, picture(8, 8, seed))
  source = Pairs(degraded=str(tmp_path), clean=str(tmp_path), degraded_name="{}_noisy")
  assert [source[i]["image_id"] for i in range(len(source))] == [1, 2]
  np.testing.assert_array_equal(source[1]["image"], picture(8, 8, 4))
  np.testing.assert_array_equal(source[1]["clean"], picture(8, 8, 3))


def test_one_folder_in_the_other(tmp_path):
  save(tmp_path / "a.png", picture(8, 8))
  save(tmp_path / "noisy" / "a.png", picture(8, 8, 1))
  assert len(Pairs(degraded=str(tmp_path / "noisy"), clean=str(tmp_path))) == 1


@pytest.mark.parametrize(
  ("layout", "degraded", "clean", "settings"),
  [
    ("polyu", "CroppedImages/Sony_1_real.png", "CroppedImages/Sony_1_mean.png", {}),
    ("sidd", "Data/0001_S6/0001_NOISY_SRGB_010.PNG", "Data/0001_S6/0001_GT_SRGB_010.PNG", {}),
    ("sidd", "Data/0001_S6/NOISY_SRGB_010.PNG", "Data/0001_S6/GT_SRGB_010.PNG", {}),
    ("sr_benchmark", "LR_bicubic/X3/babyx3.png", "HR/baby.png", {"scale": 3}),
    (
      "div2k",
      "DIV2K_valid_LR_bicubic/X2/0801x2.png",
      "DIV2K_valid_HR/0801.png",
      {"scale": 2, "split": "val"},
    ),
  ],
)
def test_known_layouts(tmp_path, layout, degraded, clean, settings):
  scale = settings.get("scale", 1)
  save(tmp_path / degraded, picture(7, 9))
  save(tmp_path / clean, picture(7 * scale, 9 * scale, 1))
  source = Pairs(str(tmp_path), layout=layout, **settings)
  example = source[0]
  np.testing.assert_array_equal(example["image"], picture(7, 9))
  np.testing.assert_array_equal(example["clean"], picture(7 * scale, 9 * scale, 1))
  assert source.scale == scale and len(source) == 1
  assert "sets of one image (1). It will be learned by heart" in source.warnings[0]


def test_clean_pictures_are_cut_to_the_scale(double):
  source = Pairs(str(double), degraded="LR", clean="HR", degraded_name="{}x2", scale=2)
  assert [source[i]["clean"].shape for i in range(2)] == [(40, 60, 3)] * 2
  np.testing.assert_array_equal(source[1]["clean"], picture(41, 61, 1)[:40, :60])
  (text,) = source.warnings
  assert "no multiple of 2 (1). Cut at the right and below" in text and "b.png' is 61 x 41" in text


def test_another_scale_is_an_error_that_names_the_files(double):
  for scale in (1, 3, 4):
    settings = {"degraded": "LR", "clean": "HR", "degraded_name": "{}x2", "scale": scale}
    with pytest.raises(DataError, match=r"\(2\)\. .*`?scale`?") as error:
      Pairs(str(double), **settings)
    assert "ax2.png' is 30 x 20" in str(error.value) and "a.png' is 60 x 40" in str(error.value)
    late = Pairs(str(double), **settings, check_images=False)
    with pytest.raises(DataError, match=f"a.png' is 60 x 40, not {scale} times"):
      late[0]


def test_sizes_of_equal_pairs(equal):
  save(equal / "clean" / "a.png", picture(20, 31))
  with pytest.raises(DataError, match="pairs of different sizes") as error:
    Pairs(str(equal), degraded="noisy", clean="clean")
  assert "'a.png'" not in str(error.value) and "noisy/a.png' is 30 x 20" in str(error.value)
  assert "clean/a.png' is 31 x 20" in str(error.value)


def test_what_lacks_its_other_half(equal):
  (equal / "clean" / "a.png").unlink()
  (equal / "noisy" / "deep" / "7.png").unlink()
  with pytest.raises(DataError) as error:
    Pairs(str(equal), degraded="noisy", clean="clean")
  text = str(error.value)
  assert "degraded images without a clean one (1)" in text and "noisy/a.png" in text
  assert "clean images without a degraded one (1)" in text and "clean/deep/7.png" in text
  (equal / "list.txt").write_text("b.png\ngray\n")
  assert len(Pairs(str(equal), degraded="noisy", clean="clean", listed="list.txt")) == 2
  (equal / "list.txt").write_text("b.png\nc.png\n")
  with pytest.raises(DataError, match=r"list\.txt without an image \(1\)") as error:
    Pairs(str(equal), degraded="noisy", clean="clean", listed="list.txt")
  assert "'c.png'" in str(error.value)


def test_images_smaller_than_a_patch(equal):
  save(equal / "noisy" / "a.png", picture(12, 40))
  save(equal / "clean" / "a.png", picture(12, 40))
  with pytest.raises(DataError, match="smaller than a patch of 16 x 16 pixels") as error:
    Pairs(str(equal), degraded="noisy", clean="clean", least_side=16)
  assert "noisy/a.png' is 40 x 12" in str(error.value) and "b.png" not in str(error.value)
  assert len(Pairs(str(equal), degraded="noisy", clean="clean", least_side=12)) == 4


def test_deep_and_transparent_files_are_told(equal):
  deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
  Image.fromarray(deep).save(equal / "clean" / "a.png")
  alpha = np.dstack([picture(20, 30), np.zeros((20, 30), np.uint8)])
  Image.fromarray(alpha, "RGBA").save(equal / "noisy" / "b.png")
  source = Pairs(str(equal), degraded="noisy", clean="clean")
  texts = sorted(source.warnings)
  assert "alpha channel (1). Put on white" in texts[1] and "noisy/b.png" in texts[1]
  assert "16 bits a channel (1). Read as 8 bits" in texts[0] and "clean/a.png" in texts[0]
  expected = np.rint(deep / np.float64(257))
  np.testing.assert_array_equal(source[0]["clean"], expected[..., None].repeat(3, axis=2))
  np.testing.assert_array_equal(source[1]["image"], 255)


def test_files_that_cannot_be_read(equal):
  (equal / "clean" / "a.png").write_bytes(b"")
  with pytest.raises(DataError, match=r"clean/a\.png' is empty"):
    Pairs(str(equal), degraded="noisy", clean="clean")


def test_splits_part_the_pairs_and_ids_stay(tmp_path):
  for number in range(30):
    for kind in ("noisy", "clean"):
      save(tmp_path / kind / f"{number}.png", picture(4, 4))
  parts = [
    Pairs(str(tmp_path), degraded="noisy", clean="clean", split=split, holdout=0.3)
    for split in ("train", "val")
  ]
  ids = [{part[i]["image_id"] for i in range(len(part))} for part in parts]
  assert ids[0] | ids[1] == set(range(30)) and not ids[0] & ids[1] and 3 <= len(ids[1]) <= 15
  message = r"sets without a pair \(1\).*`holdout`.*\n.*val split of 30 pairs"
  with pytest.raises(DataError, match=message):
    Pairs(str(tmp_path), degraded="noisy", clean="clean", split="val", holdout=1e-9)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({}, "`degraded` is empty; name the folder, or a `layout`"),
    ({"layout": "set5"}, "layout is 'set5'; there are polyu, sidd"),
    ({"layout": "div2k"}, "`split` is empty"),
    ({"degraded": "noisy", "clean": "noisy"}, "are the same files"),
    ({"degraded": "noisy", "clean": "clean", "clean_name": "clean"}, "write {} for what both"),
    ({"degraded": "noisy", "clean": "clean", "clean_name": "{}_{}"}, "as many {} each"),
    ({"degraded": "noisy", "clean": "clean", "scale": 0}, "scale is 0"),
    ({"degraded": "noisy", "clean": "clean", "split": "test"}, "split is 'test'"),
  ],
)
def test_settings_that_make_no_sense(equal, settings, message):
  with pytest.raises(UsageError, match=message):
    Pairs(str(equal), **settings)


def test_folders_without_pictures(tmp_path):
  (tmp_path / "noisy").mkdir()
  with pytest.raises(DataError, match="folders that do not exist") as error:
    Pairs(str(tmp_path), degraded="noisy", clean="clean")
  assert "clean'" in str(error.value) and "noisy'" not in str(error.value).split("\n", 1)[1]
  (tmp_path / "clean").mkdir()
  with pytest.raises(DataError, match="sets without a pair"):
    Pairs(str(tmp_path), degraded="noisy", clean="clean")


def test_real_pairs(shared_data):
  real = Pairs(str(shared_data / "denoise_sr/polyu_real/dev"), degraded="noisy", clean="clean")
  assert len(real) == 72 and real.warnings == ()
  example = real[0]
  assert example["image"].shape == example["clean"].shape == (512, 512, 3)
  off = example["image"].astype(float) - example["clean"]
  assert 0 < np.abs(off).mean() < 20
  for scale, cut in ((2, 0), (3, 4), (4, 0)):
    root = str(shared_data / "denoise_sr/set5/dev")
    source = Pairs(root, layout="sr_benchmark", scale=scale)
    assert len(source) == 5
    assert len(source.warnings) == (cut > 0) and all(f"({cut})" in w for w in source.warnings)
