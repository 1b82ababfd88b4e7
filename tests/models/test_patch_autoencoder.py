"""The autoencoders of patches: channels by themselves, the transform, centers, multipliers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.models.patch_autoencoder import patch_autoencoder

pytestmark = pytest.mark.usefixtures("quick_compiles")


def random_params(model, scale=0.3):
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: x + jnp.asarray(scale * rng.normal(size=x.shape), x.dtype),
    model.init(jax.random.key(0)),
  )


def test_the_transform_changes_nothing_at_first():
  model = patch_autoencoder(3, 16, latent=5, width=7)
  params = model.init(jax.random.key(0))
  latents = jax.random.normal(jax.random.key(1), (2, 4, 3, 5))
  np.testing.assert_array_equal(model.transform(params, latents), latents)
  found = model.encode(params, jnp.full((2, 4, 3, 16), 0.3))
  assert found.mean.shape == found.log_scale.shape == (2, 4, 3, 5)
  assert model.decode(params, latents).shape == (2, 4, 3, 16)


def test_every_channel_has_parameters_of_its_own():
  model = patch_autoencoder(3, 16, latent=5, width=7, groups=4)
  params = random_params(model)
  patch = jnp.asarray(np.random.default_rng(1).random((6, 3, 16)), jnp.float32)

  def restored(patch):
    return model.decode(params, model.transform(params, model.encode(params, patch).mean))

  other = patch.at[:, 1].add(0.5)
  before, after = restored(patch), restored(other)
  np.testing.assert_allclose(before[:, ::2], after[:, ::2], atol=1e-6)
  assert np.abs(before - after)[:, 1].max() > 1e-2
  alike = restored(jnp.broadcast_to(patch[:, :1], patch.shape))
  assert np.abs(alike[:, 0] - alike[:, 1]).max() > 1e-2


def test_multipliers_scale_what_the_layers_are_given():
  """As the published agent scales the weights of the transform; the reference is plain numpy."""
  model = patch_autoencoder(1, 4, latent=3, width=7)
  params = random_params(model)
  rng = np.random.default_rng(2)
  latents, numbers = (rng.normal(size=(5, 1, k)).astype(np.float32) for k in (3, 9))
  x = latents[:, 0]
  for layer in range(3):
    weights = jax.tree.map(lambda x: np.asarray(x)[0], params[f"transform_layers_{layer}"])
    scaled = numbers[:, 0, 3 * layer : 3 * layer + 3, None] * weights["kernel"]
    x = np.einsum("nl,nlk->nk", x, scaled) + weights["bias"]
    x = np.maximum(x, 0) if layer < 2 else x
  found = model.transform(params, jnp.asarray(latents), jnp.asarray(numbers))
  np.testing.assert_allclose(found[:, 0], latents[:, 0] + x, atol=1e-5)
  ones = jnp.ones_like(numbers)
  np.testing.assert_allclose(
    model.transform(params, jnp.asarray(latents), ones),
    model.transform(params, jnp.asarray(latents)),
    atol=1e-6,
  )


def test_the_nearest_center_is_that_of_brute_force():
  model = patch_autoencoder(2, 4, latent=3, width=7, groups=6)
  params = random_params(model, scale=1.0)
  latents = np.random.default_rng(3).normal(size=(20, 2, 3)).astype(np.float32)
  found = np.asarray(model.nearest(params, jnp.asarray(latents)))
  centers = np.asarray(params["centers"])
  for channel in range(2):
    apart = np.linalg.norm(latents[:, channel, None] - centers[channel][None], axis=-1)
    np.testing.assert_allclose(found[:, channel], centers[channel][apart.argmin(1)], atol=1e-6)
  assert patch_autoencoder(2, 4, latent=3, width=7).nearest is None
