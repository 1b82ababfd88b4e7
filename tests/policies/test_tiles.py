"""In tiles a picture is restored as it is in whole, whatever its size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.errors import UsageError
from rtune.policies.tiles import fitted, tiled

LOOKS = 3  # pixels to each side: three layers of 3 x 3


def picture(height, width, channels=2):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.standard_normal((2, height, width, channels)), jnp.float32)


def convolution(x, kernel, stride=1):
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def kernels(*shapes):
  rng = np.random.default_rng(1)
  return [jnp.asarray(rng.standard_normal(shape) / 3, jnp.float32) for shape in shapes]


def network(x):
  """Three layers with nonlinearities between them."""
  first, second, third = kernels((3, 3, 2, 4), (3, 3, 4, 4), (3, 3, 4, 2))
  return convolution(jnp.tanh(convolution(jnp.tanh(convolution(x, first)), second)), third)


def enlarging(x):
  """Twice as large: each pixel becomes four, mixed by the same layers."""
  wide = convolution(network(x), kernels((3, 3, 2, 8))[0])
  batch, height, width, _ = wide.shape
  blocks = wide.reshape(batch, height, width, 2, 2, 2).transpose(0, 1, 3, 2, 4, 5)
  return blocks.reshape(batch, 2 * height, 2 * width, 2)


def halving(x):
  """A small U-Net: to half the resolution and back, so that places must be even."""
  down, middle, up = kernels((2, 2, 2, 4), (3, 3, 4, 4), (1, 1, 4, 2))
  assert x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
  half = convolution(jnp.tanh(convolution(x, down, stride=2)), middle)
  return x + convolution(half.repeat(2, axis=1).repeat(2, axis=2), up)


@pytest.mark.parametrize(("height", "width"), [(40, 56), (33, 16), (17, 90), (16, 16), (12, 50)])
@pytest.mark.parametrize("fade", [0, 3])
def test_tiled_is_whole(height, width, fade):
  image = picture(height, width)
  seen = jax.jit(tiled(network, (16, 20), 2 * LOOKS + 1 + fade, fade=fade))(image)
  np.testing.assert_allclose(seen, network(image), atol=2e-6)


def test_tiled_is_whole_at_a_scale():
  image = picture(27, 45)
  seen = tiled(enlarging, (16, 16), 9, scale=2, fade=1)(image)
  assert seen.shape == (2, 54, 90, 2)
  np.testing.assert_allclose(seen, enlarging(image), atol=2e-6)


def test_tiled_is_whole_for_a_network_with_strides():
  image = picture(38, 47)
  whole = fitted(halving, 2)(image)
  assert whole.shape == image.shape
  seen = tiled(halving, (16, 16), 8, multiple=2)(image)
  np.testing.assert_allclose(seen, whole, atol=2e-6)


def test_too_small_an_overlap_is_seen_and_a_fade_softens_it():
  """So the tests above would find a seam."""
  image = jnp.ones((1, 16, 64, 2))
  whole = network(image)
  sharp = tiled(network, (16, 24), 2)(image) - whole
  assert jnp.max(jnp.abs(sharp)) > 1e-2

  # A network that sees where its tile ends: steps between tiles become ramps.
  def far(x):
    place = jnp.arange(x.shape[2], dtype=jnp.float32)[None, None, :, None]
    return x + jnp.mean(x * place, axis=(1, 2, 3), keepdims=True)

  image = picture(16, 64)
  steps = [
    jnp.max(jnp.abs(jnp.diff(tiled(far, (16, 24), 12, fade=fade)(image) - image, axis=2)))
    for fade in (0, 12)
  ]
  assert steps[1] < steps[0] / 5


def test_weights_make_one():
  """Of a network that changes nothing, for tiles that the last one nearly covers, too."""
  for width in range(16, 60, 3):
    for fade in (0, 1, 5, 10):
      image = picture(18, width)
      np.testing.assert_allclose(
        tiled(lambda x: x, (16, 16), 10, fade=fade)(image), image, atol=1e-6
      )


@pytest.mark.parametrize(("height", "width"), [(7, 9), (8, 12), (3, 21), (1, 2)])
def test_padding_is_mirrored_and_cut_again(height, width):
  image = picture(height, width)
  shapes = []

  def double(x):
    shapes.append(x.shape)
    return x.repeat(2, axis=1).repeat(2, axis=2)

  seen = fitted(double, 8, scale=2)(image)
  assert shapes == [(2, -(-height // 8) * 8, -(-width // 8) * 8, 2)]
  np.testing.assert_array_equal(seen, image.repeat(2, axis=1).repeat(2, axis=2))
  padded = np.pad(image, ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0)), mode="reflect")
  kept = []
  fitted(lambda x: kept.append(x) or x, 8)(image)
  np.testing.assert_array_equal(kept[0], padded)


def test_gradients_flow_through_tiles():
  image = picture(20, 40, 2)
  fixed = picture(20, 40, 2)[..., ::-1]

  def loss(x, see):
    return jnp.sum(see(x) * fixed)

  found = jax.grad(loss)(image, tiled(network, (16, 16), 8))
  np.testing.assert_allclose(found, jax.grad(loss)(image, network), atol=1e-5)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"overlap": 16}, "fade <= overlap < tile"),
    ({"overlap": 4, "fade": 5}, "fade <= overlap"),
    ({"overlap": 4, "multiple": 8}, "must be multiples of 8"),
    ({"overlap": -1}, "fade <= overlap"),
  ],
)
def test_tiles_that_cannot_be_laid_out(settings, message):
  with pytest.raises(UsageError, match=message):
    tiled(network, (16, 16), **settings)
