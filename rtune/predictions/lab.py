"""sRGB and CIE Lab (D65, 2 degrees), and pictures that take their lightness from one and their
color from another. jit with any leading dimensions, but for what says that it is of the host.

Sums are written out, channel by channel: a matrix product would lose digits on GPU and TPU, and
would not fuse with what is before and after it.

Dimension key:
  H, W: height and width of an image in pixels
  N: pixels, row by row
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

# sRGB's primaries and the white point, as scikit-image has them, for equal digits.
_XYZ_OF_RGB = (
  (0.412453, 0.357580, 0.180423),
  (0.212671, 0.715160, 0.072169),
  (0.019334, 0.119193, 0.950227),
)
_RGB_OF_XYZ = tuple(map(tuple, np.linalg.inv(_XYZ_OF_RGB).tolist()))
_WHITE = (0.95047, 1.0, 1.08883)
LUMA = (0.2989, 0.587, 0.114)  # BT.601, as UViM has it
_BISECTIONS = 12
_BLOCK = 1 << 16  # pixels


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

  def halve(_, state):
    lightness, chroma, inside, outside = state
    middle = (inside + outside) / 2
    fits = _fits(_linear_of(lightness, chroma * middle[..., None]))
    return lightness, chroma, jnp.where(fits, middle, inside), jnp.where(fits, outside, middle)

  # A loop, as XLA would fuse unrolled steps into one that computes each of them many times. It
  # carries all that it reads, which jax2onnx asks for.
  state = lightness, chroma, inside, outside
  _, _, scale, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, state)
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


def gray(image: UInt8[np.ndarray, "h w 3"], keep: str = "lightness") -> UInt8[np.ndarray, "h w 3"]:
  """The gray picture with the lightness (of CIE Lab) or the "luma" (BT.601) of an image. Host."""
  if keep == "luma":
    values_HW = image.astype(np.float32) @ np.array(LUMA, np.float32)
  else:
    luminance_HW = _INTENSITY[image] @ np.array(_XYZ_OF_RGB[1], np.float32)
    curve_HW = 1.055 * np.power(luminance_HW, np.float32(1 / 2.4)) - 0.055
    values_HW = 255 * np.where(luminance_HW > 0.0031308, curve_HW, 12.92 * luminance_HW)
  values_HW = np.rint(np.minimum(values_HW, 255)).astype(np.uint8)
  return np.repeat(values_HW[..., None], 3, axis=-1)


def recolored(
  image: UInt8[np.ndarray, "h w 3"], picture: UInt8[np.ndarray, "h2 w2 3"]
) -> UInt8[np.ndarray, "h w 3"]:
  """An image with the colors of a picture of any size, a and b resized bilinearly. Host."""
  height, width = image.shape[:2]
  chroma = np.asarray(_chroma(picture))
  layers = [Image.fromarray(chroma[..., i]) for i in range(2)]
  layers = [layer.resize((width, height), Image.Resampling.BILINEAR) for layer in layers]
  chroma_N2 = np.stack([np.asarray(layer).ravel() for layer in layers], axis=-1)
  found_N3, flat_N3 = np.empty((height * width, 3), np.uint8), image.reshape(-1, 3)
  # In blocks of one size: compiled once, whatever the sizes of photographs.
  for start in range(0, len(flat_N3), _BLOCK):
    part = slice(start, start + _BLOCK)
    missing = ((0, _BLOCK - len(flat_N3[part])), (0, 0))
    done = _block(np.pad(flat_N3[part], missing), np.pad(chroma_N2[part], missing))
    found_N3[part] = np.asarray(done)[: len(flat_N3[part])]
  return found_N3.reshape(image.shape)


@jax.jit
def _chroma(picture: UInt8[Array, "h w 3"]) -> Float[Array, "h w 2"]:
  return lab(picture.astype(jnp.float32) / 255)[..., 1:]


@jax.jit
def _block(rgb_N3: UInt8[Array, "n 3"], chroma_N2: Float[Array, "n 2"]) -> UInt8[Array, "n 3"]:
  found_N3 = joined(lightness(rgb_N3.astype(jnp.float32) / 255), chroma_N2)
  return jnp.rint(found_N3 * 255).astype(jnp.uint8)


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


def _intensities() -> Float[np.ndarray, "256"]:
  """Of the 8-bit values of sRGB."""
  values = np.arange(256) / 255
  return np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)


_INTENSITY = _intensities().astype(np.float32)
