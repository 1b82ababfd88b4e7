"""Answers with mistakes: legal boxes, wrong in the shares that were asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.rewards.boxes import pairwise_iou
from rtune.tasks import mistakes
from rtune.tasks.detection import Detection

pytestmark = pytest.mark.usefixtures("quick_compiles")

TASK = Detection(image_size=32, max_boxes=4, levels=101, classes=("a", "b", "c", "d"))
BOX = np.array([0.2, 0.3, 0.6, 0.8], np.float32)


def decoded(count, **settings):
  """Boxes made for 500 images with `count` copies of BOX of class 1."""
  labels = np.full((500, 4), -1, np.int32)
  labels[:, :count] = 1
  batch = {"boxes": np.broadcast_to(BOX, (500, 4, 4)), "labels": labels}
  actions = mistakes.boxes(TASK, batch, jax.random.key(0), **settings)
  assert actions.shape == (500, TASK.length)
  return TASK.decode({}, actions, batch)


def overlaps(prediction):
  return np.asarray(pairwise_iou(jnp.reshape(prediction.boxes, (-1, 4)), jnp.asarray(BOX)[None]))[
    :, 0
  ]


def test_all_slots_hold_a_legal_box():
  for count in (0, 1, 4):
    prediction = decoded(count)
    assert prediction.present.all()


def test_without_mistakes_they_are_the_annotated_boxes():
  prediction = decoded(2, spread=0.0, wrong_class=0.0, nowhere=0.0)
  np.testing.assert_allclose(overlaps(prediction), 1.0, atol=1e-5)
  assert (prediction.labels == 1).all()


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_shares_are_those_asked_for(share):
  prediction = decoded(1, spread=0.0, wrong_class=share, nowhere=0.0)
  # A class drawn at random is the right one now and then.
  assert np.mean(prediction.labels != 1) == pytest.approx(share * 3 / 4, abs=0.04)
  prediction = decoded(1, spread=0.0, wrong_class=0.0, nowhere=share)
  assert np.mean(overlaps(prediction) < 0.99) == pytest.approx(share, abs=0.04)


def test_a_wider_spread_is_further_off():
  near, far = (overlaps(decoded(1, spread=s, wrong_class=0.0, nowhere=0.0)) for s in (0.1, 0.5))
  assert 0.75 < near.mean() < 0.97
  assert far.mean() < near.mean() - 0.15
  assert near.min() < near.max()
