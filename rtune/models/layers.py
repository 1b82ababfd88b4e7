"""Layers that the encoder and the decoder share.

Dimension key:
  D: width
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

# Backward passes of what is cheap begin at its input. In a loop over layers jax would keep three
# float32 copies for a norm and four hidden layers for a GELU: 24 of the 44 GB of a ViT-B at 640 px.
_from_input = functools.partial(nn.remat, prevent_cse=False)


def product(lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None):
  """`jax.lax.dot_general`, where CPUs add up products of bfloat16 in float32 and round the sums.

  XLA hands such products to instructions that CPUs have for them (AMX, AVX512-BF16) only where the
  sums are float32; all others are made products of float32 first, weights and all, at each call.
  """
  sums = preferred_element_type
  if lhs.dtype == jnp.bfloat16 and jax.default_backend() == "cpu":
    sums = jnp.float32
  found = jax.lax.dot_general(lhs, rhs, dimension_numbers, precision, sums)
  return found.astype(preferred_element_type or lhs.dtype)


class LayerNorm(nn.LayerNorm):
  """Flax's, where JAX's promotion is strict: it subtracts a float32 mean from halves.

  The variance is that of what is left without the mean: exact where the mean is large, and one
  kernel of GPUs instead of two.
  """

  use_fast_variance: bool = False

  @_from_input
  def __call__(self, x):
    with jax.numpy_dtype_promotion("standard"):
      return super().__call__(x)


class Mlp(nn.Module):
  """Two dense layers with GELU between them."""

  mlp_dim: int
  dtype: jnp.dtype
  dropout: float = 0.0
  gelu: str = "tanh"

  @nn.compact
  def __call__(self, x, deterministic: bool):
    kind = {
      "kernel_init": nn.initializers.xavier_uniform(),
      "bias_init": nn.initializers.normal(1e-6),
      "dot_general": product,
      "dtype": self.dtype,
    }
    hidden = nn.Dense(self.mlp_dim, **kind)(x)
    gelu = functools.partial(nn.gelu, approximate=self.gelu == "tanh")
    hidden = jax.checkpoint(gelu, prevent_cse=False)(hidden)
    hidden = nn.Dropout(self.dropout)(hidden, deterministic)
    return nn.Dense(x.shape[-1], **kind)(hidden)


class LayerScale(nn.Module):
  """What a residual branch adds, scaled channel by channel (CaiT, Touvron et al. 2021)."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, branch):
    # Small at first, as DINOv2 and DeiT III have it: every block starts near the identity.
    scale_D = self.param("scale", nn.initializers.constant(1e-5), (branch.shape[-1],))
    return jnp.einsum("...d,d->...d", branch, scale_D.astype(self.dtype))


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
