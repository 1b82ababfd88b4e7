"""Clean pictures for a task to degrade: gray and in color, cut to a scale, checked for patches."""

import numpy as np
import pytest
from PIL import Image

from rtune.data.source import PairSource, Source
from rtune.data.sources.clean import CleanPictures
from rtune.errors import DataError, UsageError


def picture(height, width, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def pictures(tmp_path):
  Image.fromarray(picture(17, 22)).save(tmp_path / "a.png")
  Image.fromarray(picture(16, 24, 1)[..., 0]).save(tmp_path / "b.png")
  return tmp_path


def test_gray_pictures_stay(pictures):
  source = CleanPictures(str(pictures))
  assert isinstance(source, Source) and not isinstance(source, PairSource)
  assert len(source) == 2 and source.warnings == ()
  np.testing.assert_array_equal(source[0]["image"], picture(17, 22))
  gray = picture(16, 24, 1)[..., :1].repeat(3, axis=2)
  np.testing.assert_array_equal(source[1]["image"], gray)
  assert set(source[1]) == {"image", "image_id"}


def test_odd_sizes_are_cut_to_the_scale_and_told(pictures):
  source = CleanPictures(str(pictures), multiple=4)
  np.testing.assert_array_equal(source[0]["image"], picture(17, 22)[:16, :20])
  assert source[1]["image"].shape == (16, 24, 3)
  (text,) = source.warnings
  assert "no multiple of 4 (1). Cut at the right and below" in text and "a.png' is 22 x 17" in text


def test_small_pictures_are_errors(pictures):
  with pytest.raises(DataError, match="smaller than a patch of 17 x 17 pixels") as error:
    CleanPictures(str(pictures), least_side=17)
  assert "b.png' is 24 x 16" in str(error.value) and "a.png" not in str(error.value)
  Image.fromarray(picture(3, 30)).save(pictures / "thin.png")
  with pytest.raises(DataError, match=r"of 4 x 4 pixels(.|\n)*thin\.png' is 30 x 3"):
    CleanPictures(str(pictures), multiple=4)


def test_one_picture_and_none(pictures):
  (pictures / "b.png").unlink()
  (text,) = CleanPictures(str(pictures)).warnings
  assert "sets of one image" in text and "a.png" in text
  (pictures / "a.png").unlink()
  with pytest.raises(DataError, match=r"sets without a photograph \(1\)"):
    CleanPictures(str(pictures))


def test_deep_color_and_alpha_are_told(pictures):
  Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)).save(pictures / "deep.png")
  Image.fromarray(picture(9, 9)).convert("RGBA").save(pictures / "opaque.png")
  texts = " ".join(CleanPictures(str(pictures)).warnings)
  assert "16 bits a channel (1)" in texts and "deep.png" in texts
  assert "alpha channel (1)" in texts and "opaque.png" in texts
  assert CleanPictures(str(pictures), check_images=False).warnings == ()


def test_unreadable_files_and_settings(pictures):
  (pictures / "c.png").write_bytes(b"no picture at all")
  with pytest.raises(DataError, match=r"c\.png' is not an image"):
    CleanPictures(str(pictures))
  with pytest.raises(UsageError, match="multiple is 0"):
    CleanPictures(str(pictures), multiple=0)
  with pytest.raises(UsageError, match="split is 'test'"):
    CleanPictures(str(pictures), split="test")


@pytest.mark.parametrize(
  ("folder", "count"), [("set12_gray", 12), ("bsd68_gray", 68), ("cbsd68", 68)]
)
def test_benchmarks(shared_data, folder, count):
  source = CleanPictures(str(shared_data / "denoise_sr" / folder / "dev"), least_side=64)
  assert len(source) == count and source.warnings == ()
  image = source[0]["image"]
  assert (np.ptp(image, axis=2) == 0).all() == ("gray" in folder)


def test_pictures_several_times(pictures):
  once, thrice = CleanPictures(str(pictures)), CleanPictures(str(pictures), times=3)
  assert len(thrice) == 6
  ids = [thrice[index]["image_id"] for index in range(6)]
  assert len(set(ids)) == 6 and [image_id % 3 for image_id in ids] == [0, 1, 2, 0, 1, 2]
  for index in range(6):
    np.testing.assert_array_equal(thrice[index]["image"], once[index // 3]["image"])
  with pytest.raises(UsageError, match="times is 0"):
    CleanPictures(str(pictures), times=0)
