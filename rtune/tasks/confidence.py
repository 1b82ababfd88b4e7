"""What confidence tokens learn while tuning: to expect the IoU of the policy's own boxes.

Dimension key:
  L: tokens of a sequence, 6 for each slot
  N: box slots
  V: vocabulary
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rtune.policies.heads import categorical
from rtune.predictions.boxes import Boxes
from rtune.rewards.boxes import match_iou, nearest
from rtune.tasks.detection import CLASS, CONFIDENCES, FIELDS


def expected_iou(
  logits: Float[Array, "l v"],
  actions: Int[Array, " l"],
  prediction: Boxes,
  truth: Boxes,
  *,
  iou_threshold: float = 0.5,
  class_weight: float = 0.0,
) -> Float[Array, ""]:
  """Cross-entropy of the confidence tokens of one sample (released reward's docstring, 2302.08242).

  Beyond the paper, `class_weight` times the cross-entropy of the class tokens comes on top: where a
  box overlaps an object by more than the threshold, its class is that object's. REINFORCE learns
  from classes only by trying them.

  The target over tokens (0, 1, 2) is (0, 1 - IoU, IoU), with IoU 0 for a box that meets no object.
  The released loss also teaches (1, 0, 0) where a slot is padding. Here the end of a sequence says
  that, and padding is never sampled. Nor is it taught where a box is malformed or its confidence
  was drawn as 0: each such box would make the next one likelier, until there are none.
  """
  log_probs_NC = jax.nn.log_softmax(logits)[FIELDS - 1 :: FIELDS, :CONFIDENCES]
  iou_N = match_iou(prediction, truth, iou_threshold)
  loss_N = -(1 - iou_N) * log_probs_NC[:, 1] - iou_N * log_probs_NC[:, 2]
  if class_weight:
    loss_N += class_weight * _class_loss(logits, actions, prediction, truth, iou_threshold)
  return jnp.mean(jnp.where(prediction.present, loss_N, 0.0))


def _class_loss(logits, actions, prediction: Boxes, truth: Boxes, iou_threshold: float):
  """Cross-entropy [N] of the class tokens with the class of the object that each box is on."""
  one_class = jnp.zeros_like
  iou_N, object_N = nearest(
    prediction._replace(labels=one_class(prediction.labels)),
    truth._replace(labels=one_class(truth.labels)),
  )
  # A token and its label are a constant apart, whatever the number of levels.
  label_N = truth.labels[jnp.minimum(object_N, len(truth.labels) - 1)]
  token_N = actions[CLASS::FIELDS] + label_N - prediction.labels
  loss_N = -categorical.log_prob(logits[CLASS::FIELDS], jnp.clip(token_N, 0, logits.shape[-1] - 1))
  return jnp.where(iou_N > iou_threshold, loss_N, 0.0)
