"""Objects and the places of their centers, there and back."""

import jax
import numpy as np
import pytest

from rtune.errors import UsageError
from rtune.policies.policy import Scored
from rtune.tasks.placed_detection import PlacedDetection

CLASSES = ("a", "b", "c")


def task_of(**changes) -> PlacedDetection:
  return PlacedDetection(
    **{"image_size": 64, "place": 8, "max_boxes": 6, "classes": CLASSES, **changes}
  )


def objects(seed, task, count):
  """Boxes whose centers are at places of their own; (boxes [N, 4], labels [N])."""
  rng = np.random.default_rng(seed)
  places = rng.choice(task.side**2, count, replace=False)
  center = (
    np.stack(np.divmod(places, task.side), -1) + rng.uniform(0.1, 0.9, (count, 2))
  ) / task.side
  room = np.minimum(center, 1 - center)  # boxes stay within the image
  half = room * rng.uniform(0.2, 0.9, (count, 2))
  boxes = np.concatenate([center - half, center + half], axis=1).astype(np.float32)
  return boxes, rng.integers(0, 3, count).astype(np.int32), places


def batch_of(task, boxes, labels):
  slots, names = np.zeros((task.max_boxes, 4), np.float32), np.full(task.max_boxes, -1, np.int32)
  slots[: len(boxes)], names[: len(labels)] = boxes, labels
  return {"boxes": slots[None], "labels": names[None]}


def test_objects_are_at_the_places_of_their_centers_and_come_back():
  task = task_of()
  for seed in range(20):
    boxes, labels, places = objects(seed, task, count=seed % 7)
    batch = batch_of(task, boxes, labels)
    answers = jax.jit(task.targets)({}, batch, jax.random.key(0))
    present = np.asarray(answers["present"][0])
    assert sorted(np.flatnonzero(present)) == sorted(places)
    found = task.decode({}, answers, batch)
    order = np.argsort(places)
    np.testing.assert_allclose(np.asarray(found.boxes[0])[present], boxes[order], atol=1e-5)
    np.testing.assert_array_equal(np.asarray(found.labels[0])[present], labels[order])
    assert np.isfinite(answers["box"]).all()


def test_of_several_at_one_place_the_smallest_is_taken():
  task = task_of()
  boxes = np.array([[0.1, 0.1, 0.9, 0.9], [0.4, 0.4, 0.6, 0.6], [0.3, 0.3, 0.7, 0.7]], np.float32)
  answers = task.targets({}, batch_of(task, boxes, np.arange(3, dtype=np.int32)), None)
  (place,) = np.flatnonzero(answers["present"][0])
  assert answers["label"][0, place] == 1
  assert place == 4 * task.side + 4  # its center is where four places meet: that below and right


def test_a_center_at_the_last_edge_is_in_the_last_place():
  task = task_of()
  box = np.array([[0.999, 0.5, 1.001, 0.6]], np.float32)
  answers = task.targets({}, batch_of(task, box, np.array([0], np.int32)), None)
  assert np.flatnonzero(answers["present"][0]) // task.side == task.side - 1


def test_scores_are_the_probabilities_of_something_times_its_class():
  task = task_of(image_size=16)
  rng = np.random.default_rng(0)
  actions = {
    "present": np.array([[[True, False, True, True]]]),
    "label": np.array([[[2, 0, 1, 1]]]),
    "box": np.zeros((1, 1, 4, 4), np.float32),
  }
  outputs = {
    "present": rng.normal(size=(1, 1, 4)).astype(np.float32),
    "label": rng.normal(size=(1, 1, 4, 3)).astype(np.float32),
  }
  zeros = np.zeros((1, 1, 4), np.float32)
  found = task.decode({}, actions, {}, Scored(zeros, zeros, outputs))
  share = 1 / (1 + np.exp(-outputs["present"][0, 0]))
  classes = np.exp(outputs["label"][0, 0])
  classes /= classes.sum(axis=-1, keepdims=True)
  wanted = share * classes[np.arange(4), actions["label"][0, 0]]
  wanted[1] = 0  # nothing there
  np.testing.assert_allclose(found.scores[0, 0], wanted, rtol=1e-5)
  # A box of the size of its place, around its middle.
  np.testing.assert_allclose(found.boxes[0, 0, 1], [0, 0.5, 0.5, 1], atol=1e-6)


def test_places_must_fill_the_image():
  with pytest.raises(UsageError, match=r"config\.task\.args\.place is 7"):
    task_of(place=7)
