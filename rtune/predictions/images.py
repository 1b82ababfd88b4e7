"""What a task of restoration predicts and what its rewards see, and what is done to all pictures.

Arithmetic alone is used where that does, so that numpy's arrays and those of jax are both served.

Dimension key:
  H, W: height and width of a picture in pixels
  Y, X: those of what a model was given
  C: channels, 1 or 3
  K: passes of a restorer that is applied again and again
  R, Q: rows and columns of its patches
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_STUDIO = (65.481, 128.553, 24.966)  # the same in MATLAB's rgb2ycbcr: 16 is black, 235 white
_BLACK = 16.0

AnyArray = Array | np.ndarray


class Picture(NamedTuple):
  """A picture: 0 is black and 1 is white. One that a model has made may lie beyond."""

  image: Float[Array, "*b h w c"]


class Passes(NamedTuple):
  """A picture that was restored again and again.

  Attributes:
    image: the last one.
    passes: that after each pass.
    numbers: what was done to each patch in each pass: a pair (step, mix) for each channel, or a
      multiplier.
    distance: of each patch's latent from the nearest center of clean ones, before the first pass
      and after each; None where there are no centers.
  """

  image: Float[Array, "*b h w c"]
  passes: Float[Array, "*b k h w c"]
  numbers: Float[Array, "*b k r q n"]
  distance: Float[Array, "*b k1 r q"] | None = None


class Original(NamedTuple):
  """A truth that says as well what the model was given: as large, or of a lower resolution."""

  image: Float[Array, "*b h w c"]
  given: Float[Array, "*b y x c"]


def eight_bits(image: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
  """Clipped and rounded to the 256 values that files hold, k / 255.

  The gradient is that of clipping: it passes rounding as if that were not there, since its own is 0
  everywhere.
  """
  clipped = jnp.clip(image, 0.0, 1.0)
  return clipped + jax.lax.stop_gradient(jnp.round(clipped * 255) / 255 - clipped)


def as_bytes(image: AnyArray) -> UInt8[np.ndarray, "*b h w c"]:
  """The same on the host, as uint8; what is uint8 stays as it is."""
  image = np.asarray(image)
  return image if image.dtype == np.uint8 else np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def luma(image: Float[AnyArray, "*b h w c"]) -> Float[AnyArray, "*b h w"]:
  """Y of BT.601 in the range of the picture; of one channel this channel."""
  return _mixed(image, LUMA)


def studio_luma(image: Float[AnyArray, "*b h w c"]) -> Float[AnyArray, "*b h w"]:
  """Y of MATLAB's rgb2ycbcr of a picture in 0..1, divided by 255: from 16 / 255 to 235 / 255.

  Papers on super-resolution measure on it. It is not rounded, as in BasicSR; MATLAB does so with
  8-bit pictures. One channel is taken for Y as it is.
  """
  if image.shape[-1] == 1:
    return image[..., 0]
  return (_mixed(image, _STUDIO) + _BLACK) / 255


def _mixed(
  image: Float[AnyArray, "*b h w c"], weights: tuple[float, float, float]
) -> Float[AnyArray, "*b h w"]:
  if image.shape[-1] == 1:
    return image[..., 0]
  # Written out: a matrix product would lose digits on GPU and TPU.
  red, green, blue = weights
  return red * image[..., 0] + green * image[..., 1] + blue * image[..., 2]
