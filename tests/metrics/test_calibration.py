from typing import NamedTuple

import numpy as np
import pytest

from rtune.metrics.calibration import best_iou, score_iou


class Image(NamedTuple):
  boxes: np.ndarray
  labels: np.ndarray
  scores: np.ndarray
  truth_boxes: np.ndarray
  truth_labels: np.ndarray


def image(scores, ends, labels=None):
  """Boxes from (0, 0) to (10, end) beside one object from (0, 0) to (10, 10) of class 0."""
  boxes = np.array([[0, 0, 10, end] for end in ends], np.float32).reshape(-1, 4)
  labels = np.zeros(len(ends), int) if labels is None else np.array(labels)
  truth = np.array([[0, 0, 10, 10]], np.float32)
  return Image(boxes, labels, np.array(scores, float), truth, np.zeros(1, int))


def test_iou_is_with_the_best_object_of_the_class():
  np.testing.assert_allclose(best_iou(image([1, 1, 1], [10, 5, 8], [0, 0, 1])), [1.0, 0.5, 0.0])


def test_no_objects_no_overlap():
  empty = image([1], [5])._replace(truth_boxes=np.zeros((0, 4)), truth_labels=np.zeros(0, int))
  np.testing.assert_array_equal(best_iou(empty), [0])


@pytest.mark.parametrize(
  ("scores", "expected"), [((0.1, 0.5, 0.9), 1.0), ((0.9, 0.5, 0.1), -1.0), ((0.5, 0.1, 0.9), 0.5)]
)
def test_rank_correlation_over_images(scores, expected):
  # Spearman by hand: ranks (2, 1, 3) against (1, 2, 3): 1 - 6 * (1 + 1) / (3 * 8) = 0.5.
  images = [image(scores[:1], [2]), image(scores[1:], [4, 9])]
  assert score_iou(images) == pytest.approx(expected)


@pytest.mark.parametrize("images", [[], [image([0.3], [4])], [image([1, 1], [4, 9])]])
def test_where_ranks_mean_nothing_there_is_no_number(images):
  assert score_iou(images) is None
