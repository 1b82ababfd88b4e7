"""Autoregressive Transformer decoder with cross-attention; caches are arrays in and out.

S samples of one image share its memory: they stand beside the query axis of the cross-attention,
so nothing of the image is ever tiled. Block names are those of UViM's `vtt.py`.

Dimension key:
  B: batch
  S: samples for each image
  L, M: tokens of a sequence; M as keys
  N: memory tokens (image patches)
  D: width
  H: attention heads
  K: width of a head
  V: vocabulary
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rtune.models import attention
from rtune.models.layers import DropPath, LayerNorm, Mlp, product
from rtune.models.scan import scan_layers


class KeyValue(NamedTuple):
  """Keys and values of one attention layer.

  Of tokens both are [B, S, H, M, K]. Of an image keys are [B, H, K, N], values [B, H, N, K]: as the
  products of attention take them, so that no step of decoding turns them again.
  """

  key: Float[Array, "..."]
  value: Float[Array, "..."]


class Fixed(NamedTuple):
  """What all decoding steps of one layer share.

  Attributes:
    memory: cross-attention's keys and values of the images.
    qkv: kernels of self-attention's query, key and value side by side, [D, 3 H, K]: one product
      instead of three.
  """

  memory: KeyValue
  qkv: Float[Array, "d h k"]


def _softmax(scores):
  return jax.nn.softmax(scores.astype(jnp.float32), axis=-1)


class Attention(nn.Module):
  """Projections of one multi-head attention; the callers own masks and caches."""

  width: int
  num_heads: int
  dtype: jnp.dtype

  def setup(self):
    heads = (self.num_heads, self.width // self.num_heads)
    init = nn.initializers.xavier_uniform()

    def project(features, axis):
      kind = {"use_bias": False, "dtype": self.dtype, "dot_general": product}
      return nn.DenseGeneral(features, axis=axis, kernel_init=init, **kind)

    self.query = project(heads, -1)
    self.key = project(heads, -1)
    self.value = project(heads, -1)
    self.out = project(self.width, (-2, -1))

  @property
  def head_width(self) -> int:
    return self.width // self.num_heads

  def queries(self, x):
    """[..., D] -> [..., H, K], scaled."""
    return self.query(x) * self.head_width**-0.5

  def of_memory(self, memory_BND) -> KeyValue:
    """Keys and values of an image, once for all its samples and all decoding steps."""

    key_BHKN = jnp.einsum("bnhk->bhkn", self.key(memory_BND))
    value_BHNK = jnp.einsum("bnhk->bhnk", self.value(memory_BND))
    return KeyValue(key_BHKN, value_BHNK)

  def cross(self, x_BSLD, memory: KeyValue):
    """Every token of every sample attends to its image."""
    batch, samples, length, _ = x_BSLD.shape
    if length > 1 and attention.has_kernel(self.dtype, self.head_width):
      query_BQHK = self.query(x_BSLD).reshape(batch, samples * length, self.num_heads, -1)
      key_BNHK = jnp.einsum("bhkn->bnhk", memory.key)
      answer_BQHK = attention.fused(query_BQHK, key_BNHK, jnp.einsum("bhnk->bnhk", memory.value))
      return self.out(answer_BQHK.reshape(batch, samples, length, self.num_heads, -1))
    query_BHQK = jnp.einsum("bslhk->bhslk", self.queries(x_BSLD)).reshape(
      batch, self.num_heads, samples * length, -1
    )
    weights_BHQN = _softmax(query_BHQK @ memory.key).astype(self.dtype)
    answer_BHSLK = (weights_BHQN @ memory.value).reshape(batch, self.num_heads, samples, length, -1)
    return self.out(jnp.einsum("bhslk->bslhk", answer_BHSLK))

  def causal(self, x_BSLD):
    """Every token attends to itself and to those before it in its sample."""
    length = x_BSLD.shape[2]
    if attention.has_kernel(self.dtype, self.head_width):
      heads = (-1, length, self.num_heads, self.head_width)
      projected = [part(x_BSLD) for part in (self.query, self.key, self.value)]
      answer = attention.fused(*(x.reshape(heads) for x in projected), causal=True)
      return self.out(answer.reshape(projected[0].shape))
    scores = jnp.einsum("bslhk,bsmhk->bshlm", self.queries(x_BSLD), self.key(x_BSLD))
    mask_LM = jnp.tril(jnp.ones((length, length), bool))
    weights = _softmax(jnp.where(mask_LM[None, None, None], scores, -1e30)).astype(self.dtype)
    return self.out(jnp.einsum("bshlm,bsmhk->bslhk", weights, self.value(x_BSLD)))

  def joined(self):
    """The kernels of query, key and value as one, for `cached`."""
    kernels = [part.variables["params"]["kernel"] for part in (self.query, self.key, self.value)]
    return jnp.concatenate(kernels, axis=1).astype(self.dtype)

  def cached(self, x_BSD, position, cache: KeyValue, qkv):
    """One new token a sample attends to the cache, which is returned with the token in it."""
    scale = self.head_width**-0.5
    query, key, value = jnp.split(product(x_BSD, qkv, (((2,), (0,)), ((), ()))), 3, axis=2)

    def put(cache_BSHMK, new_BSHK):
      new_BSHMK = new_BSHK[:, :, :, None].astype(cache_BSHMK.dtype)
      return jax.lax.dynamic_update_slice_in_dim(cache_BSHMK, new_BSHMK, position, axis=3)

    cache = KeyValue(put(cache.key, key), put(cache.value, value))
    scores = jnp.einsum("bshk,bshmk->bshm", query * scale, cache.key)
    mask_M = jnp.arange(cache.key.shape[3]) <= position
    weights = _softmax(jnp.where(mask_M[None, None, None], scores, -1e30)).astype(self.dtype)
    return self.out(jnp.einsum("bshm,bshmk->bshk", weights, cache.value)), cache


class DecoderBlock(nn.Module):
  """Pre-norm self-attention, cross-attention and MLP."""

  width: int
  num_heads: int
  mlp_dim: int
  dtype: jnp.dtype
  dropout: float = 0.0
  drop_path: float = 0.0

  def setup(self):
    self.LayerNorm1 = LayerNorm(dtype=self.dtype)
    self.LayerNorm2 = LayerNorm(dtype=self.dtype)
    self.LayerNorm3 = LayerNorm(dtype=self.dtype)
    self.SelfAttn = Attention(self.width, self.num_heads, self.dtype)
    self.CrossAttn = Attention(self.width, self.num_heads, self.dtype)
    self.MLP = Mlp(self.mlp_dim, self.dtype, self.dropout)
    self.drop = nn.Dropout(self.dropout)
    self.skip = DropPath(self.drop_path)

  def __call__(self, x_BSLD, memory_BND, deterministic: bool):
    def residual(x, branch):
      return x + self.skip(self.drop(branch, deterministic), deterministic)

    memory = self.CrossAttn.of_memory(memory_BND)
    x_BSLD = residual(x_BSLD, self.SelfAttn.causal(self.LayerNorm1(x_BSLD)))
    x_BSLD = residual(x_BSLD, self.CrossAttn.cross(self.LayerNorm2(x_BSLD), memory))
    return residual(x_BSLD, self.MLP(self.LayerNorm3(x_BSLD), deterministic))

  def of_memory(self, memory_BND) -> Fixed:
    return Fixed(self.CrossAttn.of_memory(memory_BND), self.SelfAttn.joined())

  def step(self, x_BSD, position, fixed: Fixed, cache: KeyValue):
    branch, cache = self.SelfAttn.cached(self.LayerNorm1(x_BSD), position, cache, fixed.qkv)
    x_BSD = x_BSD + branch
    x_BSLD = self.LayerNorm2(x_BSD)[:, :, None]
    x_BSD = x_BSD + self.CrossAttn.cross(x_BSLD, fixed.memory)[:, :, 0]
    return x_BSD + self.MLP(self.LayerNorm3(x_BSD), True), cache


class Logits(nn.Module):
  """The last layer: products of the type of compute, added up and left in float32.

  Rounded to bfloat16, logits near 8 are 0.03 apart, and so are the log-probabilities made of them.
  """

  vocab_size: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
    zeros, width = nn.initializers.zeros, x.shape[-1]
    kernel_DV = self.param("kernel", zeros, (width, self.vocab_size)).astype(self.dtype)
    bias_V = self.param("bias", zeros, (self.vocab_size,))
    logits = jnp.einsum(
      "...d,dv->...v", x.astype(self.dtype), kernel_DV, preferred_element_type=jnp.float32
    )
    return logits + bias_V.astype(jnp.float32).reshape(*[1] * (x.ndim - 1), -1)


class Decoder(nn.Module):
  """Memory of an image and the tokens so far -> logits of the next token."""

  vocab_size: int
  max_length: int
  width: int
  depth: int
  num_heads: int
  mlp_dim: int
  dtype: jnp.dtype
  dropout: float = 0.0
  drop_path: float = 0.0
  remat: bool = False
  scan: bool = False

  def setup(self):
    # The rule of init that keeps logits near zero: uniform predictions at the first step.
    self.EmbedTargets = nn.Embed(
      self.vocab_size, self.width, dtype=self.dtype, embedding_init=nn.initializers.normal(1.0)
    )
    init = nn.initializers.normal(1 / self.width**0.5)
    self.pos_embedding = self.param("pos_embedding", init, (1, self.max_length, self.width))
    block = nn.remat(DecoderBlock, static_argnums=(3,)) if self.remat else DecoderBlock
    self.blocks = [
      block(
        *self._sizes,
        self.drop_path * layer / max(self.depth - 1, 1),
        name=f"EncDecBlock{layer}",
      )
      for layer in range(self.depth)
    ]
    self.LayerNorm = LayerNorm(dtype=self.dtype)
    self.LogitsDense = Logits(self.vocab_size, self.dtype)

  @property
  def _sizes(self):
    return self.width, self.num_heads, self.mlp_dim, self.dtype, self.dropout

  def __call__(
    self,
    memory_BND: Float[Array, "b n d"],
    tokens_BSL: Int[Array, "b s l"],
    deterministic: bool = True,
  ) -> Float[Array, "b s l v"]:
    """Teacher forcing: logits at each position given the tokens before it; token 0 opens."""
    inputs_BSL = jnp.pad(tokens_BSL, ((0, 0), (0, 0), (1, 0)))[:, :, :-1]
    position_LD = self.pos_embedding[0, : inputs_BSL.shape[2]].astype(self.dtype)
    x_BSLD = self.EmbedTargets(inputs_BSL) + position_LD[None, None]
    if self.scan and not self.is_initializing():
      params = [self.variables["params"][f"EncDecBlock{layer}"] for layer in range(self.depth)]
      layer = DecoderBlock(*self._sizes, parent=None)
      key = None if deterministic else self.make_rng("dropout")
      x_BSLD = scan_layers(layer, params, x_BSLD, memory_BND, key=key, remat=self.remat)
    else:
      for block in self.blocks:
        x_BSLD = block(x_BSLD, memory_BND, deterministic)
    return self.LogitsDense(self.LayerNorm(x_BSLD))

  def of_memory(self, memory_BND: Float[Array, "b n d"]) -> tuple[Fixed, ...]:
    """What the steps of every layer share, computed once, before the first."""
    return tuple(block.of_memory(memory_BND) for block in self.blocks)

  def empty_cache(self, batch: int, samples: int, length: int) -> tuple[KeyValue, ...]:
    """Caches for `length` tokens, one a layer."""
    shape = (batch, samples, self.num_heads, length, self.width // self.num_heads)
    return tuple(
      KeyValue(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))
      for _ in range(self.depth)
    )

  def step(
    self,
    token_BS: Int[Array, "b s"],
    position: Int[Array, ""],
    memory: tuple[Fixed, ...],
    caches: tuple[KeyValue, ...],
  ) -> tuple[Float[Array, "b s v"], tuple[KeyValue, ...]]:
    """Logits at `position`, given the token before it and the caches of those before that."""
    position_D = self.pos_embedding[0, position].astype(self.dtype)
    x_BSD = self.EmbedTargets(token_BS) + position_D[None, None]
    new_caches = []
    for block, fixed, cache in zip(self.blocks, memory, caches, strict=True):
      x_BSD, cache = block.step(x_BSD, position, fixed, cache)
      new_caches.append(cache)
    logits_BSV = self.LogitsDense(self.LayerNorm(x_BSD))
    return logits_BSV, tuple(new_caches)
