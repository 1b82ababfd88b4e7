"""A policy over token sequences: cached sampling, greedy decoding, teacher-forced log-probability.

The image is encoded once, its cross-attention keys and values are computed once, before the loop,
and shared by all samples; caches grow in blocks so that early tokens read little memory; decoding
stops when every sequence has ended.

Dimension key:
  B: batch of images
  S: samples for each image
  L: tokens of a sequence
  V: vocabulary
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rtune.devices import compiling
from rtune.models import encoder_decoder, encoders
from rtune.models.decoder import KeyValue
from rtune.models.encoder_decoder import EncoderDecoder
from rtune.models.sizes import Decoder, Encoder, Model
from rtune.policies import heads
from rtune.policies.beam import beam_search
from rtune.policies.networks import backbone_of
from rtune.policies.policy import Policy, Sampled, Scored
from rtune.policies.space import Ending, Tokens


class _Decoding(NamedTuple):
  """The carry of the decoding loop."""

  position: Int[Array, ""]
  tokens_BSL: Int[Array, "b s l"]
  log_prob_BSL: Float[Array, "b s l"]
  ended_BS: Array
  caches: tuple[KeyValue, ...]


def tokens(
  space: Tokens,
  *,
  encoder: Encoder = Encoder(),  # noqa: B008, frozen
  decoder: Decoder = Decoder(),  # noqa: B008, frozen
  dtype: str = "auto",
  remat: bool = False,
  scan_layers: bool = False,
  cache_block: int = 64,
) -> Policy:
  """The policy of a ViT and an autoregressive decoder over sequences of tokens.

  Its inputs are images [B, I, I, 3] uint8, or features of its backbone; its outputs are logits
  [B, S, L, V]. After its end a sequence is token 0 with log-probability 0. Arguments are those of
  `rtune.models.sizes.Model`.
  """
  model = Model(encoder, decoder, dtype, remat, scan_layers, cache_block)
  network = encoder_decoder.build(model, space.vocab_size, space.length)
  return autoregressive(network, space.length, space.ending, cache_block)


def autoregressive(
  model: EncoderDecoder, length: int, ending: Ending | None, cache_block: int = 64
) -> Policy:
  """The policy of an encoder-decoder over sequences of `length` tokens; see `tokens`."""

  def init(key, images):
    encoders.check_image_size(model.encoder, images.shape[1])
    return model.init(key, images, jnp.zeros((images.shape[0], 1, length), jnp.int32))["params"]

  def sample(params, images, key, num_samples: int) -> Sampled:
    def choose(logits_BSV, position):
      return heads.categorical.sample(jax.random.fold_in(key, position), logits_BSV)

    return _decode(model, params, images, choose, num_samples, length, ending, cache_block)

  def best(params, images, effort: int = 1):
    if effort > 1:
      token, stride = ending or (None, 1)
      return beam_search(model, params, images, effort, length, token, stride)

    def choose(logits_BSV, position):
      return heads.categorical.mode(logits_BSV)

    return _decode(model, params, images, choose, 1, length, ending, cache_block).actions[:, 0]

  def score(params, images, actions_BSL, key=None) -> Scored:
    rngs = None if key is None else {"dropout": key}
    logits_BSLV = model.apply({"params": params}, images, actions_BSL, rngs is None, rngs=rngs)
    mask_BSL = alive(actions_BSL, ending)
    taken_BSL = heads.categorical.log_prob(logits_BSLV, actions_BSL)
    return Scored(taken_BSL * mask_BSL, mask_BSL, logits_BSLV)

  return Policy(
    init,
    sample,
    score,
    best,
    entropy=lambda scored: heads.categorical.entropy(scored.outputs),
    divergence=lambda scored, reference: heads.categorical.kl(scored.outputs, reference.outputs),
    describe=lambda scored: {"length": jnp.sum(scored.mask, axis=-1)},
    search="beam",
    backbone=backbone_of(model),
    compiler_options=compiling.of_decoding(model.decoder.width, model.decoder.dtype),
  )


def alive(actions: Int[Array, "*b l"], ending: Ending | None) -> Float[Array, "*b l"]:
  """1 up to and including the token that ends a sequence, 0 after it."""
  if ending is None:
    return jnp.ones(actions.shape, jnp.float32)
  at_start = jnp.arange(actions.shape[-1]) % ending.stride == 0
  at_start = at_start.reshape(*[1] * (actions.ndim - 1), -1)
  ends = ((actions == ending.token) & at_start).astype(jnp.int32)
  ended_before = jnp.cumsum(ends, axis=-1) - ends
  return (ended_before == 0).astype(jnp.float32)


def _decode(
  model: EncoderDecoder,
  params,
  images,
  choose: Callable[[Array, Array], Array],
  num_samples: int,
  length: int,
  ending: Ending | None,
  cache_block: int,
) -> Sampled:
  """Runs the model token by token; `choose` picks one from logits [B, S, V] and the position."""
  memory_BND = model.apply({"params": params}, images, method="encode")
  # Cast once what every step would cast again; norms compute with float32 scales.
  dtype = model.decoder.dtype
  variables = {"params": jax.tree.map(lambda x: x.astype(dtype) if x.ndim > 1 else x, params)}
  memory = model.apply(variables, memory_BND, method="of_memory")
  batch = images.shape[0]

  def step(state: _Decoding) -> _Decoding:
    position = state.position
    previous = jax.lax.dynamic_index_in_dim(
      state.tokens_BSL, jnp.maximum(position - 1, 0), axis=2, keepdims=False
    )
    previous = jnp.where(position == 0, 0, previous)
    logits_BSV, caches = model.apply(
      variables, previous, position, memory, state.caches, method="step"
    )
    token_BS = jnp.where(state.ended_BS, 0, choose(logits_BSV, position)).astype(jnp.int32)
    log_prob_BS = jnp.where(state.ended_BS, 0.0, heads.categorical.log_prob(logits_BSV, token_BS))
    ended_BS = state.ended_BS
    if ending is not None:
      ended_BS |= (token_BS == ending.token) & (position % ending.stride == 0)
    put = jax.lax.dynamic_update_index_in_dim
    return _Decoding(
      position + 1,
      put(state.tokens_BSL, token_BS, position, axis=2),
      put(state.log_prob_BSL, log_prob_BS, position, axis=2),
      ended_BS,
      caches,
    )

  state = _Decoding(
    jnp.zeros((), jnp.int32),
    jnp.zeros((batch, num_samples, length), jnp.int32),
    jnp.zeros((batch, num_samples, length), jnp.float32),
    jnp.zeros((batch, num_samples), bool),
    model.decoder.empty_cache(batch, num_samples, min(cache_block, length)),
  )
  for start in range(0, length, cache_block):
    end = min(start + cache_block, length)
    state = state._replace(caches=jax.tree.map(lambda x, end=end: _grow(x, end), state.caches))

    def unfinished(s, end=end):
      return (s.position < end) & ~jnp.all(s.ended_BS)

    state = jax.lax.while_loop(unfinished, step, state)
  return Sampled(state.tokens_BSL, state.log_prob_BSL)


def _grow(cache_BSHMK: Array, size: int) -> Array:
  """The cache with room for `size` tokens."""
  missing = size - cache_BSHMK.shape[3]
  return jnp.pad(cache_BSHMK, ((0, 0), (0, 0), (0, 0), (0, missing), (0, 0)))
