"""Measures of color against their formulas, scikit-image, and cases worked out by hand."""

import math
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2hsv, rgb2lab
from skimage.metrics import peak_signal_noise_ratio

from rtune.errors import DataError
from rtune.metrics import pixels as metric
from rtune.predictions.pixels import Pixels
from rtune.rewards.pixels import colorfulness as reward

pytestmark = pytest.mark.usefixtures("quick_compiles")

# One color of each of the seven sectors of hue, in their order from -180 degrees on.
HUES = ((30, 170, 190), (60, 150, 230), (60, 90, 220), (220, 40, 90), (220, 100, 50),
        (190, 160, 40), (20, 160, 100))  # fmt: skip


def blobs(seed, colors=4, size=48):
  """Smooth patches of random color, many of them nearly gray."""
  rng = np.random.default_rng(seed)
  gray = rng.integers(20, 236, (colors, colors, 1))
  cells = np.clip(gray + rng.normal(0, 20, (colors, colors, 3)), 0, 255).astype(np.uint8)
  return np.asarray(Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC))


def by_loop(picture):
  """(vivid, hue_entropy) pixel by pixel, of scikit-image's Lab."""
  counts, vivid = [0] * 7, 0
  for _, a, b in rgb2lab(picture).reshape(-1, 3):
    if a**2 + b**2 > 10:
      vivid += 1
      counts[int((math.degrees(math.atan2(b, a)) + 180) // (360 / 7)) % 7] += 1
  shares = [count / vivid for count in counts if count]
  return vivid / (picture.size // 3), -sum(share * math.log(share) for share in shares)


def flat(*rgb):
  return np.full((4, 6, 3), rgb, np.uint8)


def random_picture(seed):
  return np.random.default_rng(seed).integers(0, 256, (9, 11, 3)).astype(np.uint8)


def one(picture, original, image_id=3):
  return {"image_id": image_id, "picture": picture, "original": original}, {"image_id": image_id}


def compute(*pairs):
  made = metric.coloring()
  state = made.init()
  for pair in pairs:
    state = made.update(state, *pair)
  return made.compute(state), made.results(state)


def test_the_metric_does_not_use_what_it_checks():
  code = "import sys, rtune.metrics.pixels; print([n for n in sys.modules if 'rtune.rewards' in n])"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("seed", range(8))
def test_colorfulness_is_that_of_the_reward(seed):
  # The reward's float32 puts one or two of 40,000 pixels on the other side of a border.
  for picture, error in (
    (random_picture(seed), 1e-5),
    (blobs(seed), 1e-5),
    (blobs(seed, 12, 200), 1e-4),
  ):
    pixels = Pixels(jnp.asarray(picture, jnp.float32) / 255)
    parts = reward(pixels, pixels)
    wanted = {name: float(parts[name]) for name in ("vivid", "hue_entropy")}
    wanted["colorfulness"] = float(parts["reward"])
    assert metric.colorfulness(picture) == pytest.approx(wanted, abs=error)


@pytest.mark.parametrize("picture", [random_picture(0), blobs(1, 4, 16), blobs(2, 8, 24)])
def test_colorfulness_is_that_of_scikit_images_lab_by_loop(picture):
  vivid, entropy = by_loop(picture)
  wanted = {"colorfulness": vivid * entropy, "vivid": vivid, "hue_entropy": entropy}
  assert metric.colorfulness(picture) == pytest.approx(wanted, abs=1e-12)


def test_gray_has_no_color():
  ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=-1)
  for picture in (ramp, flat(0, 0, 0), flat(255, 255, 255)):
    nothing = {"colorfulness": 0, "vivid": 0, "hue_entropy": 0}
    assert metric.colorfulness(picture) == nothing


@pytest.mark.parametrize("hues", range(1, 8))
def test_so_many_hues_of_equal_shares(hues):
  picture = np.array([HUES[:hues], [(90, 90, 90)] * hues], np.uint8)  # half of it is gray
  values = metric.colorfulness(picture)
  assert values["vivid"] == 0.5
  assert values["hue_entropy"] == pytest.approx(math.log(hues), abs=1e-12)
  assert values["colorfulness"] == pytest.approx(math.log(hues) / 2, abs=1e-12)
  doubled = np.concatenate([picture, picture[:, :1]], axis=1)
  shares = np.array([2, *[1] * (hues - 1)]) / (hues + 1)
  wanted = -(shares * np.log(shares)).sum()
  assert metric.colorfulness(doubled)["hue_entropy"] == pytest.approx(wanted, abs=1e-12)


def test_hues_of_one_sector_are_one():
  assert metric.colorfulness(np.array([[HUES[0], (40, 180, 200)]], np.uint8))["hue_entropy"] == 0


def test_hasler_and_susstrunk_by_hand():
  assert metric.hasler_susstrunk(flat(70, 70, 70)) == 0
  # rg = 200, yb = 100 everywhere: no spread.
  assert metric.hasler_susstrunk(flat(200, 0, 0)) == pytest.approx(0.3 * math.hypot(200, 100))
  # Half red (rg 255, yb 127.5), half blue (rg 0, yb -255): means 127.5 and -63.75, deviations
  # 127.5 and 191.25.
  half = flat(255, 0, 0)
  half[:2] = (0, 0, 255)
  wanted = math.hypot(127.5, 191.25) + 0.3 * math.hypot(127.5, 63.75)
  assert metric.hasler_susstrunk(half) == pytest.approx(wanted)
  # Half red, half green: rg is 255 and -255, yb 127.5 in both.
  half[:2] = (0, 255, 0)
  assert metric.hasler_susstrunk(half) == pytest.approx(255 + 0.3 * 127.5)


def test_psnr_is_that_of_scikit_image():
  picture, original = random_picture(0), random_picture(1)
  assert metric.psnr(picture, original) == pytest.approx(peak_signal_noise_ratio(original, picture))
  assert metric.psnr(flat(10, 10, 10), flat(20, 20, 20)) == pytest.approx(10 * math.log10(650.25))
  assert metric.psnr(picture, picture) == 100


def test_saturation_is_that_of_hsv():
  picture = random_picture(2)
  picture[0, 0] = 0
  assert metric.saturation(picture) == pytest.approx(rgb2hsv(picture)[..., 1].mean())


def test_values_are_means_over_images():
  first, second = (random_picture(0), random_picture(1)), (flat(200, 40, 40), flat(50, 50, 50))
  both, results = compute(one(*first, 3), one(*second, 4))
  alone = [compute(one(*pair))[0] for pair in (first, second)]
  assert both == pytest.approx({k: (alone[0][k] + alone[1][k]) / 2 for k in both})
  assert list(both)[:3] == ["colorfulness", "hasler_susstrunk", "PSNR"]
  off = np.abs(rgb2lab(first[0])[..., 0] - rgb2lab(first[1])[..., 0]).mean()
  assert alone[0]["lightness_error"] == pytest.approx(off, abs=1e-3)
  assert alone[1]["vivid"] == 1 and alone[1]["colorfulness"] == alone[1]["hue_entropy"] == 0
  assert [r["image_id"] for r in results] == [3, 4]
  assert results[1]["hasler_susstrunk"] == alone[1]["hasler_susstrunk"]
  assert set(results[0]) == {"image_id", "colorfulness", "hasler_susstrunk", "saturation"}


def test_a_picture_that_is_its_original():
  picture = random_picture(5)
  values, _ = compute(one(picture, picture))
  assert values["PSNR"] == 100 and values["lightness_error"] == 0
  assert values["colorfulness"] == pytest.approx(values["vivid"] * values["hue_entropy"])


def test_what_cannot_be_scored():
  picture = random_picture(0)
  made = metric.coloring()
  with pytest.raises(DataError, match=r"of image 3, the truth of 4"):
    made.update(made.init(), one(picture, picture)[0], {"image_id": 4})
  with pytest.raises(DataError, match="image 3 is"):
    made.update(made.init(), *one(picture, picture[:4]))
  with pytest.raises(DataError, match="image 3 was scored more than once"):
    compute(one(picture, picture), one(picture, picture))
  with pytest.raises(DataError, match="no images"):
    compute()
