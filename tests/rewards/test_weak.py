"""Rewards that need no boxes, against counting by hand."""

import collections

import jax
import jax.numpy as jnp
import numpy as np

from rtune.predictions.boxes import Boxes
from rtune.rewards import weak

CLASSES = ("red", "green", "blue")


def boxes(labels, slots=8) -> Boxes:
  """Boxes of these classes, in slots of which some in between are empty."""
  present = np.zeros(slots, bool)
  present[np.linspace(0, slots - 1, len(labels)).astype(int)] = True
  filled = np.full(slots, 2, np.int32)  # what is not present may have any class
  filled[present] = labels
  corners = np.random.default_rng(0).random((slots, 4)).astype(np.float32)
  return Boxes(*map(jnp.asarray, (corners, filled, present, np.ones(slots, np.float32))))


def value(reward, ours, theirs, **args) -> float:
  found = jax.jit(lambda a, b: reward(a, b, classes=CLASSES, **args))(boxes(ours), boxes(theirs))
  return float(found["reward"])


def test_count_is_ruzickas_similarity_of_the_counts():
  rng = np.random.default_rng(1)
  for _ in range(50):
    ours, theirs = (rng.integers(0, 3, rng.integers(0, 9)).tolist() for _ in range(2))
    one, other = collections.Counter(ours), collections.Counter(theirs)
    wanted = (one & other).total() / (one | other).total() if ours or theirs else 1.0
    assert np.isclose(value(weak.count, ours, theirs), wanted)


def test_count_says_how_far_counts_are_off():
  found = weak.count(boxes([0, 0, 1]), boxes([0, 2]), classes=CLASSES)
  assert np.isclose(found["count_error"], (1 + 1 + 1) / 3)


def test_image_labels_is_f1_of_the_sets():
  assert value(weak.image_labels, [0, 0, 1], [0, 1, 1]) == 1.0
  assert np.isclose(value(weak.image_labels, [0, 0], [0, 1]), 2 / 3)
  assert value(weak.image_labels, [0], [1, 2]) == 0.0
  assert value(weak.image_labels, [], []) == 1.0
  assert value(weak.image_labels, [], [1]) == 0.0


def test_all_right_is_one_or_nothing():
  assert value(weak.all_right, [0, 1, 1], [1, 0, 1]) == 1.0
  assert value(weak.all_right, [0, 1], [1, 0, 1]) == 0.0
  assert value(weak.all_right, [0, 1], [1, 0, 1], within=1) == 1.0


def test_where_boxes_are_does_not_matter():
  moved = boxes([0, 1])._replace(boxes=jnp.zeros((8, 4)))
  for reward in (weak.count, weak.image_labels, weak.all_right):
    assert reward(moved, boxes([0, 1]), classes=CLASSES)["reward"] == 1.0
