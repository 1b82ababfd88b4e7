"""What confidence tokens learn while tuning: to expect the IoU of the policy's own boxes.

Dimension key:
  L: tokens of a sequence, 6 for each slot
  N: box slots
  V: vocabulary
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rtune.policies.autoregressive import alive
from rtune.rewards.boxes import match_iou
from rtune.tasks.boxes import Boxes
from rtune.tasks.detection import CONFIDENCES, ENDING, FIELDS


def expected_iou(
  logits: Float[Array, "l v"],
  actions: Int[Array, "l"],
  prediction: Boxes,
  truth: Boxes,
  *,
  iou_threshold: float = 0.5,
) -> Float[Array, ""]:
  """Cross-entropy of the confidence tokens of one sample (released reward's docstring, 2302.08242).

  The target over tokens (0, 1, 2) is (0, 1 - IoU, IoU) for a box, with IoU 0 for one that points to
  nothing, and (1, 0, 0) for a slot without one. Slots after the end are never sampled and count
  as zeros of the mean over all slots.
  """
  log_probs_NC = jax.nn.log_softmax(logits)[FIELDS - 1 :: FIELDS, :CONFIDENCES]
  iou_N = match_iou(prediction, truth, iou_threshold)
  box_N3 = jnp.stack([jnp.zeros_like(iou_N), 1 - iou_N, iou_N], axis=-1)
  target_N3 = jnp.where(prediction.present[:, None], box_N3, jnp.array([1.0, 0.0, 0.0]))
  loss_N = -jnp.sum(jax.lax.stop_gradient(target_N3) * log_probs_NC, axis=-1)
  # The slot that ends the sequence opens with the end: its confidence is not sampled either.
  sampled_N = alive(actions, ENDING)[FIELDS - 1 :: FIELDS]
  return jnp.mean(loss_N * sampled_N)
