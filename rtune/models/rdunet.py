"""RDUNet, the residual dense U-Net for denoising (Gurrola-Ramos et al. 2021, IEEE Access 9).

Four levels, each of dense blocks: three convolutions see all that was made before them in the
block, a fourth one makes what is added to the block's input. The network gives what is added to the
noisy picture. Published size: 128 base filters, 2 blocks, 166 M parameters; blind to the level of
the noise.

Our parameters are called as in github.com/JavierGurrola/RDUNet, but for these differences, which
`rtune.store.rdunet_weights` knows:

  there (PyTorch)                      here
  module.block.layer.weight            block/layer/kernel, no "module."
  *.weight of conv [out, in, y, x]     kernel [y, x, in, out]
  *.weight of conv_t [in, out, y, x]   kernel [in, y, x, out]
  *.weight of actv [channels]          slope [channels]
  *.bias                               bias

Dimension key: that of restorer.py.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models import dense, restorer, sizes, vit

LEVELS = 4


def rdunet(
  channels: int,
  *,
  filters: int = 16,
  blocks: int = 2,
  sees_sigma: bool = False,
  dtype: str = "auto",
) -> restorer.Restorer:
  """An RDUNet; at first it gives pictures back as they are.

  Args:
    channels: of pictures.
    filters: channels at full resolution, an even number; each halving doubles them. Published: 128.
    blocks: dense blocks of each level, before and after the coarsest one. Published: 2.
    sees_sigma: the level of the noise is a further channel of the input. Published: no.
    dtype: of compute: "float32", "bfloat16"; auto: bfloat16 except on CPU.

  Raises:
    UsageError: a setting that is out of its range.
  """
  dense.check_least(2, filters=filters)
  dense.check_least(1, blocks=blocks)
  dense.check_choice(range(2, filters + 1, 2), filters=filters)
  dense.check_choice(sizes.DTYPES, dtype=dtype)
  module = RDUNet(channels, filters, blocks, sees_sigma, vit.compute_dtype(dtype))
  return restorer.of_module(module, multiple=2 ** (LEVELS - 1))


class RDUNet(nn.Module):
  """(Image [B, H, W, C], sigma [B]) -> `Restored`; sides are multiples of 8."""

  channels: int
  filters: int
  blocks: int
  sees_sigma: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, image: Float[Array, "b h w c"], sigma: Float[Array, " b"]
  ) -> restorer.Restored:
    x = image
    if self.sees_sigma:
      level = jnp.broadcast_to(sigma[:, None, None, None], (*image.shape[:3], 1))
      x = jnp.concatenate([x, level], axis=-1)
    widths = [self.filters << level for level in range(LEVELS)]
    x = Pair((widths[0], widths[0]), self.dtype, name="input_block")(x.astype(self.dtype))
    skips = []
    for level, width in enumerate(widths):
      x = self._dense(x, level)
      if level < LEVELS - 1:
        skips.append(x)
        x = Down(2 * width, self.dtype, name=f"downsample_{level}")(x)
    for stage, level in enumerate(reversed(range(LEVELS - 1)), start=LEVELS):
      x = Up(widths[level], self.dtype, name=f"upsample_{level}")(x, skips[level])
      x = self._dense(x, stage)
    change = Pair((widths[0], self.channels), self.dtype, True, name="output_block")(x)
    return restorer.Restored(image + change.astype(jnp.float32), x.astype(jnp.float32))

  def _dense(self, x: Float[Array, "b h w f"], stage: int) -> Float[Array, "b h w f"]:
    for number in range(self.blocks):
      x = Dense(self.dtype, name=f"dn_block_{stage}_{number}")(x)
    return x


class PReLU(nn.Module):
  """The identity above 0, a learned slope of each channel below."""

  @nn.compact
  def __call__(self, x: Float[Array, "b h w f"]) -> Float[Array, "b h w f"]:
    slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],)).astype(x.dtype)
    return jnp.where(x >= 0, x, slope[None, None, None] * x)


def _conv(features: int, dtype: jnp.dtype, name: str, zero: bool = False) -> nn.Conv:
  init = nn.initializers.zeros if zero else nn.initializers.he_normal()
  return nn.Conv(features, (3, 3), padding=1, kernel_init=init, dtype=dtype, name=name)


class Pair(nn.Module):
  """Two convolutions, each with its PReLU: how the network begins and ends."""

  widths: tuple[int, int]
  dtype: jnp.dtype
  zero: bool = False  # the second one gives nothing at first

  @nn.compact
  def __call__(self, x: Float[Array, "b h w f"]) -> Float[Array, "b h w f2"]:
    x = PReLU(name="actv_1")(_conv(self.widths[0], self.dtype, "conv_1")(x))
    return PReLU(name="actv_2")(_conv(self.widths[1], self.dtype, "conv_2", self.zero)(x))


class Dense(nn.Module):
  """A denoising block: each convolution sees the input and all that was made of it."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "b h w f"]) -> Float[Array, "b h w f"]:
    conv = functools.partial(_conv, dtype=self.dtype)
    width, seen = x.shape[-1], x
    for number in range(3):
      made = PReLU(name=f"actv_{number}")(conv(width // 2, name=f"conv_{number}")(seen))
      seen = jnp.concatenate([seen, made], axis=-1)
    return x + PReLU(name="actv_3")(conv(width, name="conv_3")(seen))


class Down(nn.Module):
  """2 x 2 pixels become one."""

  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "b h w f"]) -> Float[Array, "b h2 w2 f2"]:
    init = nn.initializers.he_normal()
    conv = nn.Conv(self.features, (2, 2), 2, kernel_init=init, dtype=self.dtype, name="conv")
    return PReLU(name="actv")(conv(x))


class Up(nn.Module):
  """Each pixel becomes 2 x 2, which are joined with those of the encoder, the encoder's first."""

  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w f"], skip: Float[Array, "b y x f2"]
  ) -> Float[Array, "b y x f2"]:
    x = PReLU(name="actv_t")(Doubled(self.dtype, name="conv_t")(x))
    x = jnp.concatenate([skip, x], axis=-1)
    return PReLU(name="actv")(_conv(self.features, self.dtype, "conv")(x))


class Doubled(nn.Module):
  """A transposed convolution of 2 x 2 with stride 2: no two pixels reach the same one."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, "b h w f"]) -> Float[Array, "b y x f"]:
    batch, height, width, channels = x.shape
    init = nn.initializers.he_normal(in_axis=0, out_axis=(1, 2, 3))
    kernel = self.param("kernel", init, (channels, 2, 2, channels)).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros, (channels,)).astype(self.dtype)
    x = jnp.einsum("bhwi,iyxo->bhywxo", x, kernel)
    return x.reshape(batch, 2 * height, 2 * width, channels) + bias[None, None, None]
