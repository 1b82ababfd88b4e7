"""How much the answers drawn for one image differ.

Dimension key:
  B: batch of images
  S: samples for each image
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rtune.policies.policy import Actions, Sampled

_MANY = 64  # real numbers that no two draws have in common


def unique_share(actions: Actions) -> Float[Array, ""]:
  """Distinct answers of an image as a share of its samples."""
  same = [_equal(leaf) for leaf in jax.tree.leaves(actions)]
  equal_BSS = functools.reduce(jnp.logical_and, same)
  first = ~jnp.any(jnp.tril(equal_BSS, -1), axis=-1)
  return jnp.mean(first)


def copied_share(sampled: Sampled) -> Float[Array, ""] | None:
  """Images of which two samples have all of a picture in common but were drawn differently.

  That is, other actions or their log-probabilities differ. Such samples get the same reward and
  teach nothing: either nothing that was drawn shows in pictures, or the device program is wrong, as
  jax 0.10.2 once compiled one for CPU.

  Returns:
    Their share; None where no part of an answer consists of many real numbers, as none of tokens.
  """
  leaves = jax.tree.leaves(sampled.actions)
  real = [x.dtype.kind == "f" and x[0, 0].size >= _MANY for x in leaves]
  if not any(real):
    return None
  same = [_equal(leaf) for leaf in leaves]
  whole_BSS = functools.reduce(jnp.logical_and, same, _equal(sampled.log_prob))
  pictures = [equal for equal, is_real in zip(same, real, strict=True) if is_real]
  copied_BSS = functools.reduce(jnp.logical_or, pictures) & ~whole_BSS
  return jnp.mean(jnp.any(copied_BSS, axis=(1, 2)))


def _equal(leaf: Array) -> Bool[Array, "b s s"]:
  flat = leaf.reshape(*leaf.shape[:2], -1)
  return jnp.all(flat[:, :, None] == flat[:, None, :], axis=-1)
