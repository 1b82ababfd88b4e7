"""Distributions of single decisions, each a record of the same five functions.

Policies share them: tokens and label maps are categorical, images and an agent's numbers normal.

Dimension key:
  V: values of a categorical decision
  G: groups of them, by how rare they are
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
RARE = (2.0**-10, 2.0**-20)  # probabilities below these are summed apart, before the others


class Normal(NamedTuple):
  """Parameters of independent normal numbers."""

  mean: Float[Array, "..."]
  scale: Float[Array, "..."]  # standard deviation, above 0


class Head(NamedTuple):
  """A distribution's functions of its parameters: logits [..., V], or `Normal`.

  Attributes:
    sample: (key, parameters, *shape) -> values; `shape` leading dimensions come on top.
    log_prob: (parameters, values) -> log-probability, or density, of each value.
    mode: parameters -> the likeliest values.
    entropy: parameters -> nats of each value's distribution.
    kl: (parameters, reference parameters) -> nats, KL(first || second).
  """

  sample: Callable[..., Array]
  log_prob: Callable[..., Float[Array, "..."]]
  mode: Callable[..., Array]
  entropy: Callable[..., Float[Array, "..."]]
  kl: Callable[..., Float[Array, "..."]]


def fine_uniform(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
  """Numbers in [0, 1) that are as fine near 0 as float32 is; jax's own are multiples of 2**-23."""
  coarse, fine = jax.random.uniform(key, (2, *shape))
  return jnp.minimum(coarse + fine * 2.0**-23, 1 - 2.0**-24)


def largest(values: Float[Array, "*b v"]) -> Int[Array, "*b"]:
  """`argmax` over V, the first of equals, by two plain reductions: one of pairs is slow on CPU."""
  size = values.shape[-1]
  is_largest = values == jnp.max(values, axis=-1, keepdims=True)
  # Where all are NaN none is, and the last token is as good as any.
  place = jnp.arange(size).reshape(*[1] * (values.ndim - 1), size)
  return jnp.min(jnp.where(is_largest, place, size - 1), axis=-1)


def _categorical_sample(key: Array, logits: Float[Array, "*b v"], *shape: int) -> Int[Array, "..."]:
  """By inverse CDF: one number drawn for each value, where noise to be added would be V numbers.

  Rare values come first, where both the CDF and what is drawn are fine: in one sum over all values
  those below 1e-7 would be rounded away, as Gumbel noise in float32 never lets them win.
  """
  probability = jax.nn.softmax(logits).reshape(*[1] * len(shape), *logits.shape)
  level = sum((probability < least).astype(jnp.int32) for least in RARE)
  group = jnp.arange(len(RARE), -1, -1).reshape(*[1] * (probability.ndim - 1), -1, 1)
  own = jnp.where(level[..., None, :] == group, probability[..., None, :], 0.0)
  cdf_GV = jnp.cumsum(own, axis=-1)  # one scan for all groups
  ends = list(itertools.accumulate(jnp.moveaxis(cdf_GV[..., -1], -1, 0)))
  starts = jnp.stack([jnp.zeros_like(ends[0]), *ends[:-1]], axis=-1)[..., None]
  drawn = fine_uniform(key, (*shape, *logits.shape[:-1])) * ends[-1]
  # The first value whose CDF exceeds what is drawn, in the first group that reaches so far.
  first = jnp.sum(starts + cdf_GV <= drawn[..., None, None], axis=-1)
  values = first[..., -1]
  for place in range(len(RARE) - 1, -1, -1):
    values = jnp.where(drawn < ends[place], first[..., place], values)
  return values


def _categorical_log_prob(
  logits: Float[Array, "*#b v"], values: Int[Array, "*#b"]
) -> Float[Array, "*#b"]:
  """A gather minus logsumexp, no one-hot over V. Values may share logits, whose dimension is 1."""
  taken = jnp.take_along_axis(logits, values[..., None], axis=-1)[..., 0]
  return taken - jax.nn.logsumexp(logits, axis=-1)


def _categorical_entropy(logits: Float[Array, "*b v"]) -> Float[Array, "*b"]:
  log_probs = jax.nn.log_softmax(logits)
  return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def _categorical_kl(
  logits: Float[Array, "*b v"], reference: Float[Array, "*b v"]
) -> Float[Array, "*b"]:
  log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(reference)
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def _of_one_rank(*arrays: Array) -> list[Array]:
  """Dimensions of 1 in front of those that have fewer dimensions than others."""
  rank = max(x.ndim for x in arrays)
  return [x.reshape(*[1] * (rank - x.ndim), *x.shape) for x in arrays]


def _normal_sample(key: Array, at: Normal, *shape: int) -> Array:
  noise = jax.random.normal(key, (*shape, *jnp.broadcast_shapes(at.mean.shape, at.scale.shape)))
  mean, scale, noise = _of_one_rank(*at, noise)
  return mean + scale * noise


def _normal_log_prob(at: Normal, values: Float[Array, "..."]) -> Float[Array, "..."]:
  mean, scale, values = _of_one_rank(*at, values)
  return -0.5 * ((values - mean) / scale) ** 2 - jnp.log(scale) - _HALF_LOG_2PI


def _normal_mode(at: Normal) -> Float[Array, "..."]:
  return at.mean


def _normal_entropy(at: Normal) -> Float[Array, "..."]:
  mean, scale = _of_one_rank(*at)
  return jnp.log(scale) + _HALF_LOG_2PI + 0.5 + jnp.zeros_like(mean)


def _normal_kl(at: Normal, reference: Normal) -> Float[Array, "..."]:
  mean, scale, other_mean, other_scale = _of_one_rank(*at, *reference)
  ratio = (scale / other_scale) ** 2
  distance = ((mean - other_mean) / other_scale) ** 2
  return 0.5 * (ratio + distance - 1 - jnp.log(ratio))


categorical = Head(
  _categorical_sample, _categorical_log_prob, largest, _categorical_entropy, _categorical_kl
)
normal = Head(_normal_sample, _normal_log_prob, _normal_mode, _normal_entropy, _normal_kl)
