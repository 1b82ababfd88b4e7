"""Rewards of boxes for images of which nobody has drawn any: a count or a list of classes will do.

They read the classes of boxes alone, never where they are, so they suit models that know already
what objects look like; keep `config.reward.kl` above 0 beside them. Pure functions of one
prediction and its truth. jit, vmap.

Dimension key:
  N: box slots
  C: classes
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.predictions.boxes import Boxes


def count(
  prediction: Boxes, truth: Boxes, *, classes: Sequence[str]
) -> dict[str, Float[Array, ""]]:
  """How near the number of boxes of each class is: sum of minima over sum of maxima.

  That is Ruzicka's similarity of the two vectors of counts: 1 where all are right, 0 where nothing
  is. An image without objects is worth 1 as long as nothing is predicted.

  Args:
    classes: names; the task knows them.

  Returns:
    reward, and the mean error of a count as count_error.
  """
  ours_C, theirs_C = (_counts(boxes, len(classes)) for boxes in (prediction, truth))
  smaller, larger = jnp.sum(jnp.minimum(ours_C, theirs_C)), jnp.sum(jnp.maximum(ours_C, theirs_C))
  reward = jnp.where(larger > 0, smaller / jnp.maximum(larger, 1), 1.0)
  return {"reward": reward, "count_error": jnp.mean(jnp.abs(ours_C - theirs_C))}


def image_labels(
  prediction: Boxes, truth: Boxes, *, classes: Sequence[str]
) -> dict[str, Float[Array, ""]]:
  """F1 of the set of classes that boxes are of, against the set that is annotated.

  Args:
    classes: names; the task knows them.
  """
  ours_C, theirs_C = (_counts(boxes, len(classes)) > 0 for boxes in (prediction, truth))
  both, ours, theirs = (
    jnp.sum(x, dtype=jnp.float32) for x in (ours_C & theirs_C, ours_C, theirs_C)
  )
  sizes = ours + theirs
  return {"reward": jnp.where(sizes > 0, 2 * both / jnp.maximum(sizes, 1), 1.0)}


def all_right(
  prediction: Boxes, truth: Boxes, *, classes: Sequence[str], within: int = 0
) -> dict[str, Float[Array, ""]]:
  """1 where an answer is right, 0 where it is wrong: whether all counts are those annotated.

  Args:
    classes: names; the task knows them.
    within: by so many a count may be off.
  """
  ours_C, theirs_C = (_counts(boxes, len(classes)) for boxes in (prediction, truth))
  return {"reward": jnp.all(jnp.abs(ours_C - theirs_C) <= within).astype(jnp.float32)}


def _counts(boxes: Boxes, classes: int) -> Float[Array, " c"]:
  is_of_NC = boxes.labels[:, None] == jnp.arange(classes)[None]
  return jnp.sum(is_of_NC & boxes.present[:, None], axis=0, dtype=jnp.float32)
