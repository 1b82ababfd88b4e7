"""The Laplace distribution as a head: its log-likelihood is the mean absolute error."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.policies.heads import Head, Normal, normal


def _sample(key: Array, at: Normal, *shape: int) -> Array:
  noise = jax.random.laplace(key, (*shape, *jnp.broadcast_shapes(at.mean.shape, at.scale.shape)))
  mean, scale, noise = _of_one_rank(*at, noise)
  return mean + scale * noise


def _log_prob(at: Normal, values: Float[Array, "..."]) -> Float[Array, "..."]:
  mean, scale, values = _of_one_rank(*at, values)
  return -jnp.abs(values - mean) / scale - jnp.log(2 * scale)


def _entropy(at: Normal) -> Float[Array, "..."]:
  mean, scale = _of_one_rank(*at)
  return 1 + jnp.log(2 * scale) + jnp.zeros_like(mean)


def _kl(at: Normal, reference: Normal) -> Float[Array, "..."]:
  mean, scale, other_mean, other_scale = _of_one_rank(*at, *reference)
  apart = jnp.abs(mean - other_mean)
  spread = scale * jnp.exp(-apart / scale) + apart
  return spread / other_scale - 1 + jnp.log(other_scale / scale)


def _of_one_rank(*arrays: Array) -> list[Array]:
  """Dimensions of 1 in front of those that have fewer dimensions than others."""
  rank = max(x.ndim for x in arrays)
  return [x.reshape(*[1] * (rank - x.ndim), *x.shape) for x in arrays]


laplace = Head(_sample, _log_prob, normal.mode, _entropy, _kl)
