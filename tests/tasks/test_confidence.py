import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.tasks.confidence import expected_iou
from rtune.tasks.detection import Detection

TASK = Detection(image_size=8, max_boxes=3, levels=11, classes=("a", "b"), category_ids=(1, 2))
TRUTH = TASK.truth(
  {
    "boxes": jnp.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]),
    "labels": jnp.array([0, 1, -1]),
  }
)


def sample(*boxes):
  """Tokens of (y0, x0, y1, x1 in levels, class) boxes, then the end."""
  tokens = [[y0 + 3, x0 + 3, y1 + 3, x1 + 3, 14 + c, 2] for y0, x0, y1, x1, c in boxes]
  return jnp.array([t for box in tokens for t in box] + [0] * (6 * (3 - len(boxes))))


def loss(actions, logits=None, **settings):
  logits = jax.random.normal(jax.random.key(0), (18, TASK.vocab_size)) if logits is None else logits
  prediction = TASK.decode({}, actions, None)
  value = expected_iou(logits, actions, prediction, TRUTH, **settings)
  return value, jax.nn.log_softmax(logits)[5::6]


def test_targets_are_iou_of_each_box():
  # IoU with its object: 1 for the first; the second is 5 x 4 levels of the 5 x 5 object: 0.8.
  value, log_probs = loss(sample((0, 0, 5, 5, 0), (5, 5, 10, 9, 1)))
  wanted = -(log_probs[0, 2] + 0.2 * log_probs[1, 1] + 0.8 * log_probs[1, 2]) / 3
  np.testing.assert_allclose(value, wanted, rtol=1e-5)


def test_a_box_of_another_class_expects_nothing():
  value, log_probs = loss(sample((0, 0, 5, 5, 1)))
  np.testing.assert_allclose(value, -log_probs[0, 1] / 3, rtol=1e-5)


def test_classes_are_those_of_the_objects_below():
  logits = jax.random.normal(jax.random.key(1), (18, TASK.vocab_size))
  # On the object of class 0, said to be of class 1; on that of class 1; on nothing.
  actions = sample((0, 0, 5, 5, 1), (5, 5, 10, 9, 1), (0, 6, 3, 9, 0))
  without, _ = loss(actions, logits)
  value, _ = loss(actions, logits, class_weight=0.5)
  of_class = jax.nn.log_softmax(logits)[4::6]
  wanted = -0.5 * (of_class[0, 14] + of_class[1, 15]) / 3
  np.testing.assert_allclose(value - without, wanted, rtol=1e-4)


def test_what_is_no_box_teaches_nothing():
  assert loss(sample((5, 5, 2, 2, 0)))[0] == 0  # inverted
  doubted = sample((0, 0, 5, 5, 0)).at[5].set(0)
  assert loss(doubted)[0] == 0


def test_nothing_after_the_end_counts():
  assert loss(sample())[0] == 0


@pytest.mark.parametrize("steps", [300])
def test_descending_it_teaches_the_iou(steps):
  actions = sample((0, 0, 5, 5, 0), (5, 5, 10, 9, 1))
  logits = jnp.zeros((18, TASK.vocab_size))
  gradient = jax.jit(jax.grad(lambda x: loss(actions, x)[0]))
  for _ in range(steps):
    logits -= 10 * gradient(logits)
  scores = jax.nn.softmax(logits[5::6, 1:3])[:, 1]
  np.testing.assert_allclose(scores[:2], [1.0, 0.8], atol=0.02)
