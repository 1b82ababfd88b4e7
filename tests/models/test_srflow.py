"""SRFlow and RRDB: inverse, log-determinant, sizes, and what is known by number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.devices.compiling import jit_once
from rtune.errors import UsageError
from rtune.models.flow_steps import coupled, init_couplings, uncoupled
from rtune.models.rrdb import rrdb
from rtune.models.srflow import srflow

pytestmark = pytest.mark.usefixtures("quick_compiles")

PUBLISHED = {
  **{"scale": 4, "filters": 64, "blocks": 23, "growth": 32, "stacked": (1, 8, 15, 22)},
  **{"levels": 3, "steps": 16, "hidden": 64, "splits": 1, "transitions": 2, "residual": False},
}
SMALL = {"filters": 3, "blocks": 2, "growth": 2, "hidden": 4, "steps": 2}


def count(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes_of(network, channels=3):
  image = jax.ShapeDtypeStruct((1, 8, 8, channels), jnp.float32)
  return jax.eval_shape(network.init, jax.random.key(0), image)


def random_params(network, image, scale=0.2):
  rng = np.random.default_rng(0)

  def moved(leaf):  # in numpy: jax would compile a sum for each shape
    return jnp.asarray(np.asarray(leaf) + scale * rng.normal(size=leaf.shape), leaf.dtype)

  return jax.tree.map(moved, jit_once(network.init)(jax.random.key(0), image))


def pictures(*shape):
  return jnp.asarray(np.random.default_rng(1).random(shape), jnp.float32)


CASES = {
  "x2": (1, {"levels": 2, "splits": 1}, (3, 4)),
  "x4": (3, {"scale": 4, "levels": 3, "splits": 2, "stacked": (0, 1)}, (2, 4)),
  "x4, no split": (1, {"scale": 4, "levels": 2, "splits": 0, "residual": False}, (2, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_inverse_and_places(case):
  channels, args, low = CASES[case]
  network = srflow(channels, **SMALL | args)
  image = pictures(2, *(side * 2 for side in low), channels)
  params = random_params(network, image, 0.05)
  scale = network.scale
  high = pictures(2, 3, *(scale * side for side in image.shape[1:3]), channels)

  @jax.jit
  def there_and_back(params, image, high):
    seen = network.see(params, image)
    latents = network.encode(params, seen, high)
    return latents, network.decode(params, seen, latents.z)

  latents, (back, log_det) = there_and_back(params, image, high)
  np.testing.assert_allclose(back, high, atol=1e-4)
  for one, other in zip(log_det, latents.log_det, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)
  assert network.multiple == 2 ** args["levels"] and len(latents.z) == args["splits"] + 1
  assert tuple(z.shape[2:] for z in latents.z) == network.shapes(*high.shape[2:])
  assert sum(z[0, 0].size for z in latents.z) == high[0, 0].size
  assert [x.shape[2:] for x in latents.log_det] == [
    (high.shape[2] >> level, high.shape[3] >> level) for level in range(1, args["levels"] + 1)
  ]


@pytest.mark.parametrize("residual", [True, False])
def test_log_determinant_is_that_of_the_jacobian(residual):
  network = srflow(1, **SMALL, levels=2, splits=1, residual=residual)
  image = pictures(1, 2, 2, 1)
  params = random_params(network, image, 0.2)
  high = pictures(1, 1, 4, 4, 1)

  def flat(picture):
    latents = network.encode(params, network.see(params, image), picture.reshape(high.shape))
    return jnp.concatenate([z.ravel() for z in latents.z]), latents.log_det

  jacobian, log_det = jax.jit(jax.jacrev(flat, has_aux=True))(high.ravel())
  want = np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
  np.testing.assert_allclose(sum(x.sum() for x in log_det), want, rtol=1e-4)
  # And by differences: the flow is steep, so steps are small and their error is not.
  step = 1e-3
  moved = jax.jit(jax.vmap(lambda x: flat(x)[0]))
  unit = step * jnp.eye(16)
  rows = (moved(high.ravel()[None] + unit) - moved(high.ravel()[None] - unit)) / (2 * step)
  numeric = np.linalg.slogdet(np.asarray(rows, np.float64))[1]
  np.testing.assert_allclose(numeric, want, atol=0.05)


def test_an_inverse_does_not_blow_up():
  """A network may want scales of nothing; samples of a trained flow came to 1e10 so, and NaN."""
  channels = 4
  params = init_couplings(jax.random.key(0), 1, channels, features=2, hidden=3)
  step = jax.tree.map(lambda leaf: leaf[0], params)
  for net in ("injector", "coupling"):
    bias = step[net]["last"]["bias"]
    scales = bias.shape[0] // 2
    step[net]["last"] |= {"bias": bias.at[:scales].set(-100.0)}
  sample, features = pictures(1, 2, 3, 3, channels), pictures(1, 3, 3, 2)
  back, log_det = uncoupled(step, features, sample)
  assert float(jnp.max(jnp.abs(back))) <= 100.001  # tenfold by the injector, and by the coupling
  np.testing.assert_allclose(log_det, (channels + channels // 2) * np.log(0.1), rtol=1e-5)
  there, _ = coupled(step, features, back)
  np.testing.assert_allclose(there, sample, atol=1e-5)


def test_samples_of_a_picture_do_not_see_each_other_or_the_batch():
  network = srflow(1, **SMALL, levels=2)
  image = pictures(2, 4, 4, 1)
  params = random_params(network, image, 0.1)
  high = pictures(2, 3, 8, 8, 1)
  encode = jax.jit(lambda image, high: network.encode(params, network.see(params, image), high))
  both, one = encode(image, high), encode(image[1:], high[1:, 2:])
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1:, 2:], y, atol=1e-4), both, one)


def test_published_sizes():
  """RRDB has ESRGAN's 16,697,987 parameters; the authors' SRFlow has 39.54 M.

  Of those, 352 thousand are of layers that their flow never uses (the last layers of RRDB, and one
  convolution), 24 thousand are actnorms and log-scales where ours has biases.
  """
  sigma = jax.ShapeDtypeStruct((1,), jnp.float32)
  image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  network = rrdb(3, scale=4, filters=64, blocks=23, growth=32)
  assert count(jax.eval_shape(network.init, jax.random.key(0), image, sigma)) == 16_697_987
  found = shapes_of(srflow(3, **PUBLISHED))
  assert count(found["features"]) == 16_622_400 and count(found) == 39_171_012
  assert count(shapes_of(srflow(3))) < 400_000


def test_rrdb_begins_as_bicubic_enlargement():
  network = rrdb(3, scale=3, filters=4, blocks=1, growth=2)
  image, sigma = pictures(2, 5, 6, 3), jnp.zeros(2)
  params = jit_once(network.init)(jax.random.key(0), image, sigma)
  found = jit_once(network.apply)(params, image, sigma)
  assert found.image.shape == (2, 15, 18, 3) and found.features.shape == (2, 15, 18, 4)
  np.testing.assert_allclose(
    found.image, jax.image.resize(image, (2, 15, 18, 3), "cubic"), atol=1e-6
  )


@pytest.mark.parametrize(
  ("make", "args", "message"),
  [
    (srflow, {"scale": 3}, "scale is 3; it must be one of (2, 4, 8)"),
    (srflow, {"splits": 2}, "splits is 2; it must be one of (0, 1)"),
    (srflow, {"stacked": (2,)}, "stacked is 2; it must be one of (0, 1)"),
    (srflow, {"steps": -1}, "steps is -1; it must be at least 0"),
    (rrdb, {"scale": 5}, "scale is 5; it must be one of"),
    (rrdb, {"dtype": "half"}, "dtype is 'half'"),
  ],
)
def test_settings_that_cannot_be(make, args, message):
  with pytest.raises(UsageError) as error:
    make(3, **args)
  assert message in str(error.value)
