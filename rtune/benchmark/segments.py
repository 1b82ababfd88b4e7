"""How fast segments are judged: PQ of large maps in numpy, and the reward of sampled ones.

Dimension key:
  B: images
  S: samples for each image
  I: height and width of the model's input in pixels
  M: segment slots
"""

import jax
import numpy as np

from rtune.benchmark.row import Row
from rtune.benchmark.timing import interleaved
from rtune.metrics.segments import panoptic
from rtune.predictions.segments import AnnotatedSegments, Segments
from rtune.rewards.segments import panoptic_quality

HEIGHT, WIDTH, SEGMENTS, CLASSES = 480, 640, 20, 133
IMAGES, SAMPLES, SIDE, SLOTS = 16, 6, 48, 12


def _blocks(rng: np.random.Generator, shape: tuple[int, ...], segments: int) -> np.ndarray:
  """Maps of square regions, 0 for void, of the type that annotations are read as."""
  *many, height, width = shape
  coarse = rng.integers(0, segments + 1, (*many, height // 8, width // 8), np.uint8)
  return coarse.repeat(8, axis=-2).repeat(8, axis=-1)


def scorers() -> dict:
  """Calls: PQ of one image of 640 x 480 pixels, and rewards [B, S] of small maps."""
  rng = np.random.default_rng(0)
  metric = panoptic(
    [f"class {i}" for i in range(CLASSES)], range(1, CLASSES + 1), [i < 80 for i in range(CLASSES)]
  )
  shape, labels = (HEIGHT, WIDTH), rng.integers(0, CLASSES, SEGMENTS)
  truth = {"image_id": 1, "segments": _blocks(rng, shape, SEGMENTS), "labels": labels}
  truth["crowd"] = np.zeros(SEGMENTS, bool)
  moved = {"image_id": 1, "segments": np.roll(truth["segments"], 1, axis=1), "labels": labels}

  ids = _blocks(rng, (IMAGES, SAMPLES, SIDE, SIDE), SLOTS - 1).astype(np.int32)
  slots, present = rng.integers(0, CLASSES, (IMAGES, SLOTS)), np.ones((IMAGES, SLOTS), bool)
  present[:, 0] = False
  true = AnnotatedSegments(ids[:, 0], slots, present, np.zeros_like(present))
  samples = [np.repeat(x[:, None], SAMPLES, axis=1) for x in (slots, present)]
  predicted = Segments(ids, *samples)
  over_samples = jax.vmap(lambda p, t: panoptic_quality(p, t)["reward"], in_axes=(0, None))
  score = jax.jit(jax.vmap(over_samples))
  return {
    "metric": lambda: metric.update(metric.init(), moved, truth),
    "reward": lambda: score(predicted, true),
  }


def segment_rows(repeats: int) -> list[Row]:
  """The panoptic metric and the panoptic reward."""
  timed = interleaved(scorers(), repeats)
  small = f"PQ reward, {IMAGES} images x {SAMPLES} samples of {SIDE} px"
  return [
    Row("rewards", f"PQ metric, {WIDTH} x {HEIGHT}", timed.median("metric"), 1, "image"),
    Row("rewards", small, timed.median("reward"), IMAGES * SAMPLES, "answer"),
  ]
