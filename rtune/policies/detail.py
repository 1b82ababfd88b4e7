"""Pictures as a sum of bands of detail, each scaled by a number of each block.

Bands are differences of ever wider blurs at full resolution (a trous, Holschneider et al. 1989), so
that nothing is aliased and their sum is the picture.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  Y, X: height and width in pixels
  C: channels
  H, W: rows and columns of blocks
  K: bands
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_BLUR = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def split(picture: Float[Array, "b y x c"], bands: int) -> list[Float[Array, "b y x c"]]:
  """Its bands, the finest first, and what remains, which is the last of bands + 1."""
  found = []
  for number in range(bands):
    blurred = _blurred(picture, 2**number)
    found.append(picture - blurred)
    picture = blurred
  return [*found, picture]


def energies(bands: Float[Array, "b y x c k"], block: int) -> Float[Array, "b h w k"]:
  """How strong each band is in each block, as a logarithm."""
  size_BYXK = jnp.mean(jnp.abs(bands), axis=3)
  return jnp.log(pooled(size_BYXK, block) + 1e-3)


def pooled(x: Float[Array, "b y x f"], block: int) -> Float[Array, "b h w f"]:
  """The mean of each block; of those that reach beyond the picture, of what is in it."""
  batch, height, width, features = x.shape
  x = jnp.pad(x, ((0, 0), (0, -height % block), (0, -width % block), (0, 0)), mode="edge")
  rows, columns = x.shape[1] // block, x.shape[2] // block
  return jnp.mean(x.reshape(batch, rows, block, columns, block, features), axis=(2, 4))


def scaled(
  picture: Float[Array, "b y x c"],
  bands: Float[Array, "b y x c k"],
  gains: Float[Array, "b s h w k"],
  block: int,
  between: str,
) -> Float[Array, "b s y x c"]:
  """The picture with each band times its gain; gains of 1 leave it.

  Args:
    between: how gains go from block to block: "linear" or "nearest".
  """
  batch, samples, rows, columns, count = gains.shape
  height, width = picture.shape[1:3]
  # Not by vmap over samples and an einsum: jax 0.10.2 compiles that wrongly on CPU, and pictures of
  # some samples are those of others.
  flat = (gains - 1.0).reshape(batch * samples, rows, columns, count)
  shape = (batch * samples, rows * block, columns * block, count)
  more = jax.image.resize(flat, shape, between)[:, :height, :width]
  more = more.reshape(batch, samples, height, width, count)
  result = picture[:, None]
  for band in range(count):
    result = result + more[..., band, None] * bands[:, None, ..., band]
  return result


def _blurred(picture: Float[Array, "b y x c"], step: int) -> Float[Array, "b y x c"]:
  """Binomial, of five pixels that are `step` apart, mirrored at the border."""
  for axis in (1, 2):
    size = picture.shape[axis]
    widths = [(2 * step, 2 * step) if i == axis else (0, 0) for i in range(4)]
    padded = jnp.pad(picture, widths, mode="symmetric")
    parts = (
      share * jax.lax.slice_in_dim(padded, place * step, place * step + size, axis=axis)
      for place, share in enumerate(_BLUR)
    )
    picture = sum(parts)
  return picture
