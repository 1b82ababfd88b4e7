"""Pictures of segments: colors, lines between neighbors, names where there is room."""

import numpy as np
import pytest

from rtune.display.draw import class_color
from rtune.display.draw_segments import draw_segments


def image(height, width, value=100):
  return np.full((height, width, 3), value, np.uint8)


def test_segments_have_the_colors_of_their_classes_and_lines_between_them():
  segments = np.ones((100, 200), np.uint8)
  segments[:, 100:] = 2
  segments[:, 190:] = 0
  before = image(100, 200)
  picture = draw_segments(before, segments, np.array([3, 0]), scale=1)
  assert picture.shape == (100, 200, 3) and picture.dtype == np.uint8
  for column, label in ((1, 3), (110, 0)):
    expected = 100 + 0.55 * (np.array(class_color(label)) - 100)
    np.testing.assert_allclose(picture[1, column], expected, atol=1)
  assert (picture[:, 99] == 255).all() and (picture[:, 189] == 255).all()
  np.testing.assert_array_equal(picture[5, 195], [45, 45, 45])  # void
  assert (before == 100).all()


def test_instances_of_one_class_are_parted():
  segments = np.ones((60, 60), np.uint8)
  segments[:, 30:] = 2
  picture = draw_segments(image(60, 60), segments, np.array([1, 1]), ("a", "b"), scale=1)
  assert (picture[0, 29] == 255).all()


def test_small_images_are_enlarged():
  picture = draw_segments(image(48, 30), np.ones((48, 30), np.uint8), np.array([0]))
  assert picture.shape == (384, 240, 3)


def test_names_stand_inside_and_do_not_hide_each_other():
  segments = np.zeros((100, 400), np.uint8)
  segments[10:90, 20:180], segments[10:90, 220:380] = 1, 2
  named = draw_segments(image(100, 400), segments, np.array([0, 1]), ("ox", "ox"), scale=1)
  plain = draw_segments(image(100, 400), segments, np.array([0, 1]), ("", ""), scale=1)
  changed = (named != plain).any(axis=-1)
  for left in (20, 220):
    y, x = np.nonzero(changed[:, left : left + 160])
    assert y.min() > 30 and y.max() < 70 and x.min() > 40 and x.max() < 120
  tiny = np.zeros((100, 400), np.uint8)
  tiny[4, 5] = 1
  picture = draw_segments(image(100, 400), tiny, np.array([0]), ("hippopotamus",), scale=1)
  assert ((picture != 45).any(axis=-1)).sum() < 10


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 3), (37, 41)])
def test_odd_sizes_and_empty_maps(shape):
  rng = np.random.default_rng(0)
  for segments in (np.zeros(shape, np.uint8), rng.integers(0, 4, shape)):
    labels = np.array([0, 40, 7])
    assert draw_segments(image(*shape), segments, labels, ("word",)).dtype == np.uint8
  draw_segments(image(*shape), np.zeros(shape, int), np.zeros(0, int))


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match=r"\(3, 4\), map \(4, 3\)"):
    draw_segments(image(3, 4), np.zeros((4, 3), int), np.array([0]))
  with pytest.raises(ValueError, match="2 segments, 1 labels"):
    draw_segments(image(3, 4), np.full((3, 4), 2), np.array([0]))
