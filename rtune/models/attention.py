"""Attention as one fused kernel, on devices that have it; elsewhere the callers' own products.

Dimension key:
  B: batch
  Q, N: queries; keys
  H: attention heads
  K: width of a head
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_HALVES = (jnp.bfloat16, jnp.float16)
_AMPERE = (8, 0)  # the first generation that has the kernel


def takes(dtype: jnp.dtype, head_width: int) -> bool:
  """Whether cuDNN's flash attention takes these, in forward and backward pass."""
  return dtype in _HALVES and head_width % 8 == 0 and head_width <= 128


def has_kernel(dtype: jnp.dtype, head_width: int) -> bool:
  """Whether this machine's devices have it as well."""
  if jax.default_backend() != "gpu" or not takes(dtype, head_width):
    return False
  capability = getattr(jax.local_devices()[0], "compute_capability", "0.0")  # AMD's have none
  return tuple(int(part) for part in capability.split(".")) >= _AMPERE


def fused(
  query: Float[Array, "b q h k"],
  key: Float[Array, "b n h k"],
  value: Float[Array, "b n h k"],
  causal: bool = False,
  implementation: str = "cudnn",
) -> Float[Array, "b q h k"]:
  """Softmax attention whose scores are never in memory; queries are scaled here.

  Args:
    causal: a query sees the keys up to its own place.
    implementation: of `jax.nn.dot_product_attention`; "xla" gives the same numbers anywhere.
  """
  return jax.nn.dot_product_attention(
    query, key, value, is_causal=causal, implementation=implementation
  )
