"""Objects found, by hand, and against the reward of the same name, which counts otherwise."""

import jax.numpy as jnp
import numpy as np
import pytest

from rtune.errors import UsageError
from rtune.metrics.objects import objects
from rtune.predictions.labels import LabelMap
from rtune.rewards.objects import objects_found

CLASSES = ("ground", "a", "b")
TRUTH = np.array(
  [
    [0, 1, 1, 0, 0, -1],
    [0, 1, 1, 0, 2, 2],
    [0, 0, 0, 0, 2, 2],
    [1, 1, 1, 1, 0, 0],
  ],
  np.int16,
)


def scores(predicted, **args):
  metric = objects(CLASSES, of=("a", "b"), **args)
  state = metric.update(
    metric.init(), {"image_id": 1, "labels": np.array(predicted)}, {"label_map": TRUTH}
  )
  return metric.compute(state)


def test_truth_itself_is_all_found():
  assert scores(np.maximum(TRUTH, 0)) == {"object_recall": 1, "object_precision": 1}


def test_half_an_object_is_not_found_and_more_is():
  half = np.where(TRUTH == 2, 2, 0)
  half[3, :2] = 1
  assert scores(half)["object_recall"] == pytest.approx(1 / 3)
  half[3, 2] = 1
  assert scores(half, least=3) == {"object_recall": pytest.approx(2 / 3), "object_precision": 1}


def test_what_is_drawn_on_other_ground_is_wrong_and_on_unlabeled_ground_is_not_there():
  drawn = np.zeros_like(TRUTH)
  drawn[:2, 4:] = 1  # three of its pixels are labeled, as other things
  assert scores(drawn, least=3) == {"object_recall": 0, "object_precision": 0}
  assert scores(drawn, least=4)["object_precision"] == 0  # nothing drawn that counts


def test_the_share_is_that_of_the_reward():
  rng = np.random.default_rng(0)
  for _ in range(5):
    truth = np.kron(rng.integers(0, 3, (3, 4)), np.ones((4, 3), int)).astype(np.int16)
    predicted = np.where(rng.random(truth.shape) < 0.55, truth, rng.integers(0, 3, truth.shape))
    metric = objects(CLASSES)
    state = metric.update(metric.init(), {"image_id": 0, "labels": predicted}, {"label_map": truth})
    said = objects_found(
      LabelMap(jnp.asarray(predicted, jnp.int32)),
      LabelMap(jnp.asarray(truth, jnp.int32)),
      classes=CLASSES,
    )
    share = float(said["found"] / said["objects"])
    assert metric.compute(state)["object_recall"] == pytest.approx(share)


def test_unknown_names_are_refused():
  with pytest.raises(UsageError, match="'car' is no class"):
    objects(CLASSES, of=("car",))
