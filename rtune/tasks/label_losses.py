"""Losses of label maps by name: what a reward of label maps is compared with.

All are functions of a batch, for `config.mle.losses` or `config.reward.losses`; with
`config.mle.nll_weight=0` they take the place of cross-entropy. Those of a batch's counts
(`soft_jaccard`, `lovasz`) see the part of a batch that is worked on at once: accumulated gradients
are those of its parts.

Dimension key:
  B: batch of images
  H, W: height and width of the model's input in pixels
  N: pixels of all images of a batch
  C: classes
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rtune.errors import UsageError
from rtune.policies.heads import categorical
from rtune.policies.policy import Scored
from rtune.predictions.labels import IGNORE, LabelMap
from rtune.rewards.boxes import balanced_weights
from rtune.rewards.labels import class_areas, effects, weights_of


def weighted_nll(
  scored: Scored, truth: LabelMap, *, class_weights: Sequence[float]
) -> Float[Array, ""]:
  """Cross-entropy with a weight for each class of the truth, in nats.

  Divided by the number of all pixels, unlabeled ones included, as `imitation` and MMSegmentation's
  `avg_non_ignore=False` have it: the same for every part of a batch, and equal to `imitation` where
  all weights are. PyTorch, and MMSegmentation from 1.1 on where there are weights, divide by the
  sum of the labels' weights instead, which is another factor in each batch.

  Args:
    class_weights: of any scale; their mean is made 1.
  """
  logits = scored.outputs["logits"]
  weights_C = weights_of(class_weights, logits.shape[-1])
  known_BHW, own_BHW = _known(truth)
  return jnp.mean(jnp.where(known_BHW, weights_C[own_BHW] * _nll(logits, own_BHW), 0.0))


def balanced_nll(
  scored: Scored, truth: LabelMap, *, class_counts: Sequence[int], smoothing: float = 0.05
) -> Float[Array, ""]:
  """`weighted_nll`, rare classes weigh more: by `balanced_weights` of how many pixels they have.

  Args:
    class_counts: pixels of each class; a config need not give those of the training data.
    smoothing: share of all pixels that is added to those of each class.
  """
  weights = tuple(balanced_weights(class_counts, smoothing).tolist())
  return weighted_nll(scored, truth, class_weights=weights)


def auxiliary_nll(scored: Scored, truth: LabelMap) -> Float[Array, ""]:
  """Cross-entropy of a network's auxiliary head, in nats, divided by the number of all pixels.

  Raises:
    UsageError: the network has none.
  """
  if "auxiliary" not in scored.outputs:
    raise UsageError(
      "auxiliary_nll: this network has no auxiliary head; take one that has, or leave the loss out."
    )
  known_BHW, own_BHW = _known(truth)
  return jnp.mean(jnp.where(known_BHW, _nll(scored.outputs["auxiliary"], own_BHW), 0.0))


def soft_jaccard(scored: Scored, truth: LabelMap) -> Float[Array, ""]:
  """1 - IoU with probabilities in place of pixels, averaged over the classes of the batch's truth.

  Intersection is sum(p y), union sum(p) + sum(y) - sum(p y), over all labeled pixels of the batch
  (Rahman and Wang, ISVC 2016, for each class). 0 where nothing is labeled.
  """
  probability_NC, is_class_NC, known_N = _pixels(scored, truth)
  both_C = jnp.sum(probability_NC * is_class_NC, axis=0)
  predicted_C = jnp.sum(probability_NC * known_N[:, None].astype(jnp.float32), axis=0)
  area_C = jnp.sum(is_class_NC, axis=0)
  union_C = predicted_C + area_C - both_C
  return _over_present(1 - both_C / jnp.maximum(union_C, 1.0), area_C)


def lovasz(scored: Scored, truth: LabelMap) -> Float[Array, ""]:
  """Lovasz-Softmax (Berman et al., CVPR 2018; 1705.08790) over the classes of the batch's truth.

  The Lovasz extension of the Jaccard loss of each class, at the errors |y - p| of all labeled
  pixels of the batch ("classes=present", "per_image=False"). 0 where nothing is labeled.
  """
  probability_NC, is_class_NC, known_N = _pixels(scored, truth)
  is_class_CN = is_class_NC.T
  # An error of 0 comes last and counts nothing.
  error_CN = jnp.where(known_N[None], jnp.abs(is_class_CN - probability_NC.T), 0.0)
  area_C = jnp.sum(is_class_CN, axis=1)
  loss_C = jax.vmap(_jaccard_extension)(error_CN, is_class_CN > 0, area_C)
  return _over_present(loss_C, area_C)


def _jaccard_extension(
  error_N: Float[Array, " n"], is_class_N: Bool[Array, " n"], area: Float[Array, ""]
) -> Float[Array, ""]:
  """Of one class: the largest errors first, each times what its pixel adds to the Jaccard loss.

  What is sorted is one integer a pixel, the bits of its error with the truth as the last one: on
  CPUs five times as fast as floats, or as pairs with a place.
  """
  bits_N = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(error_N), jnp.uint32)
  key_N = ~((bits_N & ~jnp.uint32(1)) | is_class_N.astype(jnp.uint32))
  sorted_N = jnp.sort(key_N)
  largest_N = jax.lax.bitcast_convert_type(~sorted_N & ~jnp.uint32(1), jnp.float32)
  was_class_N = (~sorted_N & 1).astype(jnp.float32)
  missed_N, false_N = jnp.cumsum(was_class_N), jnp.cumsum(1 - was_class_N)
  jaccard_N = 1 - (area - missed_N) / jnp.maximum(area + false_N, 1.0)
  step_N = jnp.diff(jaccard_N, prepend=0.0)
  value = jnp.sum(largest_N * step_N)
  # The gradient: what each pixel adds at its own place, that of equal ones at their first.
  slope = jnp.sum(error_N * step_N[jnp.searchsorted(sorted_N, key_N)])
  return slope + jax.lax.stop_gradient(value - slope)


def expected_credit(
  scored: Scored,
  truth: LabelMap,
  running: Float[Array, "c c"],
  *,
  class_weights: Sequence[float] = (),
) -> Float[Array, ""]:
  """Minus the expectation of `rtune.rewards.labels:miou_change`, exact, where that is sampled.

  What sampling can reach at best: its gradient is what REINFORCE estimates. Averaged over all
  pixels, as REINFORCE is.

  Args:
    running: state of `rtune.rewards.labels:class_confusion`.
    class_weights: as for the reward.
  """
  logits_BHWC = scored.outputs["logits"][:, 0]
  known_BHW, own_BHW = _known(truth)

  def one(probability_HWC, truth_HW, own_HW):
    areas = class_areas(LabelMap(truth_HW), running.shape[0])
    effect = effects(running, areas, class_weights)
    right_HW = jnp.take_along_axis(probability_HWC, own_HW[..., None], axis=-1)[..., 0]
    cost_HW = probability_HWC @ effect.cost
    return right_HW * (effect.gain + effect.cost)[own_HW] - cost_HW

  earned_BHW = jax.vmap(one)(jax.nn.softmax(logits_BHWC), truth.labels, own_BHW)
  return -jnp.mean(jnp.where(known_BHW, earned_BHW, 0.0))


def _known(truth: LabelMap) -> tuple[Bool[Array, "b h w"], Int[Array, "b h w"]]:
  """Where somebody has labeled, and labels that may be used as indices everywhere."""
  return truth.labels != IGNORE, jnp.maximum(truth.labels, 0)


def _nll(logits: Float[Array, "b 1 h w c"], own_BHW: Int[Array, "b h w"]) -> Float[Array, "b h w"]:
  return -categorical.log_prob(logits[:, 0], own_BHW)


def _pixels(
  scored: Scored, truth: LabelMap
) -> tuple[Float[Array, "n c"], Float[Array, "n c"], Bool[Array, " n"]]:
  """Of each pixel: probabilities, the truth as one-hot (all 0 where unknown), whether it counts."""
  logits = scored.outputs["logits"]
  classes = logits.shape[-1]
  labels_N = truth.labels.reshape(-1)
  # No row has a one for IGNORE.
  is_class_NC = (labels_N[:, None] == jnp.arange(classes)[None]).astype(jnp.float32)
  return jax.nn.softmax(logits.reshape(-1, classes)), is_class_NC, labels_N != IGNORE


def _over_present(loss_C: Float[Array, " c"], area_C: Float[Array, " c"]) -> Float[Array, ""]:
  """Mean over the classes that the truth has."""
  present_C = area_C > 0
  count = jnp.maximum(jnp.sum(present_C, dtype=jnp.float32), 1.0)
  return jnp.sum(jnp.where(present_C, loss_C, 0.0)) / count
