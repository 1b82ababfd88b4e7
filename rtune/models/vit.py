"""Vision Transformer encoder (Dosovitskiy et al. 2021), as the policies here need it: tokens out.

Parameter names and layouts are those of big_vision's `models/vit.py`, so its weights load by name.

Dimension key:
  B: batch
  I: image height and width in pixels
  N: patches
  D: width
  R: registers, learned tokens beside the patches
  H: attention heads
  C: channels of the image or of a stem layer
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models import attention
from rtune.models.layers import DropPath, LayerNorm, LayerScale, Mlp, product
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
  """The type that a config names; "auto" is bfloat16, but float32 on CPUs: many lack it."""
  auto = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  return jnp.dtype(auto if name == "auto" else name)


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
  layer_scale: bool = False
  gelu: str = "tanh"

  @nn.compact
  def __call__(self, x_BND, deterministic: bool):
    branch = LayerNorm(dtype=self.dtype, name="LayerNorm_0")(x_BND)
    kernel = attention.has_kernel(self.dtype, x_BND.shape[-1] // self.num_heads)
    branch = nn.MultiHeadDotProductAttention(
      attention_fn=_fused if kernel else nn.dot_product_attention,
      num_heads=self.num_heads,
      kernel_init=nn.initializers.xavier_uniform(),
      dtype=self.dtype,
      qkv_dot_general=product,
      out_dot_general=product,
      name="MultiHeadDotProductAttention_0",
    )(branch, branch)
    branch = self._scaled(nn.Dropout(self.dropout)(branch, deterministic), "LayerScale_0")
    x_BND = x_BND + DropPath(self.drop_path)(branch, deterministic)
    branch = LayerNorm(dtype=self.dtype, name="LayerNorm_1")(x_BND)
    mlp = Mlp(self.mlp_dim, self.dtype, self.dropout, self.gelu, name="MlpBlock_0")
    branch = nn.Dropout(self.dropout)(mlp(branch, deterministic), deterministic)
    branch = self._scaled(branch, "LayerScale_1")
    return x_BND + DropPath(self.drop_path)(branch, deterministic)

  def _scaled(self, branch, name: str):
    return LayerScale(self.dtype, name=name)(branch) if self.layer_scale else branch


class Stack(nn.Module):
  """The Transformer blocks and the final norm; registers are there within it only.

  Registers ("Vision Transformers Need Registers", Darcet et al. 2023) are also where the class
  token of published weights goes: to patches it is one more token that they attend to.
  """

  depth: int
  num_heads: int
  mlp_dim: int
  dtype: jnp.dtype
  dropout: float = 0.0
  drop_path: float = 0.0
  remat: bool = False
  scan: bool = False
  layer_scale: bool = False
  registers: int = 0
  gelu: str = "tanh"

  @nn.compact
  def __call__(self, x_BND, deterministic: bool):
    names = [f"encoderblock_{layer}" for layer in range(self.depth)]
    sizes = (self.num_heads, self.mlp_dim, self.dtype, self.dropout)
    kind = {"layer_scale": self.layer_scale, "gelu": self.gelu}
    x_BND = self._with_registers(x_BND)
    if self.scan and not self.is_initializing():
      params = [self.variables["params"][name] for name in names]
      key = None if deterministic else self.make_rng("dropout")
      block = Block(*sizes, **kind, parent=None)
      x_BND = scan_layers(block, params, x_BND, key=key, remat=self.remat)
    else:
      block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
      for layer, name in enumerate(names):
        # Deeper layers are dropped more often, from 0 to `drop_path` (Huang et al. 2016).
        drop_path = self.drop_path * layer / max(self.depth - 1, 1)
        x_BND = block(*sizes, drop_path, **kind, name=name)(x_BND, deterministic)
    return LayerNorm(dtype=self.dtype, name="encoder_norm")(x_BND[:, self.registers :])

  def _with_registers(self, x_BND):
    if not self.registers:
      return x_BND
    shape = (1, self.registers, x_BND.shape[-1])
    registers_1RD = self.param("registers", nn.initializers.normal(0.02), shape).astype(self.dtype)
    registers_BRD = jnp.broadcast_to(registers_1RD, (x_BND.shape[0], *shape[1:]))
    return jnp.concatenate([registers_BRD, x_BND], axis=1)


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
  layer_scale: bool = False
  registers: int = 0
  gelu: str = "tanh"

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
      self.layer_scale,
      self.registers,
      self.gelu,
      name="Transformer",
    )(x_BND, deterministic)
