"""How fast answers are judged: the detection reward beside one IoU matrix for each threshold.

Dimension key: that of rewards/boxes.py, and
  B: images
  S: samples for each image
"""

import jax
import jax.numpy as jnp
import numpy as np

from rtune.benchmark.row import Row
from rtune.benchmark.timing import interleaved
from rtune.predictions.boxes import Boxes
from rtune.rewards import boxes

IMAGES, SAMPLES, SLOTS, CLASSES = 32, 8, 100, 80


def reward_by_threshold(prediction: Boxes, truth: Boxes):
  """The yardstick: `rtune.rewards.boxes:recall` with all of it done for each threshold anew."""

  def one(threshold):
    # The barrier keeps the compiler from seeing that all thresholds share one matrix.
    predicted, true, threshold = jax.lax.optimization_barrier((prediction, truth, threshold))
    iou_PG = boxes.pairwise_iou(predicted.boxes, true.boxes)
    iou_PG = jnp.where(boxes.comparable(predicted, true), iou_PG, 0.0)
    points_P = jnp.argmax(iou_PG, axis=1)
    passes_P = jnp.max(iou_PG, axis=1) > threshold
    points_PG = jax.nn.one_hot(points_P, iou_PG.shape[1]) * passes_P[:, None].astype(jnp.float32)
    matches = jnp.sum(jnp.max(points_PG, axis=0))
    return matches - 0.3 * (jnp.sum(points_PG) - matches)

  thresholds = jnp.array(boxes.COCO_THRESHOLDS)
  return jnp.mean(jax.lax.map(one, thresholds))


def scorers() -> dict:
  """Calls that give the rewards [B, S] of the same random boxes."""
  rng = np.random.default_rng(0)
  truth = _random_boxes(rng, (IMAGES, SLOTS))
  near = truth.boxes[:, None] + rng.normal(0, 0.02, (IMAGES, SAMPLES, SLOTS, 4))
  predictions = Boxes(
    jnp.asarray(near, jnp.float32),
    *(jnp.broadcast_to(x[:, None], (IMAGES, SAMPLES, SLOTS)) for x in truth[1:]),
  )

  def mapped(reward):
    over_samples = jax.vmap(reward, in_axes=(0, None))
    score = jax.jit(jax.vmap(over_samples))
    return lambda: score(predictions, truth)

  return {
    "ours": mapped(lambda p, t: boxes.recall(p, t)["reward"]),
    "by threshold": mapped(reward_by_threshold),
  }


def _random_boxes(rng: np.random.Generator, shape: tuple[int, ...]) -> Boxes:
  low, size = rng.uniform(0, 0.7, (*shape, 2)), rng.uniform(0.05, 0.3, (*shape, 2))
  corners = jnp.asarray(np.concatenate([low, low + size], axis=-1), jnp.float32)
  labels = jnp.asarray(rng.integers(0, CLASSES, shape), jnp.int32)
  return Boxes(corners, labels, jnp.ones(shape, bool), jnp.ones(shape, jnp.float32))


def reward_rows(repeats: int) -> list[Row]:
  """The recall reward at ten thresholds, and the yardstick, in turns."""
  timed = interleaved(scorers(), repeats)
  title = f"{IMAGES} images x {SAMPLES} samples x {SLOTS} boxes, ten thresholds"
  ratio = timed.ratio("by threshold", "ours")
  amount = IMAGES * SAMPLES
  return [
    Row("rewards", title, timed.median("ours"), amount, "answer", note=f"{ratio:.2f} x as fast"),
    Row("rewards", "one IoU matrix a threshold", timed.median("by threshold"), amount, "answer"),
  ]
