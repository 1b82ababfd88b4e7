"""What confidence tokens learn while tuning: to expect the IoU of the policy's own boxes.

Dimension key:
  L: tokens of a sequence, 6 for each slot
  N: box slots
  V: vocabulary
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rtune.rewards.boxes import match_iou
from rtune.tasks.boxes import Boxes
from rtune.tasks.detection import CONFIDENCES, FIELDS


def expected_iou(
  logits: Float[Array, "l v"],
  actions: Int[Array, "l"],
  prediction: Boxes,
  truth: Boxes,
  *,
  iou_threshold: float = 0.5,
) -> Float[Array, ""]:
  """Cross-entropy of the confidence tokens of one sample (released reward's docstring, 2302.08242).

  The target over tokens (0, 1, 2) is (0, 1 - IoU, IoU), with IoU 0 for a box that meets no object.
  The released loss also teaches (1, 0, 0) where a slot is padding. Here the end of a sequence says
  that, and padding is never sampled. Nor is it taught where a box is malformed or its confidence
  was drawn as 0: each such box would make the next one likelier, until there are none.
  """
  log_probs_NC = jax.nn.log_softmax(logits)[FIELDS - 1 :: FIELDS, :CONFIDENCES]
  iou_N = match_iou(prediction, truth, iou_threshold)
  loss_N = -(1 - iou_N) * log_probs_NC[:, 1] - iou_N * log_probs_NC[:, 2]
  return jnp.mean(jnp.where(prediction.present, loss_N, 0.0))
