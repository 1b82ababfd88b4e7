"""Which images are chosen, against definitions by brute force."""

import itertools

import numpy as np
import pytest

from rtune.training import choosing
from rtune.training.choosing import Looked


def images(features, entropy=None):
  entropy = np.zeros(len(features)) if entropy is None else entropy
  return [
    Looked(float(e), float(e), np.array(f, float)) for e, f in zip(entropy, features, strict=True)
  ]


def test_impurity_is_the_entropy_of_labels_around_a_pixel_times_the_mean_entropy_there():
  rng = np.random.default_rng(0)
  labels, entropy = rng.integers(0, 3, (12, 18)), rng.random((12, 18))
  side = 3  # a twelfth of 18 is less
  around = np.pad(labels, side // 2, mode="edge"), np.pad(entropy, side // 2, mode="edge")
  expected = []
  for row, column in itertools.product(range(12), range(18)):
    window = (slice(row, row + side), slice(column, column + side))
    share = np.bincount(around[0][window].ravel()) / side**2
    share = share[share > 0]
    expected.append(-(share * np.log(share)).sum() * around[1][window].mean())
  looked = choosing.look(labels, entropy, 3)
  assert looked.impurity == pytest.approx(np.mean(expected), rel=1e-9)
  assert looked.entropy == pytest.approx(entropy.mean())


def test_pure_regions_are_worth_nothing():
  entropy = np.ones((8, 8))
  assert choosing.look(np.zeros((8, 8), int), entropy, 2).impurity == 0
  halves = np.zeros((8, 8), int)
  halves[:, 4:] = 1
  assert choosing.look(halves, entropy, 2).impurity > 0


def test_the_least_sure_come_first():
  looked = images(np.zeros((5, 1)), entropy=[0.1, 0.9, 0.3, 0.8, 0.2])
  rng = np.random.default_rng(0)
  assert choosing.entropy(looked, 2, rng) == [1, 3]
  assert choosing.impurity(looked, 3, rng) == [1, 2, 3]


def test_diverse_chooses_one_of_each_group_and_no_outlier():
  rng = np.random.default_rng(0)
  groups = [center + 0.1 * rng.normal(size=(20, 2)) for center in ([0, 0], [5, 0], [0, 5])]
  features = np.concatenate([*groups, [[9.0, 9.0]]])
  chosen = choosing.diverse(images(features), 3, rng)
  assert sorted(place // 20 for place in chosen) == [0, 1, 2]


def test_diverse_is_greedy_facility_location():
  rng = np.random.default_rng(3)
  features = rng.normal(size=(9, 3))
  distance = np.linalg.norm(features[:, None] - features, axis=2)
  expected = []
  for _ in range(3):
    left = [
      np.min(distance[:, [*expected, place]], axis=1).sum() if place not in expected else np.inf
      for place in range(9)
    ]
    expected.append(int(np.argmin(left)))
  assert choosing.diverse(images(features), 3, rng) == sorted(expected)


def test_any_are_chosen_once_each_and_again_the_same():
  looked = images(np.zeros((30, 1)))
  first, again = (choosing.random(looked, 10, np.random.default_rng(4)) for _ in range(2))
  assert first == again and len(set(first)) == 10
  assert first != choosing.random(looked, 10, np.random.default_rng(5))


@pytest.mark.parametrize("name", choosing.NAMES)
def test_all_names_are_functions(name):
  features = np.random.default_rng(0).normal(size=(8, 2))
  chosen = choosing.named(name)(images(features, features[:, 0]), 8, np.random.default_rng(0))
  assert chosen == list(range(8))
