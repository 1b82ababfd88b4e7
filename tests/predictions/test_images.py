"""Pictures as files hold them, and their luma."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.predictions import images


def test_rounding_passes_the_gradient_of_clipping():
  image = jnp.asarray([-0.2, 0.3, 0.7003, 1.2], jnp.float32).reshape(2, 2, 1)
  found = images.eight_bits(image)
  assert np.array_equal(images.as_bytes(image), np.rint(255 * np.asarray(found)))
  assert np.abs(np.asarray(found) * 255 - np.rint(np.asarray(found) * 255)).max() < 1e-4
  gradient = jax.grad(lambda one: images.eight_bits(one).sum())(image)
  assert gradient.reshape(-1).tolist() == [0, 1, 1, 0]


def test_bytes_stay_as_they_are():
  given = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
  assert images.as_bytes(given) is given
  assert np.array_equal(images.as_bytes(given / 255), given)


def test_luma_of_numpy_is_that_of_jax():
  rgb = np.random.default_rng(0).random((4, 5, 3), np.float32)
  for luma in (images.luma, images.studio_luma):
    np.testing.assert_allclose(luma(jnp.asarray(rgb)), luma(rgb), atol=1e-6)
    assert np.array_equal(luma(rgb[..., :1]), rgb[..., 0])


def test_black_and_white_are_0_and_1_and_16_and_235():
  ends = np.array([[[0, 0, 0], [1, 1, 1]]], np.float64)
  assert images.luma(ends) == pytest.approx(np.array([[0, 1]]))
  assert 255 * images.studio_luma(ends) == pytest.approx(np.array([[16, 235]]))
