"""Gains of patches against brute force, finite differences and PSNR.

Dimension key:
  K: passes
  R, Q: rows and columns of patches
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from rtune.errors import UsageError
from rtune.predictions.images import Original, Passes
from rtune.rewards.patch_gain import latent_gain, patch_gain

pytestmark = pytest.mark.usefixtures("quick_compiles")


def case(passes=3, height=29, width=28, channels=1):
  rng = np.random.default_rng(0)
  clean = rng.random((height, width, channels), np.float32)
  noise = rng.normal(size=(passes + 1, height, width, channels)).astype(np.float32)
  levels = np.float32([0.3, 0.2, 0.1, 0.15])[: passes + 1, None, None, None]
  pictures = jnp.asarray(clean[None] + levels * noise)
  prediction = Passes(pictures[-1], pictures[1:], jnp.zeros((passes, 3, 2, 2)))
  return prediction, Original(jnp.asarray(clean), pictures[0])


def test_the_reward_is_the_gain_in_psnr():
  prediction, truth = case(channels=3)
  found = patch_gain(prediction, truth)
  clean = np.asarray(truth.image)
  before = [truth.given, *prediction.passes]
  levels = [peak_signal_noise_ratio(clean, np.asarray(x), data_range=1) for x in before]
  assert float(found["reward"]) == pytest.approx(levels[-1] - levels[0], abs=1e-4)
  for number in (1, 2, 3):
    want = levels[number] - levels[number - 1]
    assert float(found[f"gain_{number}"]) == pytest.approx(want, abs=1e-4)


def test_credit_is_what_the_pixels_of_a_patch_gained():
  """Brute force over passes and patches of 16 pixels, 12 apart, cut at the border."""
  prediction, truth = case()
  found = np.asarray(patch_gain(prediction, truth)["credit"]).reshape(3, 3, 2)
  pictures = np.asarray(jnp.concatenate([truth.given[None], prediction.passes]))
  errors = ((pictures - np.asarray(truth.image)[None]) ** 2)[..., 0]
  for number in range(3):
    for row in range(3):
      for column in range(2):
        y, x = slice(12 * row, 12 * row + 16), slice(12 * column, 12 * column + 16)
        apart = errors[number, y, x].sum() - errors[number + 1, y, x].sum()
        want = 10 / np.log(10) * apart / 256 / errors[number + 1].mean()
        assert found[number, row, column] == pytest.approx(want, rel=1e-4, abs=1e-5)


def test_to_first_order_credit_is_the_change_of_psnr():
  """A change in a patch alone: pixels times credit is the derivative of the PSNR."""
  prediction, truth = case(passes=1)
  change = jnp.zeros_like(prediction.passes).at[0, 12:28, 0:16].set(1e-3)

  def both(share):
    moved = prediction._replace(passes=prediction.passes + share * change)
    found = patch_gain(moved, truth)
    return found["reward"], found["credit"].reshape(3, 2)[1, 0]

  (_, _), (reward, credit) = jax.jvp(both, (jnp.float32(0),), (jnp.float32(1),))
  assert float(reward) == pytest.approx(float(credit) * 256 / (29 * 28), rel=1e-3)


def test_later_passes_count_less_by_the_discount():
  prediction, truth = case()
  own = np.asarray(patch_gain(prediction, truth)["credit"]).reshape(3, -1)
  found = np.asarray(patch_gain(prediction, truth, discount=0.5)["credit"]).reshape(3, -1)
  np.testing.assert_allclose(found[2], own[2], rtol=1e-5)
  np.testing.assert_allclose(found[1], own[1] + 0.5 * own[2], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(found[0], own[0] + 0.5 * found[1], rtol=1e-4, atol=1e-5)


def test_in_units_of_patches_credit_is_the_gain_in_their_own_psnr():
  prediction, truth = case(passes=1)
  found = np.asarray(patch_gain(prediction, truth, unit="patch")["credit"]).reshape(3, 2)
  clean, before, after = (
    np.asarray(x, np.float64)[12:28, :16] for x in (truth.image, truth.given, prediction.image)
  )
  levels = [peak_signal_noise_ratio(clean, x, data_range=1) for x in (before, after)]
  assert found[1, 0] == pytest.approx(levels[1] - levels[0], abs=0.01)


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ({"side": 8}, "not those of the policy"),
    ({"discount": 1.5}, "must lie between 0 and 1"),
    ({"unit": "pixel"}, "unit is 'pixel'; it must be one of"),
  ],
)
def test_wrong_settings_are_named(args, message):
  with pytest.raises(UsageError, match=message):
    patch_gain(*case(), **args)


def test_without_a_reference_the_distance_of_latents_is_what_counts():
  prediction, truth = case()
  distance = jnp.asarray(np.random.default_rng(1).random((4, 3, 2)), jnp.float32)
  found = latent_gain(prediction._replace(distance=distance), truth, discount=1.0)
  assert float(found["reward"]) == pytest.approx(
    float(jnp.mean(distance[0] - distance[-1])), abs=1e-6
  )
  want = (distance[:-1] - distance[-1:]).reshape(-1)
  np.testing.assert_allclose(found["credit"], want, atol=1e-6)
  with pytest.raises(UsageError, match="knows no groups"):
    latent_gain(prediction, truth)
