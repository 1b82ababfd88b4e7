"""What a panoptic model predicts and what its rewards see.

Dimension key:
  H, W: height and width of the model's square input in pixels
  N: segment slots
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Int


class Segments(NamedTuple):
  """An image cut into segments, each with a class; what belongs to none of them is void.

  `ids` gives the slot of each pixel. A pixel is void where its slot is not `present`, and a slot
  without pixels is no segment whatever `present` says. The panoptic task keeps slot 0 for void.
  `labels` counts classes from 0; it means nothing where a slot is absent.
  """

  ids: Int[Array, "*b h w"]
  labels: Int[Array, "*b n"]
  present: Bool[Array, "*b n"]


class AnnotatedSegments(NamedTuple):
  """As `Segments`; a `crowd` slot is a region of objects that nobody has told apart."""

  ids: Int[Array, "*b h w"]
  labels: Int[Array, "*b n"]
  present: Bool[Array, "*b n"]
  crowd: Bool[Array, "*b n"]
