"""Boundaries of label maps against their definition, one pixel at a time, and by hand."""

import math

import numpy as np
import pytest

from rtune.predictions.boundaries import boundary_f1
from rtune.predictions.labels import IGNORE


def edge(labels, known, label):
  """Pixels of a class with a known neighbor of another one."""
  height, width = labels.shape
  found = set()
  for y, x in np.ndindex(labels.shape):
    for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
      other = (y + down, x + right)
      inside = 0 <= other[0] < height and 0 <= other[1] < width
      if inside and known[y, x] and known[other] and labels[y, x] == label != labels[other]:
        found.add((y, x))
  return found


def plain(predicted, truth, classes, radius):
  known, result = truth != IGNORE, []
  for label in range(classes):
    found, there = edge(predicted, known, label), edge(truth, known, label)
    if not found | there:
      result.append(math.nan)
      continue

    def near(ones, others):
      hits = [any(math.dist(a, b) <= radius for b in others) for a in ones]
      return sum(hits) / len(hits) if hits else 0.0

    precision, recall = near(found, there), near(there, found)
    total = precision + recall
    result.append(2 * precision * recall / total if total else 0.0)
  return result


@pytest.mark.parametrize("radius", [0, 1, 2, 4])
def test_is_its_definition(radius):
  rng = np.random.default_rng(radius)
  seen = []
  for _ in range(12):
    blocks = rng.integers(0, 3, (2, 4, 4)).repeat(4, 1).repeat(4, 2)[:, :15, :13]
    truth = np.where(rng.random((15, 13)) < 0.1, IGNORE, blocks[0])
    predicted = np.where(rng.random((15, 13)) < 0.9, np.roll(blocks[0], 1, 0), blocks[1])
    tolerance = radius / math.hypot(15, 13) * 0.999
    found = boundary_f1(predicted, truth, 4, tolerance)
    np.testing.assert_allclose(found, plain(predicted, truth, 4, radius), rtol=1e-12)
    seen.append(found)
  values = np.array(seen)
  assert np.isnan(values[:, 3]).all() and 0.2 < np.nanmean(values) <= 1


def test_hand_computed():
  truth = np.zeros((10, 10), np.int16)
  truth[:, 5:] = 1
  near, far = np.roll(truth, 1, 1), np.roll(truth, 3, 1)
  near[:, 0], far[:, :3] = 0, 0
  assert boundary_f1(truth, truth, 2, 0.0).tolist() == [1, 1]
  assert boundary_f1(near, truth, 2, 0.0).tolist() == [0, 0]
  assert boundary_f1(near, truth, 2, 0.01).tolist() == [1, 1]  # a pixel, by rounding up
  assert boundary_f1(far, truth, 2, 0.01).tolist() == [0, 0]


def test_the_border_of_the_image_and_of_unlabeled_pixels_is_none():
  whole = np.zeros((6, 6), np.int16)
  assert np.isnan(boundary_f1(whole, whole, 2, 0.1)).all()
  truth = whole.copy()
  truth[:, 3:] = IGNORE
  predicted = whole.copy()
  predicted[:, 3:] = 1
  assert np.isnan(boundary_f1(predicted, truth, 2, 0.1)).all()


def test_a_class_in_one_map_alone_counts_as_nothing():
  truth = np.zeros((8, 8), np.int16)
  truth[2:5, 2:5] = 1
  assert boundary_f1(np.zeros((8, 8), np.int16), truth, 2, 0.1).tolist() == [0, 0]
