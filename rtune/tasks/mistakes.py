"""Answers with mistakes, on which a model learns what its own opinion of a box is worth.

Imitation shows only right boxes, so a model that has seen nothing else is sure of all of them.
Boxes that are off, of the wrong class or nowhere, with their true IoU as the target, teach it the
difference before it is tuned (compare the noise objects of Pix2Seq, 2109.10852, section 2.3).

Dimension key:
  B: batch
  N: box slots of the sequence
  L: tokens, 6 for each slot
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from rtune.tasks.detection import Detection


def boxes(
  task: Detection,
  batch,
  key: Array,
  *,
  spread: float = 0.4,
  wrong_class: float = 0.25,
  nowhere: float = 0.2,
) -> Int[Array, "b l"]:
  """As many boxes as a sequence holds, each made from an annotated one drawn at random.

  Args:
    task: the detection task whose tokens are wanted.
    batch: features with boxes [B, N, 4] and labels [B, N], -1 in empty slots.
    key: of all chance.
    spread: each box is moved and stretched by its size times a normal number of a deviation that
      is drawn from 0 to this.
    wrong_class: share of boxes whose class is drawn at random.
    nowhere: share of boxes that are drawn at random; all of them where nothing is annotated.
  """
  keys = jax.random.split(key, 8)
  shape = batch["labels"].shape
  chance_BN = jnp.log(jnp.where(batch["labels"] >= 0, 1.0, 1e-9))
  pick_NB = jax.random.categorical(keys[0], chance_BN, shape=shape[::-1])
  own_BN4 = jnp.take_along_axis(batch["boxes"], pick_NB.T[..., None], axis=1)
  labels_BN = jnp.take_along_axis(batch["labels"], pick_NB.T, axis=1)
  any_B1 = jnp.any(batch["labels"] >= 0, axis=1, keepdims=True)

  center_BN2, size_BN2 = _center_size(own_BN4)
  spread_BN1 = spread * jax.random.uniform(keys[1], (*shape, 1))
  center_BN2 += size_BN2 * spread_BN1 * jax.random.normal(keys[2], (*shape, 2))
  size_BN2 *= jnp.exp(spread_BN1 * jax.random.normal(keys[3], (*shape, 2)))
  corners = jnp.sort(jax.random.uniform(keys[4], (*shape, 2, 2)), axis=-2)
  random_BN4 = corners.reshape(*shape, 4)  # the lower (y, x), then the upper
  moved_BN4 = jnp.concatenate([center_BN2 - size_BN2 / 2, center_BN2 + size_BN2 / 2], axis=-1)
  is_random_BN = jax.random.bernoulli(keys[5], nowhere, shape) | ~any_B1
  boxes_BN4 = jnp.where(is_random_BN[..., None], random_BN4, moved_BN4)

  random_label_BN = jax.random.randint(keys[6], shape, 0, len(task.classes))
  is_wrong_BN = jax.random.bernoulli(keys[7], wrong_class, shape) | ~any_B1
  labels_BN = jnp.where(is_wrong_BN, random_label_BN, labels_BN)
  return task.tokens(jnp.clip(boxes_BN4, 0.0, 1.0), labels_BN)


def _center_size(boxes_BN4):
  low_BN2, high_BN2 = boxes_BN4[..., :2], boxes_BN4[..., 2:]
  return (low_BN2 + high_BN2) / 2, high_BN2 - low_BN2
