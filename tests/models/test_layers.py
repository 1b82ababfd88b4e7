"""What layers keep for their backward pass is what the plan of memory counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.models.layers import LayerNorm, Mlp


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
