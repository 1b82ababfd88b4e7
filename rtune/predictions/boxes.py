"""What a detector predicts and what its rewards see.

Dimension key:
  N: box slots
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int


class Boxes(NamedTuple):
  """A fixed number of box slots; slots where `present` is false are padding.

  Coordinates are (y0, x0, y1, x1) as fractions of the model's square input.
  """

  boxes: Float[Array, "*b n 4"]
  labels: Int[Array, "*b n"]
  present: Bool[Array, "*b n"]
  scores: Float[Array, "*b n"]
