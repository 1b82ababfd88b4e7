"""The yardstick of decoding: a cached sampler as one writes it first, and as big_vision's works.

Every sample is a row of the batch with cross-attention keys and values of its own; caches have room
for the whole sequence from the start, in the layout [rows, tokens, heads, width]; a scan takes all
steps. It reads rtune's parameters and draws the same tokens for the same key, by the same head.

Dimension key: that of models/decoder.py, and
  R: rows, B x S
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt8

from rtune.models.encoder_decoder import EncoderDecoder
from rtune.policies.heads import categorical
from rtune.policies.policy import Params, Sampled


def plain_sample(
  model: EncoderDecoder,
  params: Params,
  images: UInt8[Array, "b i i c"],
  key: Array,
  num_samples: int,
  length: int,
) -> Sampled:
  """Samples of `length` tokens each, without early end. Float32 only."""
  weights = params["decoder"]
  blocks = [weights[f"EncDecBlock{layer}"] for layer in range(model.decoder.depth)]
  memory_BND = model.apply({"params": params}, images, method="encode")
  memory_RND = jnp.repeat(memory_BND, num_samples, axis=0)
  cross = [_keys_values(block["CrossAttn"], memory_RND) for block in blocks]
  rows, heads = len(memory_RND), model.decoder.num_heads
  shape = (rows, length, heads, model.decoder.width // heads)
  caches = [(jnp.zeros(shape), jnp.zeros(shape)) for _ in blocks]

  def step(carry, position):
    token_R, caches = carry
    position_D = weights["pos_embedding"][0, position]
    x_RD = weights["EmbedTargets"]["embedding"][token_R] + position_D[None]
    filled = []
    for block, memory, cache in zip(blocks, cross, caches, strict=True):
      x_RD, cache = _block(block, x_RD, memory, cache, position)
      filled.append(cache)
    last = weights["LogitsDense"]
    logits_RV = _norm(weights["LayerNorm"], x_RD) @ last["kernel"] + last["bias"][None]
    logits_BSV = logits_RV.reshape(-1, num_samples, logits_RV.shape[-1])
    token_BS = categorical.sample(jax.random.fold_in(key, position), logits_BSV)
    log_probs_BSV = jax.nn.log_softmax(logits_BSV)
    log_prob_BS = jnp.take_along_axis(log_probs_BSV, token_BS[..., None], axis=-1)[..., 0]
    return (token_BS.reshape(-1), filled), (token_BS, log_prob_BS)

  start = jnp.zeros(rows, jnp.int32), caches
  _, (tokens_LBS, log_prob_LBS) = jax.lax.scan(step, start, jnp.arange(length))
  return Sampled(*(jnp.moveaxis(x, 0, -1) for x in (tokens_LBS, log_prob_LBS)))


def _block(block, x_RD, memory, cache, position):
  y_RD = _norm(block["LayerNorm1"], x_RD)
  new = _keys_values(block["SelfAttn"], y_RD[:, None])
  put = jax.lax.dynamic_update_slice_in_dim
  cache = tuple(put(old, fresh, position, axis=1) for old, fresh in zip(cache, new, strict=True))
  before_M = jnp.arange(cache[0].shape[1]) <= position
  x_RD = x_RD + _attend(block["SelfAttn"], y_RD, *cache, before_M[None, None])
  x_RD = x_RD + _attend(block["CrossAttn"], _norm(block["LayerNorm2"], x_RD), *memory)
  mlp, y_RD = block["MLP"], _norm(block["LayerNorm3"], x_RD)
  hidden = jax.nn.gelu(y_RD @ mlp["Dense_0"]["kernel"] + mlp["Dense_0"]["bias"][None])
  return x_RD + hidden @ mlp["Dense_1"]["kernel"] + mlp["Dense_1"]["bias"][None], cache


def _keys_values(weights, x_RND):
  return tuple(
    jnp.einsum("rnd,dhk->rnhk", x_RND, weights[name]["kernel"]) for name in ("key", "value")
  )


def _attend(weights, x_RD, keys_RMHK, values_RMHK, mask_RHM=True):
  query_RHK = jnp.einsum("rd,dhk->rhk", x_RD, weights["query"]["kernel"])
  scores = jnp.einsum("rhk,rmhk->rhm", query_RHK / query_RHK.shape[-1] ** 0.5, keys_RMHK)
  attention = jax.nn.softmax(jnp.where(mask_RHM, scores, -1e30))
  answer_RHK = jnp.einsum("rhm,rmhk->rhk", attention, values_RMHK)
  return jnp.einsum("rhk,hkd->rd", answer_RHK, weights["out"]["kernel"])


def _norm(weights, x):
  centered = x - jnp.mean(x, axis=-1, keepdims=True)
  scale = jax.lax.rsqrt(jnp.mean(centered**2, axis=-1, keepdims=True) + 1e-6)
  return centered * scale * weights["scale"][None] + weights["bias"][None]
