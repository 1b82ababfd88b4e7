"""Every corruption has the moments that a closed form says, follows from its generator, and checks
its strengths."""

import functools
import math

import numpy as np
import pytest

from rtune.data import corrupt
from rtune.data.resize import bicubic
from rtune.errors import DataError, UsageError

SIDE = 256
RANDOM = {
  "gaussian": functools.partial(corrupt.gaussian, sigma=(5, 50)),
  "poisson": functools.partial(corrupt.poisson, peak=(5, 50)),
  "blur": functools.partial(corrupt.blur, width=(0.5, 2)),
  "jpeg": functools.partial(corrupt.jpeg, quality=(10, 60)),
  "mixed": corrupt.mixed,
}


def flat(value, side=SIDE, channels=1):
  return np.full((side, side, channels), value, np.float32)


def noise(seed=0, height=40, width=50, channels=3):
  return np.random.default_rng(seed).random((height, width, channels), np.float32)


def rng(seed=0):
  return np.random.default_rng(seed)


def assert_moments(values, mean, variance):
  """Mean and variance within four standard errors, of nearly normal numbers."""
  assert abs(values.mean() - mean) < 4 * math.sqrt(variance / values.size)
  assert abs(values.var() - variance) < 4 * variance * math.sqrt(2.5 / values.size)


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_random_follows_from_the_generator(name, channels):
  image = noise(channels=channels)
  before = image.copy()
  results = [corrupt.as_noisy(RANDOM[name](image, rng(seed))) for seed in (1, 1, 2)]
  assert all(r.image.shape == image.shape and r.image.dtype == np.float32 for r in results)
  np.testing.assert_array_equal(results[0].image, results[1].image)
  assert results[0].level == results[1].level
  assert np.abs(results[0].image - results[2].image).max() > 1e-3
  np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("sigma", [5, 25.0, 50])
def test_gaussian(sigma):
  for value in (0.0, 0.5):  # nothing is clipped
    image, level = corrupt.gaussian(flat(value), rng(), sigma=sigma)
    assert_moments((image - value).astype(np.float64), 0, (sigma / 255) ** 2)
    assert level == sigma / 255
  assert abs(np.mean(image[1:] * image[:-1]) - 0.25) < 0.005  # neighbors know nothing of each other


def test_a_range_is_drawn_from_evenly():
  source = rng()
  levels = [corrupt.gaussian(flat(0.5, 4), source, sigma=(5, 50)).level * 255 for _ in range(2000)]
  assert 5 <= min(levels) < 6 and 49 < max(levels) <= 50
  assert_moments(np.array(levels), 27.5, 45**2 / 12)
  image, level = corrupt.gaussian(flat(0.5), rng(3), sigma=(5, 50))
  assert image.std() == pytest.approx(level, rel=0.02)  # the level is that of the picture
  np.testing.assert_array_equal(corrupt.gaussian(flat(0.5, 8), rng(), sigma=0).image, 0.5)


@pytest.mark.parametrize(("value", "peak"), [(0.2, 20), (0.5, 30.0), (1.0, 100)])
def test_poisson(value, peak):
  image, level = corrupt.poisson(flat(value), rng(), peak=peak)
  values = image.astype(np.float64)
  variance = value / peak
  assert_moments(values, value, variance)
  assert level == pytest.approx(math.sqrt(variance), rel=1e-6)
  third = np.mean((values - values.mean()) ** 3)
  spread = math.sqrt(15 * variance**3 / values.size)
  assert abs(third - value / peak**2) < 5 * spread
  np.testing.assert_allclose(np.rint(values * peak), values * peak, atol=1e-4)  # photons are whole


def test_poisson_of_black_and_below_is_black():
  image, level = corrupt.poisson(flat(-0.1, 8), rng(), peak=30)
  assert not image.any() and level == 0


@pytest.mark.parametrize("width", [1.0, 1.6, 3])
def test_blur(width):
  point = flat(0, 65)
  point[32, 32] = 1
  seen = corrupt.blur(point, rng(), width=width)[..., 0].astype(np.float64)
  place = np.arange(65) - 32
  assert seen.sum() == pytest.approx(1, abs=1e-5)
  assert (seen.sum(axis=0) * place**2).sum() == pytest.approx(width**2, rel=5e-3)
  assert (seen.sum(axis=1) * place).sum() == pytest.approx(0, abs=1e-4)
  # Of white noise 1 / (4 pi width^2) of the variance is left.
  white = rng().standard_normal((512, 512, 1), np.float32)
  left = corrupt.blur(white, rng(), width=width)[20:-20, 20:-20].var()
  assert left == pytest.approx(1 / (4 * math.pi * width**2), rel=0.04)
  np.testing.assert_allclose(corrupt.blur(flat(0.3, 20), rng(), width=width), 0.3, atol=1e-6)


@pytest.mark.parametrize("quality", [5, 30, 80])
def test_jpeg_rounds_the_mean_of_a_block_as_its_table_says(quality):
  scale = 5000 // quality if quality < 50 else 200 - 2 * quality
  step = (16 * scale + 50) // 100  # of the first coefficient, 8 times the mean
  for level in (3, 77, 128, 200):
    mean = 128 + np.rint(8 * (level - 128) / step) * step / 8
    seen = corrupt.jpeg(flat(level / 255, 16), rng(), quality=quality) * 255
    np.testing.assert_allclose(seen, np.clip(mean, 0, 255), atol=0.51)


def test_jpeg_of_color_and_of_what_is_no_color():
  image = bicubic(noise(height=6, width=8), 48, 64, "pillow").clip(0, 1)
  offs = [np.abs(corrupt.jpeg(image, rng(), quality=q) - image).mean() for q in (5, 30, 95)]
  assert offs[0] > offs[1] > offs[2] and offs[2] < 0.01
  clipped = corrupt.jpeg(3 * image - 1, rng(), quality=95)
  assert clipped.min() >= 0 and clipped.max() <= 1


def test_eight_bits():
  image = np.array([-0.2, 0, 0.4 / 255, 0.6 / 255, 0.5, 1.3], np.float32).reshape(1, 6, 1)
  seen = corrupt.eight_bits(image, rng()).ravel() * 255
  np.testing.assert_allclose(seen, [0, 0, 0, 1, 128, 255], atol=1e-4)


def nearest(height, width, points):
  """Which point each pixel is nearest to, one after the other."""
  distance = [
    [[(y - p * height) ** 2 + (x - q * width) ** 2 for p, q in points] for x in range(width)]
    for y in range(height)
  ]
  return np.argmin(distance, axis=-1)


def test_mixed_gives_each_region_its_own_noise():
  image, level = corrupt.mixed(
    flat(0.5, 128), rng(5), regions=4, kinds=("gaussian", "poisson"), sigma=(5, 80), peak=(5, 60)
  )
  owner = nearest(128, 128, rng(5).random((4, 2)))
  parts = [(image[owner == region] - 0.5).astype(np.float64) for region in range(4)]
  spreads = [part.std() for part in parts]
  assert all(abs(p.mean()) < 4 * s / math.sqrt(p.size) for p, s in zip(parts, spreads, strict=True))
  assert max(spreads) > 1.5 * min(spreads)
  total = sum(part.size * part.var() for part in parts) / owner.size
  assert level == pytest.approx(math.sqrt(total), rel=0.03)
  # Within a region noise is one: its halves agree.
  for part in parts:
    halves = part[: part.size // 2].std(), part[part.size // 2 :].std()
    assert halves[0] == pytest.approx(halves[1], rel=0.15)


@pytest.mark.parametrize("width", [0.7, 5.0])
def test_mixed_has_no_seams_where_all_regions_are_alike(width):
  image = noise(height=90, width=70)
  mixed = corrupt.mixed(image, rng(), regions=5, kinds=("blur",), width=width)
  np.testing.assert_allclose(mixed.image, corrupt.blur(image, rng(), width=width), atol=1e-6)
  assert mixed.level == 0


def test_mixed_uses_all_kinds():
  image = flat(0.3, 96, 3)
  seen = [corrupt.mixed(image, rng(seed), regions=3).image for seed in range(30)]
  assert np.mean([(np.abs(s - 0.3) < 0.004).mean() for s in seen]) == pytest.approx(0.5, abs=0.15)


def test_scaling_down_and_up():
  image = corrupt.eight_bits(noise(height=24, width=36), rng())
  for kind in ("matlab", "pillow"):
    for scale in (2, 3, 4):
      small = corrupt.bicubic(image, rng(), scale=scale, kind=kind)
      expected = bicubic(np.rint(image * 255), 24 // scale, 36 // scale, kind, rounded=True)
      np.testing.assert_array_equal(np.rint(small * 255), expected)
      large = corrupt.enlarge(image, rng(), scale=scale, kind=kind, rounded=False)
      np.testing.assert_array_equal(large, bicubic(image, 24 * scale, 36 * scale, kind))
  with pytest.raises(DataError, match="36 x 24, no multiple of the scale 5"):
    corrupt.bicubic(image, rng(), scale=5)


def test_files_of_set5_are_made_of_their_pictures(shared_data):
  from rtune.data.sources.pairs import Pairs

  for scale in (2, 4):
    root = str(shared_data / "denoise_sr" / "set5" / "dev")
    example = Pairs(root, layout="sr_benchmark", scale=scale)[2]
    clean = example["clean"] / np.float32(255)
    small = corrupt.bicubic(clean, rng(), scale=scale, kind="matlab")
    np.testing.assert_array_equal(np.rint(small * 255), example["image"])


@pytest.mark.parametrize(
  ("name", "args", "message"),
  [
    ("gaussian", {"sigma": -5}, r"gaussian: sigma is -5; .* from 0 to 1000"),
    ("gaussian", {"sigma": (50, 5)}, r"sigma is \(50, 5\)"),
    ("gaussian", {"sigma": (5, 10, 50)}, r"\(low, high\)"),
    ("gaussian", {"sigma": float("nan")}, "sigma is nan"),
    ("poisson", {"peak": 0}, "peak is 0"),
    ("blur", {"width": -1.0}, "width is -1"),
    ("jpeg", {"quality": 0}, "quality is 0"),
    ("mixed", {"regions": 0}, "regions is 0"),
    ("mixed", {"kinds": ("gauss",)}, r"kinds is \('gauss',\); choose from gaussian"),
    ("mixed", {"width": (1, 9)}, "mixed: width"),
    ("bicubic", {"scale": 0}, "scale is 0"),
    ("bicubic", {"scale": 2, "kind": "opencv"}, "kind is 'opencv'"),
    ("enlarge", {"scale": 40}, "scale is 40"),
  ],
)
def test_strengths_are_checked(name, args, message):
  with pytest.raises(UsageError, match=message):
    getattr(corrupt, name)(noise(), rng(), **args)
