"""What a panoptic model predicts and what its rewards see; how slots are filled and read.

Dimension key:
  H, W: height and width of the model's square input in pixels
  I: both of them
  M: segment slots
  K: segments of an image
  N: patches
  P: pixels of a patch
  C: semantic channels: void and the classes
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, UInt

from rtune.predictions.patches import unpatch


class Segments(NamedTuple):
  """An image cut into segments, each with a class; what belongs to none of them is void.

  `ids` gives the slot of each pixel. A pixel is void where its slot is not `present`, and a slot
  without pixels is no segment whatever `present` says. In the truth slot 0 is void.
  `labels` counts classes from 0; it means nothing where a slot is absent.
  """

  ids: Int[Array, "*b h w"]
  labels: Int[Array, "*b m"]
  present: Bool[Array, "*b m"]


class AnnotatedSegments(NamedTuple):
  """As `Segments`; a `crowd` slot is a region of objects that nobody has told apart."""

  ids: Int[Array, "*b h w"]
  labels: Int[Array, "*b m"]
  present: Bool[Array, "*b m"]
  crowd: Bool[Array, "*b m"]


def canonical(
  segments_II: Integer[np.ndarray, "i i"], slots: int
) -> tuple[UInt[np.ndarray, "i i"], Int[np.ndarray, " k"], int]:
  """Slots that follow from where segments are: by their centers of mass, from top to bottom.

  Args:
    segments_II: 0 for void, k for the segment of row k - 1.
    slots: how many there are; 0 is void. Where there are more segments, the largest get one.

  Returns:
    The slot of each pixel; the rows of slots 1, 2, ...; how many segments got none.
  """
  flat, size = segments_II.ravel(), segments_II.shape[0]
  area = np.bincount(flat)[1:]
  rows = area.nonzero()[0]
  more = max(0, len(rows) - (slots - 1))
  if more:
    rows = np.sort(rows[np.argsort(-area[rows], kind="stable")][: slots - 1])
  y, x = np.divmod(np.arange(flat.size), size)
  # UViM's order: rows of the image first, then columns.
  places = np.bincount(flat, weights=size * y + x, minlength=len(area) + 1)[1:]
  rows = rows[np.argsort(places[rows] / area[rows], kind="stable")]
  return numbered(segments_II, rows + 1), rows, more


def numbered(
  map_HW: Integer[np.ndarray, "h w"], values: Integer[np.ndarray, " k"]
) -> UInt[np.ndarray, "h w"]:
  """The place of each pixel's value in a list, from 1; 0 for values that are not there."""
  number = np.zeros(int(max(map_HW.max(), values.max(initial=0))) + 1, np.uint16)
  number[values] = np.arange(len(values)) + 1
  return number[map_HW].astype(np.uint8 if len(values) < 2**8 else np.uint16)


def segments_of(
  semantics: Float[Array, "*b n c p"], instances: Float[Array, "*b n m p"], min_fraction: float
) -> Segments:
  """The segments that logits of both heads say, as UViM reads them.

  Each pixel belongs to its likeliest instance, each instance to the class whose logits, summed over
  its pixels, are largest; where that is void, or where no more than `min_fraction` of all pixels
  are its, there is no segment.
  """
  slots = instances.shape[-2]
  slot_NP = jnp.argmax(instances, axis=-2)
  mask_NMP = jax.nn.one_hot(slot_NP, slots, axis=-2)
  votes_MC = jnp.einsum("...ncp,...nmp->...mc", semantics, mask_NMP)
  channel_M = jnp.argmax(votes_MC, axis=-1)
  area_M = jnp.sum(mask_NMP, axis=(-3, -1))
  pixels = slot_NP.shape[-2] * slot_NP.shape[-1]
  present_M = (channel_M > 0) & (area_M > min_fraction * pixels)
  ids = unpatch(slot_NP[..., None, :].astype(jnp.float32))[..., 0].astype(jnp.int32)
  return Segments(ids, jnp.maximum(channel_M - 1, 0), present_M)


def merge_stuff(segments: Segments, things: Bool[Array, " c"]) -> Segments:
  """Stuff has no instances: all of its slots of one class become the first of them."""
  labels, present = segments.labels, segments.present
  slots = jax.lax.broadcasted_iota(jnp.int32, labels.shape, labels.ndim - 1)
  stuff = present & ~things[labels]
  alike = stuff[..., None] & stuff[..., None, :] & (labels[..., None] == labels[..., None, :])
  first = jnp.min(jnp.where(alike, slots[..., None, :], labels.shape[-1]), axis=-1)
  becomes = jnp.where(stuff, first, slots)
  flat = segments.ids.reshape(*labels.shape[:-1], -1)
  ids = jnp.take_along_axis(becomes, flat, axis=-1).reshape(segments.ids.shape)
  return Segments(ids, labels, present & (becomes == slots))
