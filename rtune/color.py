"""sRGB and CIE Lab (D65, 2 degrees), and pictures that take their lightness from one and their
color from another. jit; any leading dimensions.

Sums are written out, channel by channel: a matrix product would lose digits on GPU and TPU, and
would not fuse with what is before and after it.

Dimension key:
  H, W: height and width of an image in pixels
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# sRGB's primaries and the white point, as scikit-image has them, for equal digits.
_XYZ_OF_RGB = (
  (0.412453, 0.357580, 0.180423),
  (0.212671, 0.715160, 0.072169),
  (0.019334, 0.119193, 0.950227),
)
_RGB_OF_XYZ = tuple(map(tuple, np.linalg.inv(_XYZ_OF_RGB).tolist()))
_WHITE = (0.95047, 1.0, 1.08883)
_BISECTIONS = 12


def lab(rgb: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
  """CIE Lab (L in 0..100; a and b) of sRGB values in [0, 1]; gray has a chroma below 0.01."""
  linear = _linear(rgb)
  xyz = _mixed(_XYZ_OF_RGB, [linear[..., channel] for channel in range(3)])
  x, y, z = (_root(value / white) for value, white in zip(xyz, _WHITE, strict=True))
  return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lightness(rgb: Float[Array, "*b 3"]) -> Float[Array, "*b"]:
  """L of CIE Lab, 0..100, of sRGB values in [0, 1]."""
  linear = _linear(rgb)
  (luminance,) = _mixed(_XYZ_OF_RGB[1:2], [linear[..., channel] for channel in range(3)])
  return 116 * _root(luminance) - 16


def joined(lightness: Float[Array, "*b"], chroma: Float[Array, "*c 2"]) -> Float[Array, "*d 3"]:
  """sRGB values in [0, 1] of exactly this L, with the hue of (a, b) and as much of it as there is.

  Where a screen has no such color, chroma is drawn toward gray until it has, in steps of 1/4096.
  So L is kept to 1e-3 (float32), and to about 0.25 once the values are rounded to 8 bits.
  """
  fits = _fits(_linear_of(lightness, chroma))
  inside, outside = jnp.where(fits, 1.0, 0.0), jnp.ones(fits.shape)

  def halve(_, bounds):
    inside, outside = bounds
    middle = (inside + outside) / 2
    fits = _fits(_linear_of(lightness, chroma * middle[..., None]))
    return jnp.where(fits, middle, inside), jnp.where(fits, outside, middle)

  # A loop, as XLA would fuse unrolled steps into one that computes each of them many times.
  scale, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (inside, outside))
  return _gamma(jnp.stack(_linear_of(lightness, chroma * scale[..., None]), axis=-1))


def lightness_kept(
  prediction: Float[Array, "*b h w 3"], image: Float[Array, "*c h w 3"]
) -> Float[Array, "*b h w 3"]:
  """The colors of a prediction with the lightness of the image itself; see `joined`.

  Args:
    prediction: sRGB in [0, 1].
    image: sRGB in [0, 1], gray or colored; its leading dimensions are broadcast.
  """
  return joined(lightness(image), lab(prediction)[..., 1:])


def _linear_of(lightness: Array, chroma: Array) -> list[Array]:
  """Linear R, G, B of CIE Lab."""
  y = (lightness + 16) / 116
  roots = (y + chroma[..., 0] / 500, y, y - chroma[..., 1] / 200)
  xyz = [_unroot(root) * white for root, white in zip(roots, _WHITE, strict=True)]
  return _mixed(_RGB_OF_XYZ, xyz)


def _fits(linear: list[Array]) -> Array:
  """Whether a screen has the color; float32 may put white and black themselves a hair outside."""
  lowest = jnp.minimum(jnp.minimum(linear[0], linear[1]), linear[2])
  highest = jnp.maximum(jnp.maximum(linear[0], linear[1]), linear[2])
  return (lowest >= -1e-6) & (highest <= 1 + 1e-6)


def _mixed(matrix: tuple[tuple[float, ...], ...], channels: list[Array]) -> list[Array]:
  return [
    sum(weight * value for weight, value in zip(row, channels, strict=True)) for row in matrix
  ]


def _linear(rgb: Array) -> Array:
  """Intensities of sRGB values."""
  base = (jnp.maximum(rgb, 0.04) + 0.055) / 1.055
  return jnp.where(rgb > 0.04045, base * base * _power(base, 0.4), rgb / 12.92)


def _gamma(linear: Array) -> Array:
  """sRGB values of intensities, clipped to [0, 1]."""
  linear = jnp.clip(linear, 0.0, 1.0)
  curve = 1.055 * _power(jnp.maximum(linear, 1e-3), 1 / 2.4) - 0.055
  return jnp.where(linear > 0.0031308, curve, 12.92 * linear)


def _root(value: Array) -> Array:
  """CIE's cube root, straight near black."""
  root = _power(jnp.maximum(value, 1e-3), 1 / 3)
  return jnp.where(value > 0.008856, root, 7.787 * value + 16 / 116)


def _unroot(root: Array) -> Array:
  return jnp.where(root > 0.2068966, root * root * root, (root - 16 / 116) / 7.787)


def _power(value: Array, exponent: float) -> Array:
  """On CPU five to ten times faster than XLA's own power and cube root, to 3e-7."""
  return jnp.exp(exponent * jnp.log(value))
