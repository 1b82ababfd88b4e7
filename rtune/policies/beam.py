"""Beam search: of the answers that grow from the K likeliest beginnings the likeliest one.

Likelihood is the sum of log-probabilities, with no bonus for length: what is looked for is the mode
of the distribution that is sampled and tuned. Greedy decoding is a beam of one.

Dimension key: that of policy.py, and
  K: beginnings that are kept, which stand where samples do
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rtune.models.decoder import KeyValue
from rtune.models.encoder_decoder import EncoderDecoder

_NEVER = -1e30  # finite: a difference of two of these is no NaN


class _Beams(NamedTuple):
  """The carry of the loop; the beginnings are ordered, the likeliest first."""

  position: Int[Array, ""]
  tokens_BKL: Int[Array, "b k l"]
  log_prob_BK: Float[Array, "b k"]
  ended_BK: Bool[Array, "b k"]
  caches: tuple[KeyValue, ...]


def beam_search(
  model: EncoderDecoder, params, images, beam: int, length: int, token: int | None, stride: int
) -> Int[Array, "b l"]:
  """The likeliest answer of each image that a beam of `beam` finds; token 0 after its end.

  Args:
    length: tokens of an answer.
    token, stride: where it ends, as in `Ending`; token None: nowhere before `length`.
  """
  variables = {"params": params}
  memory = model.apply(
    variables, model.apply(variables, images, method="encode"), method="of_memory"
  )
  batch = images.shape[0]

  def unfinished(state: _Beams):
    # Log-probabilities only fall, so nothing can overtake a first one that has ended.
    return (state.position < length) & ~jnp.all(state.ended_BK[:, 0])

  def step(state: _Beams) -> _Beams:
    position = state.position
    previous_BK = jnp.take(state.tokens_BKL, jnp.maximum(position - 1, 0), axis=2)
    previous_BK = jnp.where(position == 0, 0, previous_BK)
    logits_BKV, caches = model.apply(
      variables, previous_BK, position, memory, state.caches, method="step"
    )
    log_prob_BKV = state.log_prob_BK[..., None] + _continued(logits_BKV, state.ended_BK)
    vocab = log_prob_BKV.shape[-1]
    log_prob_BK, place_BK = jax.lax.top_k(log_prob_BKV.reshape(batch, -1), beam)
    parent_BK, token_BK = place_BK // vocab, place_BK % vocab

    def follow(x):
      index = parent_BK.reshape(batch, beam, *[1] * (x.ndim - 2))
      return jnp.take_along_axis(x, index, axis=1)

    ended_BK = follow(state.ended_BK)
    if token is not None:
      ended_BK |= (token_BK == token) & (position % stride == 0)
    tokens_BKL = jax.lax.dynamic_update_index_in_dim(
      follow(state.tokens_BKL), token_BK.astype(jnp.int32), position, axis=2
    )
    return _Beams(position + 1, tokens_BKL, log_prob_BK, ended_BK, jax.tree.map(follow, caches))

  # At first there is one beginning, the empty one.
  first_BK = jnp.broadcast_to(jnp.where(jnp.arange(beam) == 0, 0.0, _NEVER), (batch, beam))
  state = _Beams(
    jnp.zeros((), jnp.int32),
    jnp.zeros((batch, beam, length), jnp.int32),
    first_BK,
    jnp.zeros((batch, beam), bool),
    model.decoder.empty_cache(batch, beam, length),
  )
  return jax.lax.while_loop(unfinished, step, state).tokens_BKL[:, 0]


def _continued(
  logits_BKV: Float[Array, "b k v"], ended_BK: Bool[Array, "b k"]
) -> Float[Array, "b k v"]:
  """Log-probability of each next token; an answer that has ended goes on with token 0, surely."""
  only_zero_V = jnp.where(jnp.arange(logits_BKV.shape[-1]) == 0, 0.0, _NEVER)
  return jnp.where(ended_BK[..., None], only_zero_V[None, None], jax.nn.log_softmax(logits_BKV))
