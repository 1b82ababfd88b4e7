"""Levels of certainty against probabilities, and selection against sorting."""

import numpy as np

from rtune.predictions import certainty


def test_levels_keep_the_order_and_tell_nines_apart():
  probability = np.array([0.0, 0.3, 0.9, 0.99, 0.999, 0.99999, 1.0])
  levels = certainty.levels_of(probability)
  assert levels.dtype == np.uint16
  assert (np.diff(levels.astype(int)) > 100).all()
  assert certainty.level_of(0.9) == 8192 and certainty.level_of(0.99) == 2 * 8192


def test_counts_are_those_of_a_loop():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, (5, 7))
  levels = rng.integers(0, 50, (5, 7)).astype(np.uint16)
  counts = certainty.count_levels(labels, levels, 4)
  for label in range(4):
    for level in range(50):
      assert counts[label, level] == ((labels == label) & (levels == level)).sum()
  assert counts.sum() == labels.size


def test_the_surest_share_of_each_class_is_kept():
  rng = np.random.default_rng(1)
  labels = rng.choice(3, (40, 50), p=[0.9, 0.08, 0.02])
  # The rare class is never as sure as half of the frequent one.
  levels = (rng.integers(0, 1000, labels.shape) + 2000 * (labels == 0)).astype(np.uint16)
  counts = certainty.count_levels(labels, levels, 4)
  least = certainty.surest(counts, 0.3)
  for label in range(3):
    own = np.sort(levels[labels == label])[::-1]
    needed = -(-3 * len(own) // 10)
    assert least[label] == own[needed - 1]
  kept = levels >= least[labels]
  for label in range(3):
    share = kept[labels == label].mean()
    assert 0.3 <= share < 0.33 + 2 / (labels == label).sum()
