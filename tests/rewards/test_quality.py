"""Rewards of restored pictures against scikit-image, formulas by loop, and finite differences.

Their credit by block is checked by what it must sum to, and by what a change in one block does.
"""

import functools
import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rtune.data import resize
from rtune.errors import UsageError
from rtune.predictions import images
from rtune.predictions.images import Original, Picture
from rtune.rewards import blind, codec, quality, structure
from rtune.rewards.by_block import Term, judged
from rtune.rewards.mark import host_options

pytestmark = pytest.mark.usefixtures("quick_compiles")

LOW = 4  # the scale of `consistency` here


SIDES_OF_8 = (6, 8)  # blocks of 8 x 8 in the pictures of `pair`


def pair(height=48, width=64, channels=3, noise=0.1, seed=0):
  """A noisy picture of waves, and the waves."""
  rng = np.random.default_rng(seed)
  y, x, c = np.meshgrid(*map(np.arange, (height, width, channels)), indexing="ij")
  waves = 0.5 + 0.3 * np.sin(0.21 * x + 0.5 * c) * np.cos(0.13 * y - c)
  noisy = np.clip(waves + noise * rng.standard_normal(waves.shape), 0.01, 0.99)
  return noisy.astype(np.float32), waves.astype(np.float32)


def original(wanted):
  low = wanted.reshape(wanted.shape[0] // LOW, LOW, -1, LOW, wanted.shape[2]).mean(axis=(1, 3))
  return Original(jnp.asarray(wanted), jnp.asarray(low))


REWARDS = {
  "psnr": quality.psnr,
  "psnr_float": functools.partial(quality.psnr, eight_bit=False),
  "psnr_luma": functools.partial(quality.psnr, eight_bit=False, luma=True, border=3),
  "negative_l1": quality.negative_l1,
  "negative_l2": quality.negative_l2,
  "consistency": functools.partial(quality.consistency, eight_bit=False),
  "ssim": structure.ssim,
  "ssim_edges": functools.partial(structure.ssim, edges=True),
  "ssim_uniform": functools.partial(structure.ssim, window="uniform"),
  "ms_ssim": functools.partial(structure.ms_ssim, scales=3),
  "gmsd": structure.gmsd,
  "total_variation": blind.total_variation,
  "sharpness": blind.sharpness,
}


def scored(reward, made, wanted, **options):
  """What a reward says under jit."""
  call = jax.jit(lambda image, truth: reward(Picture(image), truth, **options))
  even = not (wanted.shape[0] % LOW or wanted.shape[1] % LOW)
  truth = original(wanted) if even else Picture(jnp.asarray(wanted))
  return jax.tree.map(np.asarray, call(jnp.asarray(made), truth))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sample", [None, True, False])
@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_is_that_of_scikit_image(window, sample, channels):
  made, wanted = pair(channels=channels)
  is_gaussian = window == "gaussian"
  value, full = structural_similarity(
    *(image.astype(np.float64) for image in (wanted, made)),
    data_range=1,
    channel_axis=-1,
    gaussian_weights=is_gaussian,
    **({"sigma": 1.5} if is_gaussian else {}),
    use_sample_covariance=not is_gaussian if sample is None else sample,
    full=True,
  )
  options = {"window": window, "sample_covariance": sample}
  found = scored(structure.ssim, made, wanted, **options)["reward"]
  assert abs(float(found) - value) < 1e-6
  reach = 5 if is_gaussian else 3
  inner = full[reach:-reach, reach:-reach]
  made, wanted = jnp.asarray(made), jnp.asarray(wanted)
  assert np.abs(structure.ssim_map(made, wanted, **options) - inner).max() < 2e-5
  whole = structure.ssim_map(made, wanted, edges=True, **options)
  assert np.abs(whole - full).max() < 2e-5


@pytest.mark.parametrize("noise", [0.003, 0.02, 0.1])
@pytest.mark.parametrize("kind", ["white", "halves", "ramp", "black"])
def test_ssim_keeps_its_digits_on_flat_pictures(kind, noise):
  wanted = np.full((40, 56, 1), float(kind == "white"), np.float32)
  if kind == "halves":
    wanted[:, 28:] = 0.97
  if kind == "ramp":
    wanted[:] = np.linspace(0, 1, 56, dtype=np.float32)[None, :, None]
  rng = np.random.default_rng(1)
  made = np.clip(wanted + noise * rng.standard_normal(wanted.shape), 0, 1).astype(np.float32)
  value = structural_similarity(
    *(image[..., 0].astype(np.float64) for image in (wanted, made)),
    data_range=1,
    gaussian_weights=True,
    sigma=1.5,
    use_sample_covariance=False,
  )
  assert abs(float(scored(structure.ssim, made, wanted)["reward"]) - value) < 1e-6


def by_loop_ssim(made, wanted):
  """One window after the other, 7 x 7."""
  found = []
  for y in range(made.shape[0] - 6):
    for x in range(made.shape[1] - 6):
      a, b = (image[y : y + 7, x : x + 7, 0].astype(np.float64) for image in (made, wanted))
      cov = np.cov(a.ravel(), b.ravel())
      found.append(
        (2 * a.mean() * b.mean() + 1e-4)
        * (2 * cov[0, 1] + 9e-4)
        / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
        / (cov[0, 0] + cov[1, 1] + 9e-4)
      )
  return np.mean(found)


def test_ssim_by_loop():
  made, wanted = pair(8, 12, 1)
  found = scored(structure.ssim, made, wanted, window="uniform")["reward"]
  assert float(found) == pytest.approx(by_loop_ssim(made, wanted), abs=1e-6)


def test_equal_pictures_are_the_best():
  wanted = np.asarray(pair()[1])
  best = {"ssim": 1, "ms_ssim": 1, "gmsd": 0, "negative_l1": 0, "negative_l2": 0, "psnr": 100}
  for name, value in best.items():
    assert float(scored(REWARDS[name], wanted, wanted)["reward"]) == pytest.approx(value, abs=1e-5)


def test_psnr_is_that_of_scikit_image():
  made, wanted = pair()
  made = made * 1.2 - 0.1  # some of it is beyond 0..1
  found = scored(quality.psnr, made, wanted, eight_bit=False)["reward"]
  value = peak_signal_noise_ratio(wanted, made, data_range=1)
  assert float(found) == pytest.approx(value, abs=1e-4)
  found = scored(quality.psnr, made, wanted)["reward"]
  files = [images.as_bytes(image) for image in (wanted, made)]
  assert float(found) == pytest.approx(peak_signal_noise_ratio(*files), abs=1e-4)


def test_psnr_in_closed_form():
  flat = np.full((6, 8, 3), 0.5, np.float32)
  found = scored(quality.psnr, flat + 0.1, flat, eight_bit=False)["reward"]
  assert float(found) == pytest.approx(20, abs=1e-4)
  # Studio luma has 219 of 255 steps.
  options = {"eight_bit": False, "luma": True}
  found = scored(quality.psnr, flat + 0.1, flat, **options)["reward"]
  assert float(found) == pytest.approx(20 + 20 * math.log10(255 / 219), abs=1e-3)
  # What is cut off does not count.
  spoiled = flat + 0.1
  spoiled[:2], spoiled[-2:], spoiled[:, :2], spoiled[:, -2:] = 0, 1, 0, 1
  found = scored(quality.psnr, spoiled, flat, eight_bit=False, border=2)["reward"]
  assert float(found) == pytest.approx(20, abs=1e-4)


def test_errors_in_closed_form():
  made, wanted = pair()
  for name, value in (
    ("negative_l1", -np.abs(made - wanted).mean()),
    ("negative_l2", -((made - wanted) ** 2).mean()),
  ):
    assert float(scored(REWARDS[name], made, wanted)["reward"]) == pytest.approx(value, rel=1e-5)


def plain_ms_ssim(made, wanted, weights):
  """By scikit-image's maps and plain means."""
  total = []
  for channel in range(made.shape[-1]):
    a, b = (image[..., channel].astype(np.float64) for image in (made, wanted))
    value = 1.0
    for scale, weight in enumerate(weights):
      if scale:
        a, b = (
          np.pad(image, [(0, side % 2) for side in image.shape], mode="edge") for image in (a, b)
        )
        a, b = (image.reshape(image.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3)) for image in (a, b))
      options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
      _, full = structural_similarity(a, b, data_range=1, full=True, **options)
      # Without light: of pictures whose C1 outweighs their means.
      _, structure_map = structural_similarity(a, b, data_range=1, full=True, K1=1e6, **options)
      full = full if scale == len(weights) - 1 else structure_map
      value *= full[5:-5, 5:-5].mean() ** weight
    total.append(value)
  return np.mean(total)


def test_ms_ssim_is_its_definition():
  made, wanted = pair(51, 65)
  weights = np.array([0.0448, 0.2856, 0.3001])
  found = scored(structure.ms_ssim, made, wanted, scales=3)["reward"]
  wanted_value = plain_ms_ssim(made, wanted, weights / weights.sum())
  assert float(found) == pytest.approx(wanted_value, abs=2e-6)


def test_ms_ssim_of_one_scale_is_ssim():
  made, wanted = pair(20, 20)
  found = scored(structure.ms_ssim, made, wanted, scales=1)["reward"]
  assert float(found) == pytest.approx(
    float(scored(structure.ssim, made, wanted)["reward"]), abs=1e-6
  )


def test_ms_ssim_of_opposites_is_0_and_has_a_gradient():
  made, wanted = pair(24, 24, 1, noise=0.2)
  noise = made - wanted
  call = jax.value_and_grad(
    lambda image: structure.ms_ssim(Picture(image), Picture(jnp.asarray(0.5 - noise)), scales=2)[
      "reward"
    ]
  )
  value, gradient = call(jnp.asarray(0.5 + noise))
  assert float(value) == 0 and np.isfinite(gradient).all()


def by_loop_gmsd(made, wanted):
  """GMSD.m with loops."""
  magnitudes = []
  for image in (made, wanted):
    gray = 255 * (image.astype(np.float64) @ np.array([0.299, 0.587, 0.114]))
    gray = np.pad(gray, [(0, side % 2) for side in gray.shape])
    small = gray.reshape(gray.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))
    padded = np.pad(small, 1)
    found = np.zeros_like(small)
    for y, x in np.ndindex(*small.shape):
      around = padded[y : y + 3, x : x + 3]
      across = (around[:, 0] - around[:, 2]).sum() / 3
      down = (around[0] - around[2]).sum() / 3
      found[y, x] = math.hypot(across, down)
    magnitudes.append(found)
  a, b = magnitudes
  return ((2 * a * b + 170) / (a * a + b * b + 170)).std(ddof=1)


@pytest.mark.parametrize("size", [(12, 16), (13, 15)])
def test_gmsd_is_the_authors_formula(size):
  made, wanted = pair(*size)
  found = jax.jit(lambda *both: structure.gmsd(*map(Picture, both)))(made, wanted)["reward"]
  assert float(found) == pytest.approx(-by_loop_gmsd(made, wanted), abs=1e-6)


@pytest.mark.parametrize("kind", ["matlab", "pillow"])
def test_consistency_scales_down_as_the_data_was(kind):
  made, wanted = pair()
  low = resize.bicubic(255 * wanted, 12, 16, kind, rounded=True) / 255
  truth = Original(jnp.asarray(wanted), jnp.asarray(low))
  call = jax.jit(lambda image: quality.consistency(Picture(image), truth, kind=kind)["reward"])
  # Rounded once, not after each side: some values are one off.
  assert float(call(jnp.asarray(wanted))) > 54
  small = images.as_bytes(resize.bicubic(made, 12, 16, kind))
  value = peak_signal_noise_ratio(images.as_bytes(low), small)
  assert float(call(jnp.asarray(made))) == pytest.approx(value, abs=0.01)


@pytest.mark.parametrize("name", REWARDS)
def test_credit_has_the_reward_as_its_mean(name):
  made, wanted = pair()
  alone = scored(REWARDS[name], made, wanted)
  assert set(alone) == {"reward"}
  for given, grid in (((6, 8), (6, 8)), ([3, 2], (3, 2)), ((1, 1), (1, 1)), (8, SIDES_OF_8)):
    found = scored(REWARDS[name], made, wanted, grid=given)
    assert found["credit"].shape == (grid[0] * grid[1],)
    assert float(found["reward"]) == pytest.approx(float(alone["reward"]), rel=1e-6, abs=1e-6)
    assert float(found["credit"].mean()) == pytest.approx(
      float(found["reward"]), rel=2e-5, abs=1e-6
    )


@pytest.mark.parametrize("name", sorted(set(REWARDS) - {"total_variation", "sharpness"}))
def test_credit_falls_where_the_picture_gets_worse(name):
  """One block of 4 x 4 is spoiled or mended: its own credit changes most, in the reward's sense."""
  made, wanted = pair(64, 64, noise=0.05)
  better, worse = np.array(made), np.array(made)
  rng = np.random.default_rng(3)
  better[16:32, 32:48] = 0.2 * made[16:32, 32:48] + 0.8 * wanted[16:32, 32:48]
  worse[16:32, 32:48] += 0.1 * rng.standard_normal((16, 16, 3)).astype(np.float32)
  worse = np.clip(worse, 0, 1)
  grid = (4, 4)
  before = scored(REWARDS[name], made, wanted, grid=grid)
  for changed, sign in ((better, 1), (worse, -1)):
    after = scored(REWARDS[name], changed, wanted, grid=grid)
    change = after["credit"] - before["credit"]
    assert np.argmax(np.abs(change)) == 1 * 4 + 2
    # The deviation of gradient similarity is mended where a block is like the others.
    if name != "gmsd":
      assert sign * change[6] > 0 and sign * float(after["reward"] - before["reward"]) > 0


def test_credit_is_the_reward_to_first_order():
  """A small change of one block changes the reward by that of its credit, divided by blocks."""
  made, wanted = pair(32, 32, noise=0.05)
  changed = np.array(made)
  changed[8:16, 16:24] += 0.05 * (wanted - made)[8:16, 16:24]
  before, after = (
    scored(quality.psnr, image, wanted, eight_bit=False, grid=(4, 4)) for image in (made, changed)
  )
  linear = (after["credit"] - before["credit"])[6] / 16
  assert float(after["reward"] - before["reward"]) == pytest.approx(float(linear), rel=0.1)
  assert np.abs(np.delete(after["credit"] - before["credit"], 6)).max() < 0.05 * abs(linear * 16)


@pytest.mark.parametrize("name", sorted(set(REWARDS) - {"psnr"}))
def test_gradients_are_finite_differences(name):
  made, wanted = pair(24, 24 if name != "ms_ssim" else 48)
  if name == "ms_ssim":
    made, wanted = pair(48, 48)
  truth = original(wanted)
  reward = jax.jit(lambda image: REWARDS[name](Picture(image), truth)["reward"])
  gradient = np.asarray(jax.jit(jax.grad(reward))(jnp.asarray(made)))
  assert np.isfinite(gradient).all()
  rng = np.random.default_rng(4)
  for _ in range(3):
    # Along a direction that has something of the gradient: float32 sees no less.
    direction = np.sign(gradient) * (rng.random(made.shape) < 0.5)
    step = np.float32(1e-3)
    moved = [float(reward(jnp.asarray(made + s * step * direction, jnp.float32))) for s in (1, -1)]
    slope = (moved[0] - moved[1]) / (2 * float(step))
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=0.03)


def test_the_gradient_of_8_bit_psnr_is_that_of_the_rounded_picture():
  made, wanted = pair(24, 24)
  rounded = [jnp.asarray(images.as_bytes(image) / np.float32(255)) for image in (made, wanted)]
  found, plain = (
    jax.grad(
      lambda image, e=e, t=t: quality.psnr(Picture(image), Picture(t), eight_bit=e)["reward"]
    )(i)
    for e, i, t in ((True, jnp.asarray(made), jnp.asarray(wanted)), (False, *rounded))
  )
  np.testing.assert_allclose(found, plain, atol=1e-3 * np.abs(plain).max())


@pytest.mark.parametrize("name", REWARDS)
def test_gradients_stay_finite_on_flat_and_equal_pictures(name):
  flat = np.full((48, 48, 3), 0.25, np.float32)
  for made in (flat, np.zeros_like(flat)):
    gradient = jax.grad(lambda image: REWARDS[name](Picture(image), original(flat))["reward"])
    assert np.isfinite(jax.jit(gradient)(jnp.asarray(made))).all()


@pytest.mark.parametrize("name", ["psnr", "ssim", "ms_ssim", "gmsd", "consistency"])
def test_many_at_once_are_as_one(name):
  both = [pair(seed=seed) for seed in range(3)]
  made = jnp.stack([jnp.asarray(one) for one, _ in both])
  truths = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[original(two) for _, two in both])
  call = jax.jit(jax.vmap(functools.partial(REWARDS[name], grid=(2, 2))))
  found = call(Picture(made), truths)
  for row, (one, two) in enumerate(both):
    alone = scored(REWARDS[name], one, two, grid=(2, 2))
    for key, value in alone.items():
      np.testing.assert_allclose(found[key][row], value, rtol=2e-5, atol=1e-6)


def test_shares_of_a_map_go_where_it_lies():
  """Places that lie on a border are shared; what lies beyond the picture is its last block's."""
  values = jnp.asarray([[1.0, 2.0, 4.0]], jnp.float32)
  term = Term(values, 2.0, None, (0, 9))
  found = judged(jnp.float32(5), [term], (1, 2), 8, 8)["credit"]
  # Places of 3 pixels: 0-3, 3-6, 6-8 of blocks 0-4 and 4-8; the mean is 7 / 3.
  first = (1 - 7 / 3) + (2 - 7 / 3) / 3
  second = (2 - 7 / 3) * 2 / 3 + (4 - 7 / 3)
  assert found.tolist() == pytest.approx([5 + 4 / 3 * first, 5 + 4 / 3 * second], abs=1e-5)


def test_blind_rewards_by_loop():
  made, _ = pair(7, 9)
  down = np.abs(np.diff(made, axis=0)).mean()
  across = np.abs(np.diff(made, axis=1)).mean()
  found = jax.jit(lambda image: blind.total_variation(Picture(image), None))(made)["reward"]
  assert float(found) == pytest.approx(-(down + across), rel=1e-5)
  gray = 255 * (made.astype(np.float64) @ np.array([0.299, 0.587, 0.114]))
  laplacian = [
    gray[y - 1, x] + gray[y + 1, x] + gray[y, x - 1] + gray[y, x + 1] - 4 * gray[y, x]
    for y in range(1, 6)
    for x in range(1, 8)
  ]
  found = jax.jit(lambda image: blind.sharpness(Picture(image), None))(made)["reward"]
  assert float(found) == pytest.approx(np.var(laplacian) / 1000, rel=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_a_file_costs_what_pillow_writes(form, channels):
  made, wanted = pair(32, 40, channels)
  file = io.BytesIO()
  shown = np.rint(made * 255).astype(np.uint8)
  Image.fromarray(shown.squeeze()).save(file, form.upper(), quality=40)
  found = codec.file_size(Picture(made), None, format=form, quality=40)
  size = len(file.getvalue())
  assert found == {"reward": -8 * size / (32 * 40), "bytes": size}
  found = codec.coded(Picture(made), Picture(wanted), format=form, quality=40, price=2.0)
  read = np.asarray(Image.open(file).convert("RGB" if channels == 3 else "L"))
  value = peak_signal_noise_ratio(images.as_bytes(wanted), read.reshape(wanted.shape))
  assert found["psnr"] == pytest.approx(value)
  assert found["bits_per_pixel"] == 8 * size / (32 * 40)
  assert found["reward"] == pytest.approx(value - 16 * size / (32 * 40))


def test_codecs_are_for_the_host():
  assert host_options(codec.file_size) and host_options(codec.coded)


@pytest.mark.parametrize(
  ("call", "says"),
  [
    (lambda a, b: quality.psnr(a, Picture(b.image[:-1])), "must be equal"),
    (lambda a, b: quality.psnr(a, b, border=24), "border is 24"),
    (lambda a, b: quality.psnr(a, b, grid=(5, 8)), r"grid is \(5, 8\)"),
    (lambda a, b: quality.psnr(a, b, grid=(0, 8)), r"grid is \(0, 8\)"),
    (lambda a, b: quality.psnr(a, b, grid=0), "grid is 0; it must be the pixels"),
    (lambda a, b: quality.psnr(a, b, grid=7), "grid is 7; .* whole blocks"),
    (lambda a, b: quality.consistency(a, Picture(b.image)), "lower resolution"),
    (lambda a, b: quality.consistency(a, Original(b.image, b.image)), "2 or more times"),
    (lambda a, b: quality.consistency(a, b, kind="cubic"), "'cubic'"),
    (lambda a, b: structure.ssim(a, b, window="box"), "'box'"),
    (lambda a, b: structure.ssim(*(Picture(p.image[:9]) for p in (a, b))), "smaller than the"),
    (lambda a, b: structure.ms_ssim(a, b), "scales is 5"),
    (lambda a, b: structure.ms_ssim(a, b, scales=0), "scales is 0"),
    (lambda a, b: blind.sharpness(Picture(a.image[:2]), b), "below 3 x 3"),
    (lambda a, b: codec.file_size(a, b, format="png"), "'png'"),
    (lambda a, b: codec.file_size(a, b, quality=0), "quality is 0"),
  ],
)
def test_mistakes_are_named(call, says):
  made, wanted = pair()
  with pytest.raises(UsageError, match=says):
    call(Picture(jnp.asarray(made)), original(wanted))
