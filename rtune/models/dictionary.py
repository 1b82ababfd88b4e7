"""The dictionary of a code model: words on the unit sphere, learned as running means.

"Neural discrete representation learning" (van den Oord et al. 2017), appendix A, with the unit
length and the revival of dead codes of UViM (2205.10337). The state is {"dictionary": running sums
[K, E], "counts": running counts [K]}, both float32; names are those of the published checkpoints.

Dimension key:
  B: batch of images
  L: codes of an image
  K: codewords
  E: width of a codeword
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_PERTURB = 0.001  # the two halves of a split codeword differ by up to this share

State = Mapping[str, Array]


def init(key: Array, size: int, width: int) -> dict[str, Array]:
  """Random words, each as if it had been used once."""
  words = jax.random.normal(key, (size, width)) / size**0.5
  return {"dictionary": words, "counts": jnp.ones(size)}


def codewords(state: State) -> Float[Array, "k e"]:
  """The words, of unit length: means differ from sums in length only."""
  words_KE = state["dictionary"]
  return words_KE / jnp.maximum(jnp.linalg.norm(words_KE, axis=-1, keepdims=True), 1e-30)


def nearest(vectors: Float[Array, "*b e"], words: Float[Array, "k e"]) -> Int[Array, "*b"]:
  """The nearest word of each vector, which is that of the largest product: all are of one length.

  In full precision, whatever the device does by default: labels shall be the same codes anywhere.
  """
  products = jnp.einsum("...e,ke->...k", vectors, words, precision=jax.lax.Precision.HIGHEST)
  return jnp.argmax(products, axis=-1).astype(jnp.int32)


def learn(
  state: State,
  codes: Int[Array, "b l"],
  vectors: Float[Array, "b l e"],
  momentum: float,
  min_count: float,
  key: Array,
) -> tuple[dict[str, Array], dict[str, Float[Array, ""]]]:
  """The state after a batch: sums and counts decay by `momentum`, and the batch is added.

  Then, while a word counts for less than `min_count`, it gives way to a copy of the most used one,
  and the two share what that one had.

  Returns:
    The new state, and of this batch: `usage`, the share of the words that occur; `perplexity`,
    exp of the entropy of their frequencies: as many words, used evenly, would say as much;
    `revived`, the words that gave way.
  """
  counts_K = jnp.zeros_like(state["counts"]).at[codes].add(1.0)
  sums_KE = jnp.zeros_like(state["dictionary"]).at[codes].add(vectors)
  decayed = {
    "dictionary": state["dictionary"] * momentum + sums_KE,
    "counts": state["counts"] * momentum + counts_K,
  }
  share_K = counts_K / codes.size
  aux = {
    "usage": jnp.mean(counts_K > 0),
    "perplexity": jnp.exp(-jnp.sum(jax.scipy.special.xlogy(share_K, share_K))),
    "revived": jnp.mean(decayed["counts"] < min_count) * counts_K.size,
  }
  return _revive(decayed, min_count, key), aux


def _revive(state: State, min_count: float, key: Array) -> dict[str, Array]:
  def some_are_dead(state):
    counts_K = state["counts"]
    # A half must be alive itself: every turn leaves a dead word less, so there are at most K.
    return jnp.any(counts_K < min_count) & (jnp.max(counts_K) / 2 >= min_count)

  def split(state):
    words_KE, counts_K = state["dictionary"], state["counts"]
    most, least = jnp.argmax(counts_K), jnp.argmin(counts_K)
    half_E, count = words_KE[most] / 2, counts_K[most] / 2
    noise_E = jax.random.uniform(
      jax.random.fold_in(key, least), half_E.shape, minval=1 - _PERTURB, maxval=1 + _PERTURB
    )
    return {
      "dictionary": words_KE.at[least].set(half_E * noise_E).at[most].set(half_E),
      "counts": counts_K.at[least].set(count).at[most].set(count),
    }

  return jax.lax.while_loop(some_are_dead, split, dict(state))
