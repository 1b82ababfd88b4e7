"""cuDNN's attention gives what XLA's gives, up to the rounding of bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.models import attention

pytestmark = pytest.mark.gpu
# Queries, keys, heads, width of a head, causal: an encoder at 640 px, a decoder's 600 tokens, two
# samples of them on an image, odd numbers as registers make them, and the size of small configs.
SIZES = (
  (1600, 1600, 12, 64, False),
  (600, 600, 8, 64, True),
  (1200, 1600, 8, 64, False),
  (197, 197, 3, 64, False),
  (30, 36, 2, 16, False),
)


def output_and_gradients(implementation, dtype, given, weights, causal):
  def weighted(query, key, value):
    answer = attention.fused(query, key, value, causal, implementation)
    return jnp.sum(answer.astype(jnp.float32) * weights), answer

  parts = [part.astype(dtype) for part in given]
  # Strict promotion is for our own code: XLA's version adds up halves in float32.
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    grads, answer = jax.jit(jax.grad(weighted, argnums=(0, 1, 2), has_aux=True))(*parts)
  return [np.asarray(part, np.float32) for part in (answer, *grads)]


def distances(found, want):
  return [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(found, want, strict=True)]


@pytest.mark.parametrize(("queries", "keys", "heads", "width", "causal"), SIZES)
def test_cudnn_is_as_near_to_float32_as_xla(queries, keys, heads, width, causal, exact):
  assert attention.has_kernel(jnp.dtype(jnp.bfloat16), width)
  rng = np.random.default_rng(0)
  shapes = [(2, number, heads, width) for number in (queries, keys, keys, queries)]
  *given, weights = [jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in shapes]
  weights = weights.astype(jnp.float32)
  want = output_and_gradients("xla", jnp.float32, given, weights, causal)
  cudnn, xla = (
    distances(output_and_gradients(name, jnp.bfloat16, given, weights, causal), want)
    for name in ("cudnn", "xla")
  )
  assert max(cudnn) < 1e-2
  assert max(cudnn) < 3 * max(xla) + 1e-3


@pytest.mark.parametrize("queries", [1, 2, 8])
def test_cudnn_takes_the_few_queries_of_a_step_of_decoding(queries, exact):
  rng = np.random.default_rng(0)
  shapes = [(4, number, 8, 64) for number in (queries, 1600, 1600)]
  given = [jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in shapes]
  want = jax.jit(lambda *x: attention.fused(*x, implementation="xla"))(
    *(part.astype(jnp.float32) for part in given)
  )
  found = jax.jit(attention.fused)(*given).astype(jnp.float32)
  assert np.linalg.norm(found - want) < 1e-2 * np.linalg.norm(want)
