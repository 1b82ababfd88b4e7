"""Passes side by side, and the maps of what was done."""

import numpy as np

from rtune.display.draw_passes import draw_passes


def test_passes_stand_side_by_side_above_their_maps():
  rng = np.random.default_rng(0)
  given, original = (rng.integers(0, 256, (10, 8, 1), np.uint8) for _ in range(2))
  passes = rng.integers(0, 256, (2, 10, 8, 1), np.uint8)
  numbers = np.zeros((2, 2, 1, 2))
  numbers[..., 0] = 1.0
  numbers[1, 0, 0] = 0.5, 0.75  # a smaller step, and much is kept
  drawn = draw_passes(given, passes, original, numbers)
  assert drawn.shape == (3 * 10 + 2 * 4, 4 * 8 + 3 * 4, 3)
  for place, picture in enumerate((given, *passes, original)):
    at = slice(12 * place, 12 * place + 8)
    np.testing.assert_array_equal(drawn[:10, at], np.repeat(picture, 3, axis=-1))
  steps, mixes = drawn[14:24], drawn[28:]
  gray = (235, 235, 235)
  assert tuple(steps[0, 12]) == tuple(mixes[0, 12]) == tuple(steps[9, 24]) == gray
  assert tuple(steps[0, 24]) == (40, 90, 200)  # below
  assert tuple(mixes[0, 24]) == (200, 60, 40)  # above
  assert np.all(steps[:, :8] == 255) and np.all(steps[:, 36:] == 255)


def test_multipliers_have_one_map():
  given, passes = np.zeros((10, 8, 3), np.uint8), np.zeros((2, 10, 8, 3), np.uint8)
  drawn = draw_passes(given, passes, given, np.ones((2, 2, 1, 3)))
  assert drawn.shape == (2 * 10 + 4, 4 * 8 + 3 * 4, 3)
