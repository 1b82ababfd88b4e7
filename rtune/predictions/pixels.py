"""What a task of pictures predicts and what its rewards see.

Dimension key:
  H, W: height and width of the model's input in pixels
"""

from typing import NamedTuple

from jaxtyping import Array, Float


class Pixels(NamedTuple):
  """A picture of the size of the model's input: sRGB values in [0, 1]."""

  rgb: Float[Array, "*b h w 3"]
