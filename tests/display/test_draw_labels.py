"""Pictures of label maps: colors, lines, and a legend of what occurs."""

import numpy as np
import pytest

from rtune.display.draw import class_color
from rtune.display.draw_labels import draw_labels


def image(height, width, value=100):
  return np.full((height, width, 3), value, np.uint8)


def blended(label):
  return 100 + 0.55 * (np.array(class_color(label)) - 100)


def test_classes_have_their_colors_and_what_nobody_has_labeled_is_dark():
  labels = np.full((100, 200), 3, np.int16)
  labels[:, 100:] = 0
  labels[:, 190:] = -1
  before = image(100, 200)
  picture = draw_labels(before, labels, scale=1)
  assert picture.shape[1:] == (200, 3) and picture.dtype == np.uint8
  for column, label in ((1, 3), (110, 0)):
    np.testing.assert_allclose(picture[1, column], blended(label), atol=1)
  assert (picture[:100, 99] == 255).all()
  np.testing.assert_array_equal(picture[5, 195], [45, 45, 45])
  assert (before == 100).all()


def swatches(picture, height):
  """Classes whose pure color is in the legend."""
  below = picture[height:].reshape(-1, 3)
  return {k for k in range(21) if (below == class_color(k)).all(axis=1).sum() > 50}


def test_the_legend_has_the_classes_that_occur():
  labels = np.zeros((100, 300), np.int16)
  labels[:50, :50], labels[50:, 250:] = 4, 11
  picture = draw_labels(image(100, 300), labels, ("a", "b", "c", "d", "e"), scale=1)
  assert swatches(picture, 100) == {0, 4, 11}
  named = draw_labels(image(100, 300), labels, ("other", "b", "c", "d", "e"), scale=1)
  np.testing.assert_array_equal(picture[:100], named[:100])
  assert not np.array_equal(picture[100:], named[100:])


def test_a_long_legend_takes_more_rows():
  labels = np.arange(20).repeat(10)[None].repeat(50, 0)
  names = [f"class number {k}" for k in range(20)]
  many = draw_labels(image(50, 200), labels, names, scale=1)
  few = draw_labels(image(50, 200), labels // 19, names, scale=1)
  assert swatches(many, 50) == set(range(20)) and len(many) > len(few) > 50


def test_small_images_are_enlarged():
  picture = draw_labels(image(48, 30), np.ones((48, 30), np.uint8))
  assert picture.shape[1] == 240 and picture.shape[0] > 384


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 3), (37, 41)])
def test_odd_sizes_and_empty_maps(shape):
  rng = np.random.default_rng(0)
  for labels in (np.full(shape, -1), rng.integers(-1, 40, shape)):
    picture = draw_labels(image(*shape), labels, ("a very long name of a class",))
    assert picture.dtype == np.uint8


def test_nothing_labeled_has_no_legend():
  assert draw_labels(image(10, 20), np.full((10, 20), -1), scale=1).shape == (10, 20, 3)


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match=r"\(3, 4\), map \(4, 3\)"):
    draw_labels(image(3, 4), np.zeros((4, 3), int))
