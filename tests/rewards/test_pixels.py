"""Colorfulness against a plain restatement of its definition, and cases worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from rtune.errors import UsageError
from rtune.predictions.pixels import Pixels
from rtune.rewards.pixels import colorfulness


def pixels(rgb):
  return Pixels(jnp.asarray(rgb, jnp.float32))


def scored(rgb, **options):
  made = pixels(rgb)
  found = jax.jit(lambda p: colorfulness(p, p, **options))(made)
  return {name: float(value) for name, value in found.items()}


def of_hues(degrees, chroma=30.0):
  """One row of pixels of these hues."""
  angle = np.radians(degrees)
  lab = np.stack([np.full(len(angle), 60.0), chroma * np.cos(angle), chroma * np.sin(angle)], -1)
  return lab2rgb(lab[None])


def plain(rgb, threshold=10.0, bins=7, half_circle=False, vivid_only=True):
  """The definition, one pixel at a time."""
  lab = rgb2lab(np.float64(rgb)).reshape(-1, 3)
  counts, vivid = [0] * bins, 0
  for _, a, b in lab:
    is_vivid = a * a + b * b > threshold
    vivid += is_vivid
    if vivid_only and not is_vivid:
      continue
    a, b = (a, b) if a * a + b * b > 1e-4 else (1, 0)  # gray has no hue
    full = 180 if half_circle else 360
    angle = math.degrees(math.atan(b / a) if half_circle else math.atan2(b, a))
    counts[int((angle / full + 0.5) * bins) % bins] += 1
  shares = [count / sum(counts) for count in counts if count]
  entropy = -sum(share * math.log(share) for share in shares)
  return {"reward": vivid / len(lab) * entropy, "vivid": vivid / len(lab), "hue_entropy": entropy}


@pytest.mark.parametrize(
  "options",
  [{}, {"half_circle": True}, {"vivid_only": False}, {"threshold": 900.0, "bins": 12}],
)
@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_it_is_its_definition(options, spread):
  rng = np.random.default_rng(0)
  rgb = np.clip(0.5 + spread * rng.normal(size=(17, 23, 1)), 0, 1)
  rgb = np.clip(rgb + spread * rng.normal(size=(17, 23, 3)), 0, 1)
  found, wanted = scored(rgb, **options), plain(rgb, **options)
  assert 0 < wanted["vivid"] < 1 and wanted["hue_entropy"] > 0.1
  for name, value in wanted.items():
    assert found[name] == pytest.approx(value, abs=0.003), name


def test_seven_hues_are_the_most_there_is():
  found = scored(of_hues(np.arange(7) * 360 / 7))
  assert found["vivid"] == 1
  assert found["reward"] == found["hue_entropy"] == pytest.approx(math.log(7), abs=1e-6)
  half = scored(of_hues(np.concatenate([np.arange(4) * 360 / 7, np.full(3, 10.0)])))
  assert 0 < half["reward"] < found["reward"]


def test_one_hue_is_worth_nothing():
  found = scored(of_hues([40.0] * 6))
  assert (found["vivid"], found["reward"], found["hue_entropy"]) == (1, 0, 0)


@pytest.mark.parametrize("vivid_only", [True, False])
def test_gray_is_worth_nothing(vivid_only):
  gray = np.repeat(np.linspace(0, 1, 256)[:, None], 3, 1)[None]
  found = scored(gray, vivid_only=vivid_only)
  assert found == {"reward": 0, "vivid": 0, "hue_entropy": 0}


def test_faint_color_counts_as_none():
  """A hair of all hues is neither vivid nor worth its entropy, unless that is asked for."""
  faint = np.concatenate([of_hues(np.arange(7) * 360 / 7, chroma=1.0), of_hues([0.0])], axis=1)
  found = scored(faint)
  assert found["vivid"] == pytest.approx(1 / 8) and found["reward"] == 0
  assert scored(faint, vivid_only=False)["hue_entropy"] > 1.7


def test_opposite_colors_are_alike_on_half_a_circle():
  opposite = of_hues([20.0, 200.0])
  assert scored(opposite)["reward"] == pytest.approx(math.log(2), abs=1e-6)
  assert scored(opposite, half_circle=True)["reward"] == 0


def test_many_at_once_are_as_one():
  rgb = np.random.default_rng(1).random((3, 8, 9, 3))
  both = jax.jit(jax.vmap(colorfulness))(pixels(rgb), pixels(rgb))
  for row in range(3):
    for name, value in scored(rgb[row]).items():
      assert float(both[name][row]) == pytest.approx(value, abs=1e-6)


def test_a_single_bin_is_an_error():
  with pytest.raises(UsageError, match="bins is 1"):
    scored(np.zeros((2, 2, 3)), bins=1)
