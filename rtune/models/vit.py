"""Vision Transformer encoder (Dosovitskiy et al. 2021), as the policies here need it: tokens out.

Parameter names and layouts are those of big_vision's `models/vit.py`, so its weights load by name.

Dimension key:
  B: batch
  I: image height and width in pixels
  N: patches
  D: width
  H: attention heads
  C: channels of the image or of a stem layer
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models import attention
from rtune.models.scan import scan_layers

# name -> (width, depth, mlp_dim, heads). Table 2 of "Scaling Vision Transformers" (2106.04560).
VARIANTS = {
  "Ti": (192, 12, 768, 3),
  "S": (384, 12, 1536, 6),
  "B": (768, 12, 3072, 12),
  "L": (1024, 24, 4096, 16),
  "H": (1280, 32, 5120, 16),
}


def compute_dtype(name: str) -> jnp.dtype:
  """The type that a config names; "auto" is bfloat16, but float32 on CPUs, which emulate that."""
  auto = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  return jnp.dtype(auto if name == "auto" else name)


class LayerNorm(nn.LayerNorm):
  """Flax's, where JAX's promotion is strict: it subtracts a float32 mean from halves."""

  def __call__(self, x):
    with jax.numpy_dtype_promotion("standard"):
      return super().__call__(x)


class Mlp(nn.Module):
  """Two dense layers with GELU between them."""

  mlp_dim: int
  dtype: jnp.dtype
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, deterministic: bool):
    init = {
      "kernel_init": nn.initializers.xavier_uniform(),
      "bias_init": nn.initializers.normal(1e-6),
    }
    hidden = nn.gelu(nn.Dense(self.mlp_dim, dtype=self.dtype, **init)(x))
    hidden = nn.Dropout(self.dropout)(hidden, deterministic)
    return nn.Dense(x.shape[-1], dtype=self.dtype, **init)(hidden)


class DropPath(nn.Module):
  """Stochastic depth (Huang et al. 2016): leaves a residual branch out for whole examples."""

  rate: float

  @nn.compact
  def __call__(self, branch, deterministic: bool):
    if deterministic or self.rate == 0.0:
      return branch
    shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
    keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, shape)
    return jnp.where(keep, branch / (1 - self.rate), 0).astype(branch.dtype)


def _fused(query, key, value, **_):
  """What `nn.MultiHeadDotProductAttention` calls where there is a kernel."""
  return attention.fused(query, key, value)


class Block(nn.Module):
  """Pre-norm self-attention and MLP."""

  num_heads: int
  mlp_dim: int
  dtype: jnp.dtype
  dropout: float = 0.0
  drop_path: float = 0.0

  @nn.compact
  def __call__(self, x_BND, deterministic: bool):
    branch = LayerNorm(dtype=self.dtype, name="LayerNorm_0")(x_BND)
    kernel = attention.has_kernel(self.dtype, x_BND.shape[-1] // self.num_heads)
    branch = nn.MultiHeadDotProductAttention(
      attention_fn=_fused if kernel else nn.dot_product_attention,
      num_heads=self.num_heads,
      kernel_init=nn.initializers.xavier_uniform(),
      dtype=self.dtype,
      name="MultiHeadDotProductAttention_0",
    )(branch, branch)
    branch = nn.Dropout(self.dropout)(branch, deterministic)
    x_BND = x_BND + DropPath(self.drop_path)(branch, deterministic)
    branch = LayerNorm(dtype=self.dtype, name="LayerNorm_1")(x_BND)
    branch = Mlp(self.mlp_dim, self.dtype, self.dropout, name="MlpBlock_0")(branch, deterministic)
    branch = nn.Dropout(self.dropout)(branch, deterministic)
    return x_BND + DropPath(self.drop_path)(branch, deterministic)


class Stack(nn.Module):
  """The Transformer blocks and the final norm."""

  depth: int
  num_heads: int
  mlp_dim: int
  dtype: jnp.dtype
  dropout: float = 0.0
  drop_path: float = 0.0
  remat: bool = False
  scan: bool = False

  @nn.compact
  def __call__(self, x_BND, deterministic: bool):
    names = [f"encoderblock_{layer}" for layer in range(self.depth)]
    sizes = (self.num_heads, self.mlp_dim, self.dtype, self.dropout)
    if self.scan and not self.is_initializing():
      params = [self.variables["params"][name] for name in names]
      key = None if deterministic else self.make_rng("dropout")
      x_BND = scan_layers(Block(*sizes, parent=None), params, x_BND, key=key, remat=self.remat)
    else:
      block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
      for layer, name in enumerate(names):
        # Deeper layers are dropped more often, from 0 to `drop_path` (Huang et al. 2016).
        drop_path = self.drop_path * layer / max(self.depth - 1, 1)
        x_BND = block(*sizes, drop_path, name=name)(x_BND, deterministic)
    return LayerNorm(dtype=self.dtype, name="encoder_norm")(x_BND)


class ConvStem(nn.Module):
  """Stride-2 convolutions down to the patch grid instead of one big patch projection.

  Small models localize much sooner with it ("Early convolutions help transformers see better",
  Xiao et al. 2021).
  """

  patch_size: int
  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, image_BIIC):
    x = image_BIIC
    halvings = self.patch_size.bit_length() - 1
    for layer in range(halvings):
      channels = max(self.width >> (halvings - 1 - layer), 8)
      x = nn.Conv(channels, (3, 3), strides=2, dtype=self.dtype, name=f"conv_{layer}")(x)
      x = nn.gelu(LayerNorm(dtype=self.dtype, name=f"norm_{layer}")(x))
    return nn.Conv(self.width, (1, 1), dtype=self.dtype, name="project")(x)


def sincos_2d(key, shape, dtype=jnp.float32):
  """Initial position embeddings [1, N, D]: sines and cosines of the patch's row and column.

  Learned from there on. Small models that start so know where things are much sooner than from
  small random numbers.
  """
  del key
  _, tokens, width = shape
  side = round(tokens**0.5)
  row_N, column_N = jnp.divmod(jnp.arange(tokens), side)
  frequency_F = jnp.pi / side ** jnp.linspace(0.0, 1.0, width // 4)
  places_N1 = [place_N[:, None].astype(jnp.float32) for place_N in (row_N, column_N)]
  angles_NF = [place_N1 * frequency_F[None] for place_N1 in places_N1]
  waves = [wave(angle) for angle in angles_NF for wave in (jnp.sin, jnp.cos)]
  return jnp.concatenate(waves, axis=1)[None].astype(dtype)


class ViT(nn.Module):
  """Image [B, I, I, C] with values in [-1, 1] -> tokens [B, N, D]."""

  patch_size: int
  width: int
  depth: int
  num_heads: int
  mlp_dim: int
  dtype: jnp.dtype
  dropout: float = 0.0
  drop_path: float = 0.0
  remat: bool = False
  conv_stem: bool = False
  scan: bool = False

  @nn.compact
  def __call__(
    self, image_BIIC: Float[Array, "b i i c"], deterministic: bool = True
  ) -> Float[Array, "b n d"]:
    if self.conv_stem:
      grid = ConvStem(self.patch_size, self.width, self.dtype, name="stem")(image_BIIC)
    else:
      patch = (self.patch_size, self.patch_size)
      grid = nn.Conv(self.width, patch, patch, "VALID", dtype=self.dtype, name="embedding")(
        image_BIIC.astype(self.dtype)
      )
    x_BND = grid.reshape(grid.shape[0], -1, self.width)
    position = self.param("pos_embedding", sincos_2d, (1, x_BND.shape[1], self.width))
    x_BND = nn.Dropout(self.dropout)(x_BND + position.astype(self.dtype), deterministic)
    return Stack(
      self.depth,
      self.num_heads,
      self.mlp_dim,
      self.dtype,
      self.dropout,
      self.drop_path,
      self.remat,
      self.scan,
      name="Transformer",
    )(x_BND, deterministic)
