"""Equal layers one after the other as a loop: compiled once, whatever the depth."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def scan_layers(
  layer: nn.Module,
  params: Sequence[Any],
  x: jax.Array,
  *given: Any,
  key: jax.Array | None = None,
  remat: bool = False,
) -> jax.Array:
  """`x` through `layer` with each of `params`, called as `layer(x, *given, deterministic)`.

  The parameters stay as the unrolled model has them, so that weights and decoding need not know;
  they are stacked for the loop, which costs one copy.

  Args:
    layer: a module without a parent.
    params: one tree a layer.
    key: of dropout; None for none.
    remat: recompute each layer in the backward pass.
  """
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
  keys = None if key is None else jax.random.split(key, len(params))

  def one(x, part):
    own, key = part
    rngs = None if key is None else {"dropout": key}
    return layer.apply({"params": own}, x, *given, key is None, rngs=rngs), None

  # Within a loop nothing can be merged with the forward pass, so that need not be prevented.
  body = jax.checkpoint(one, prevent_cse=False) if remat else one
  return jax.lax.scan(body, x, (stacked, keys))[0]
