"""What layers keep for their backward pass is what the plan of memory counts; their products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.models.layers import LayerNorm, Mlp, product


def kept(layer, x, *given):
  """Numbers that wait for the backward pass, beside the parameters."""
  params = layer.init(jax.random.key(0), x, *given)
  _, backward = jax.vjp(lambda p, x: layer.apply(p, x, *given), params, x)
  weights = {leaf.shape for leaf in jax.tree.leaves(params)}
  return [leaf for leaf in jax.tree.leaves(backward) if leaf.shape not in weights and leaf.ndim]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_a_norm_keeps_its_input(dtype):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 8)), dtype)
  (only,) = kept(LayerNorm(dtype=dtype), x)
  np.testing.assert_array_equal(only, x)


@pytest.mark.parametrize("gelu", ["tanh", "exact"])
def test_an_mlp_keeps_its_input_and_its_hidden_layer_twice(gelu):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 8)), jnp.bfloat16)
  shapes = sorted(leaf.shape for leaf in kept(Mlp(32, jnp.dtype(jnp.bfloat16), gelu=gelu), x, True))
  assert shapes == [(3, 5, 8), (3, 5, 32), (3, 5, 32)]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_products_are_rounded_once(dtype):
  """Sums of 4,096 products, of which bfloat16 alone would lose most."""
  rng = np.random.default_rng(0)
  given = [jnp.asarray(rng.normal(size=shape), dtype) for shape in ((5, 4096), (4096, 7))]
  exact = np.matmul(*(np.asarray(x, np.float64) for x in given))
  rounded = np.asarray(jnp.asarray(exact, dtype), np.float64)
  numbers = (((1,), (0,)), ((), ()))
  found = jax.jit(lambda x, y: product(x, y, numbers))(*given)
  assert found.dtype == dtype
  # Two roundings to 8 bits that fall on either side of a tie; 24 bits of sums.
  np.testing.assert_allclose(found, rounded, rtol=2**-7 if dtype == jnp.bfloat16 else 1e-3)
  assert np.mean(np.asarray(found, np.float64) == rounded) > 0.9 or dtype == jnp.float32
  assert product(*given, numbers, None, jnp.float32).dtype == jnp.float32


def test_cpus_get_products_of_halves_with_float32_sums():
  """Others would be made float32, weights and all."""
  x, kernel = (jnp.zeros(shape, jnp.bfloat16) for shape in ((4, 8), (8, 16)))
  text = jax.jit(lambda *xy: product(*xy, (((1,), (0,)), ((), ())))).lower(x, kernel).as_text()
  assert "(tensor<4x8xbf16>, tensor<8x16xbf16>) -> tensor<4x16xf32>" in text


def test_norms_are_exact_where_the_mean_is_large():
  """As mean of squares less square of mean the variance of these would be noise."""
  x = 1e4 + np.random.default_rng(0).normal(size=(3, 64))
  found = LayerNorm(dtype=jnp.float32).apply(
    {"params": {"scale": jnp.ones(64), "bias": jnp.zeros(64)}}, jnp.asarray(x, jnp.float32)
  )
  want = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
  np.testing.assert_allclose(found, want, atol=5e-3)
