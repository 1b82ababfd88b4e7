"""A second look of rendered scenes, as another camera and other weather give it: a target domain.

All images of the domain share what makes it: colors that are mixed between channels, darker middle
tones, fine blotches and noise. How much of each an image has varies a little.
"""

import functools

import numpy as np
from jaxtyping import Float32, UInt8

# What a channel takes over from the others at strength 1: red gets green, green blue, blue red.
_TURNED = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float32)
_GAMMA = 1.3  # exponent added to 1
_BLOTCHES = 80.0  # largest change of brightness
_NOISE = 100.0  # full width of what is added to each value
_CELLS = 13  # of the coarse grid of blotches, along each side
_VARIES = 0.25  # how far the strength of one image may be from the domain's, as a share


def restyle(
  image: UInt8[np.ndarray, "S S 3"], strength: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "S S 3"]:
  """The image in the second style; at strength 0 the image itself.

  Args:
    image: of the source style.
    strength: 0 to 1.
    rng: the only source of chance.
  """
  if strength == 0:
    return image
  mix, gamma, blotches, noise = (strength * (1 + _VARIES * (2 * rng.random(4) - 1))).tolist()
  turn = (1 - mix) * np.eye(3, dtype=np.float32) + mix * _TURNED
  pixels = image.astype(np.float32) @ turn.T
  tones = 255 * (np.arange(256) / 255) ** (1 + _GAMMA * gamma)
  pixels = tones.astype(np.float32)[pixels.astype(np.uint8)]
  weights = _interpolation(image.shape[0])
  grid = rng.random((_CELLS, _CELLS), dtype=np.float32) * 2 - 1
  pixels += np.float32(_BLOTCHES * blotches) * (weights @ grid @ weights.T)[..., None]
  pixels += np.float32(_NOISE * noise) * (rng.random(image.shape, dtype=np.float32) - 0.5)
  return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def _interpolation(size: int) -> Float32[np.ndarray, "S cells"]:
  """Weights that stretch the grid of blotches linearly over the image."""
  position = np.linspace(0, _CELLS - 1, size)[:, None]
  return np.maximum(0, 1 - np.abs(position - np.arange(_CELLS))).astype(np.float32)
