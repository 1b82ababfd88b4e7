"""Counts and regions of label maps, one pixel at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from rtune.predictions.labels import IGNORE, confusion, intersection_and_union, regions

CLASSES = 5


def maps(seed, *shape):
  rng = np.random.default_rng(seed)
  predicted, truth = rng.integers(0, CLASSES, (2, *shape))
  return predicted.astype(np.int32), np.where(rng.random(shape) < 0.2, IGNORE, truth).astype(
    "int32"
  )


def counted(predicted, truth, weight=None):
  counts = np.zeros((CLASSES, CLASSES))
  for place in np.ndindex(truth.shape):
    if truth[place] != IGNORE:
      counts[truth[place], predicted[place]] += 1 if weight is None else weight[place]
  return counts


@pytest.mark.parametrize("shape", [(7, 9), (1, 1), (3, 4, 5), (2, 3, 4, 5)])
def test_confusion_is_a_count(shape):
  predicted, truth = maps(0, *shape)
  found = jax.jit(confusion, static_argnums=2)(jnp.asarray(predicted), jnp.asarray(truth), CLASSES)
  np.testing.assert_array_equal(found, counted(predicted, truth))
  assert found.dtype == jnp.float32


def test_confusion_of_short_numbers_and_many_classes():
  """The joint number of two of 1,000 classes does not fit into 16 bits."""
  labels = np.array([[999, 3]], np.int16)
  found = confusion(jnp.asarray(labels), jnp.asarray(labels), 1000)
  assert found.sum() == 2 and found[999, 999] == found[3, 3] == 1


def test_pixels_may_count_differently():
  predicted, truth = maps(1, 6, 6)
  weight = np.random.default_rng(2).random((6, 6)).astype(np.float32)
  found = confusion(jnp.asarray(predicted), jnp.asarray(truth), CLASSES, jnp.asarray(weight))
  np.testing.assert_allclose(found, counted(predicted, truth, weight), rtol=1e-6)


def test_intersection_and_union_are_those_of_sets():
  predicted, truth = maps(3, 8, 8)
  counts = confusion(jnp.asarray(predicted), jnp.asarray(truth), CLASSES)
  intersection, union = (np.asarray(x) for x in intersection_and_union(counts))
  known = truth != IGNORE
  for label in range(CLASSES):
    one, other = (predicted == label) & known, truth == label
    assert (intersection[label], union[label]) == ((one & other).sum(), (one | other).sum())


def spiral(side):
  """One region, a pixel wide, as long as there is room for."""
  out = np.zeros((side, side), np.int32)
  y, x, down, right = 0, 0, 0, 1
  out[y, x] = 1
  for _ in range(side * side):
    ahead = (y + 2 * down, x + 2 * right)
    inside = all(0 <= v < side for v in (y + down, x + right))
    if not inside or (all(0 <= v < side for v in ahead) and out[ahead]):
      down, right = right, -down
      if not all(0 <= v < side for v in (y + down, x + right)) or out[y + 2 * down, x + 2 * right]:
        break
    y, x = y + down, x + right
    out[y, x] = 1
  return out


@pytest.mark.parametrize(
  "labels",
  [
    np.random.default_rng(0).integers(0, 2, (16, 23)),
    np.random.default_rng(1).integers(-1, 4, (16, 23)),
    np.zeros((5, 6), int),
    np.zeros((1, 1), int),
    np.arange(12).reshape(3, 4),
    spiral(32),
    spiral(32).T[::-1],
  ],
)
def test_regions_are_those_of_scipy(labels):
  found = np.asarray(jax.jit(regions)(jnp.asarray(labels, jnp.int32)))
  expected = np.full(labels.shape, -1)
  for label in np.unique(labels):
    numbered, count = ndimage.label(labels == label)
    for number in range(1, count + 1):
      expected[numbered == number] = np.flatnonzero(numbered.ravel() == number)[0]
  np.testing.assert_array_equal(found, expected)


def test_regions_take_few_rounds_even_where_they_are_long():
  """The spiral is 500 pixels long; a round that carries numbers by one pixel would take as many."""
  labels = jnp.asarray(spiral(32))
  assert int((labels == 1).sum()) > 400
  rounds = []

  def counting(condition, body, state):
    while condition(state):
      state = body(state)
      rounds.append(1)
    return state

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax.lax, "while_loop", counting)
    regions(labels)
  assert len(rounds) <= 14
