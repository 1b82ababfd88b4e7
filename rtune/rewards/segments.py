"""Rewards of predicted segments: pure functions of one prediction and its truth. jit, vmap.

Segments match as in `rtune.metrics.segments`: same class and an IoU above 0.5, in whose union void
pixels do not count.

Dimension key:
  H, W: height and width of the model's square input in pixels
  P: predicted slots
  G: annotated slots
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rtune.predictions.segments import AnnotatedSegments, Segments


class Matching(NamedTuple):
  """Sums over the segments of one image, as floats."""

  iou: Float[Array, ""]
  matched: Float[Array, ""]
  unmatched: Float[Array, ""]  # predicted; those that lie mostly on void or crowd do not count
  missed: Float[Array, ""]  # annotated, crowd not counted


def matched_iou(
  prediction: Segments, truth: AnnotatedSegments, *, unmatched: float = 0.3
) -> dict[str, Float[Array, ""]]:
  """Sum of the IoU of matches minus a price for each predicted segment without one (2302.08242).

  The paper's stand-in for PQ, which is no sum over images. It is not divided by the number of
  segments, so crowded images weigh more.

  Args:
    prediction: of one image.
    truth: of the same image.
    unmatched: price of a false positive, in matches (the paper's is small; 0.3 is not certain).

  Returns:
    reward, iou (its first sum), and the numbers of matched, unmatched and missed segments.
  """
  found = match(prediction, truth)
  return {"reward": found.iou - unmatched * found.unmatched, **found._asdict()}


def panoptic_quality(prediction: Segments, truth: AnnotatedSegments) -> dict[str, Float[Array, ""]]:
  """PQ of one image, its classes pooled: sum of IoU / (matched + unmatched / 2 + missed / 2).

  1 where there is nothing to find and nothing wrong was predicted.

  Returns:
    reward, the sum iou, and the numbers of matched, unmatched and missed segments.
  """
  found = match(prediction, truth)
  total = found.matched + 0.5 * (found.unmatched + found.missed)
  quality = jnp.where(total > 0, found.iou / jnp.maximum(total, 0.5), 1.0)
  return {"reward": quality, **found._asdict()}


def match(prediction: Segments, truth: AnnotatedSegments) -> Matching:
  """Which segments match, from the pixels that each pair of slots shares."""
  slots = prediction.labels.shape[0], truth.labels.shape[0]
  shared_PG = overlaps(prediction.ids, truth.ids, *slots)
  area_P, area_G = jnp.sum(shared_PG, axis=1), jnp.sum(shared_PG, axis=0)
  void_P = jnp.sum(jnp.where(truth.present[None], 0, shared_PG), axis=1)
  there_P, there_G = prediction.present & (area_P > 0), truth.present & (area_G > 0)
  there_PG = there_P[:, None] & there_G[None]
  alike_PG = there_PG & (prediction.labels[:, None] == truth.labels[None])
  union_PG = area_P[:, None] + area_G[None] - shared_PG - void_P[:, None]
  matches_PG = alike_PG & ~truth.crowd[None] & (2 * shared_PG > union_PG)
  iou_PG = jnp.where(matches_PG, shared_PG / jnp.maximum(union_PG, 1), 0.0)
  crowd_PG = alike_PG & truth.crowd[None]
  excused_P = void_P + jnp.sum(jnp.where(crowd_PG, shared_PG, 0), axis=1)
  unmatched_P = there_P & ~jnp.any(matches_PG, axis=1) & (2 * excused_P <= area_P)
  missed_G = there_G & ~jnp.any(matches_PG, axis=0) & ~truth.crowd
  return Matching(jnp.sum(iou_PG), _count(matches_PG), _count(unmatched_P), _count(missed_G))


def overlaps(
  found_HW: Int[Array, "h w"], there_HW: Int[Array, "h w"], found: int, there: int
) -> Int[Array, "{found} {there}"]:
  """Pixels that each predicted slot shares with each annotated one.

  One count over joint numbers: on CPU hundreds of times quicker than a product of one-hot pixels,
  and it takes no memory.
  """
  joint = (found_HW * there + there_HW).reshape(-1)
  return jnp.zeros(found * there, jnp.int32).at[joint].add(1).reshape(found, there)


def _count(which: Bool[Array, "*n"]) -> Float[Array, ""]:
  return jnp.sum(which, dtype=jnp.float32)
