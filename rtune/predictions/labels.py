"""What a model of label maps predicts and what its rewards see; counts and regions of maps.

Dimension key:
  H, W: height and width of the model's input in pixels
  C: classes, of the truth (G) or of the prediction (A)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

IGNORE = -1  # the label of a pixel that nobody has labeled; no prediction has it


class LabelMap(NamedTuple):
  """A class for each pixel, counted from 0; in a truth also `IGNORE`."""

  labels: Int[Array, "*b h w"]


def confusion(
  predicted: Int[Array, "*b h w"],
  truth: Int[Array, "*b h w"],
  classes: int,
  weight: Float[Array, "*b h w"] | None = None,
) -> Float[Array, "{classes} {classes}"]:
  """Pixels of each annotated class (rows) that got each class (columns), `IGNORE` left out.

  One count over joint numbers. Counts below 2**24 are exact.

  Args:
    predicted: classes of one image or of many, which are added up.
    truth: of the same images.
    classes: how many there are.
    weight: what each pixel counts; None: 1.
  """
  cells = classes * classes
  joint = truth.astype(jnp.int32) * classes + predicted.astype(jnp.int32)
  # What lies behind the last cell is dropped.
  joint = jnp.where(truth == IGNORE, cells, joint).reshape(-1)
  if weight is None:
    counts = jnp.zeros(cells, jnp.int32).at[joint].add(1, mode="drop").astype(jnp.float32)
  else:
    counts = jnp.zeros(cells, jnp.float32).at[joint].add(weight.reshape(-1), mode="drop")
  return counts.reshape(classes, classes)


def intersection_and_union(
  counts: Float[Array, "c c"],
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
  """Of each class, from a confusion matrix; IoU is their quotient."""
  intersection_C = jnp.diagonal(counts)
  return intersection_C, jnp.sum(counts, axis=0) + jnp.sum(counts, axis=1) - intersection_C


def regions(labels: Int[Array, "h w"]) -> Int[Array, "h w"]:
  """Connected regions of one label, by edges: each pixel gets the place of its region's first one.

  Places count row by row. Every round the numbers of neighbors spread, and whole trees of numbers
  are hung onto lower ones, so that rounds grow with the logarithm of a region's length.
  """
  height, width = labels.shape
  below_HW, right_HW = labels[1:] == labels[:-1], labels[:, 1:] == labels[:, :-1]
  none = height * width

  def spread(state):
    ids_HW, _ = state
    low_HW = ids_HW.at[1:].min(jnp.where(below_HW, ids_HW[:-1], none))
    low_HW = low_HW.at[:-1].min(jnp.where(below_HW, ids_HW[1:], none))
    low_HW = low_HW.at[:, 1:].min(jnp.where(right_HW, ids_HW[:, :-1], none))
    low_HW = low_HW.at[:, :-1].min(jnp.where(right_HW, ids_HW[:, 1:], none))
    low = low_HW.reshape(-1)
    hung = low.at[ids_HW.reshape(-1)].min(low)
    jumped_HW = hung[hung].reshape(height, width)
    return jumped_HW, jnp.any(jumped_HW != ids_HW)

  first_HW = jnp.arange(none, dtype=jnp.int32).reshape(height, width)
  return jax.lax.while_loop(lambda state: state[1], spread, (first_HW, jnp.array(True)))[0]
