"""Maps of pixels cut into square patches, and put together again.

Dimension key:
  I: height and width in pixels
  N: patches, row by row
  C: channels
  P: pixels of a patch, row by row
"""

import math

import einops
from jaxtyping import Array, Float


def patches(pixels: Float[Array, "*b i i c"], patch_size: int) -> Float[Array, "*b n c p"]:
  """Maps cut into square patches, row by row."""
  return einops.rearrange(
    pixels, "... (h p) (w q) c -> ... (h w) c (p q)", p=patch_size, q=patch_size
  )


def unpatch(cut: Float[Array, "*b n c p"]) -> Float[Array, "*b i i c"]:
  """The inverse of `patches`: square maps of square patches."""
  side, patch_size = math.isqrt(cut.shape[-3]), math.isqrt(cut.shape[-1])
  return einops.rearrange(cut, "... (h w) c (p q) -> ... (h p) (w q) c", h=side, p=patch_size)
