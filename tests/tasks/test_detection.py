"""Boxes as tokens: the layout, what comes back, and that nothing malformed is ever a box."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.display import console
from rtune.errors import UsageError
from rtune.policies.policy import Scored
from rtune.tasks.detection import Detection
from rtune.tasks.task import bind, view

# Tokens 0-2 are confidences, 3-13 the levels 0.0, 0.1 ... 1.0, 14-16 the classes.
SMALL = Detection(
  image_size=16, max_boxes=3, levels=11, classes=("cat", "dog", "owl"), category_ids=(1, 2, 3)
)


def example(boxes=(), labels=None, crowd=None, height=16, width=16):
  boxes = np.array(boxes, np.float32).reshape(-1, 4)
  image = np.arange(height * width * 3).reshape(height, width, 3).astype(np.uint8)
  return {
    "image": image,
    "image_id": 7,
    "boxes": boxes,
    "labels": np.array(np.zeros(len(boxes)) if labels is None else labels, np.int32),
    "crowd": np.array(np.zeros(len(boxes)) if crowd is None else crowd, bool),
    "area": np.ones(len(boxes), np.float32),
  }


def batch_of(*examples, task=SMALL, rng=None):
  rows = [task.example(one, rng) for one in examples]
  return {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}


@functools.partial(jax.jit, static_argnames="task")
def _decode(tokens, task, scored):
  return task.decode({}, tokens, None, scored)


def decode(tokens, task=SMALL, scored=None):
  return _decode(jnp.asarray(tokens, jnp.int32), task, scored)


@functools.partial(jax.jit, static_argnames="task")
def encode(boxes, labels, task=SMALL):
  return task.tokens(boxes, labels)


@jax.jit
def targets(batch, seed):
  return SMALL.targets({}, batch, jax.random.key(seed))


def test_tokens_by_hand():
  boxes = jnp.array([[0.1, 0.2, 0.5, 0.7], [0.0, 0.0, 1.0, 1.0], [0.3, 0.3, 0.6, 0.6]])
  got = encode(boxes, jnp.array([1, 2, -1]))
  want = [4, 5, 8, 10, 15, 2, 3, 3, 13, 13, 16, 2, 0, 0, 0, 0, 0, 0]
  np.testing.assert_array_equal(got, want)


def test_layout_of_the_released_code():
  """Levels 0 to 1000 are tokens 3 to 1003, classes 0 to 79 tokens 1004 to 1083."""
  task = Detection(classes=tuple(f"class {i}" for i in range(80)))
  assert (task.vocab_size, task.first_class, task.length) == (1084, 1004, 600)
  boxes = jnp.array([[0.0, 0.25, 0.5, 1.0], [0.001, 0.0, 1.0, 0.999]])
  got = encode(boxes, jnp.array([0, 79]), task)
  np.testing.assert_array_equal(got, [3, 253, 503, 1003, 1004, 2, 4, 3, 1003, 1002, 1083, 2])


def test_boxes_come_back_within_half_a_level():
  rng = np.random.default_rng(0)
  for levels in (11, 49, 1001):
    task = Detection(max_boxes=8, levels=levels, classes=("a", "b", "c"))
    side = 1 / (levels - 1)
    low = rng.uniform(0, 1 - side, (200, 8, 2))
    high = low + side + rng.random((200, 8, 2)) * (1 - side - low)
    boxes, labels = np.concatenate([low, high], -1), rng.integers(-1, 3, (200, 8))
    tokens = encode(jnp.asarray(boxes, jnp.float32), jnp.asarray(labels, jnp.int32), task)
    # Empty slots stand last; here one would end the sequence.
    slots = tokens.reshape(-1, 6)[labels.reshape(-1) >= 0][:, None].reshape(-1, 6)
    back = decode(slots, task)
    there = labels >= 0
    assert back.present.all()
    np.testing.assert_array_equal(back.labels[:, 0], labels[there])
    assert np.abs(back.boxes[:, 0] - boxes[there]).max() <= (0.5 + 1e-3) * side


@pytest.mark.parametrize(
  "box", [[0.5, 0.5, 0.5, 0.5], [0.02, 0.0, 0.03, 0.01], [1.0, 1.0, 1.0, 1.0], [0.99, 0, 1, 0.001]]
)
def test_a_box_thinner_than_a_level_is_still_a_box(box):
  back = decode(encode(jnp.array([box], jnp.float32), jnp.array([0])))
  assert back.present.all()
  assert (np.asarray(back.boxes)[0, 2:] - np.asarray(back.boxes)[0, :2] > 0.05).all()
  assert np.abs(back.boxes[0] - np.array(box)).max() <= 0.1 + 1e-6


def test_order_is_random_and_every_order_as_likely():
  boxes = np.array([[0, 0, 4, 4], [4, 4, 8, 8], [8, 8, 12, 12]], np.float32)
  one = batch_of(example(boxes, labels=[0, 1, 2]))
  many = {name: jnp.repeat(value, 1200, axis=0) for name, value in one.items()}
  tokens = np.asarray(targets(many, 0))
  orders = [tuple(row[4::6] - SMALL.first_class) for row in tokens]
  counts = [orders.count(order) for order in itertools.permutations(range(3))]
  assert sum(counts) == 1200
  assert min(counts) > 200 - 4 * 13, counts  # 13 = sqrt(1200 * 1/6 * 5/6)
  for row, order in zip(tokens[:20], orders, strict=False):
    want = encode(one["boxes"][0, list(order)], jnp.array(order))
    np.testing.assert_array_equal(row, want)
  again = np.asarray(targets(many, 1))
  assert (tokens != again).any()


def test_empty_slots_come_last():
  batch = batch_of(example([[0, 0, 8, 8]], [2]), example())
  for seed in range(5):
    tokens = targets(batch, seed)
    np.testing.assert_array_equal(tokens[0], [3, 3, 8, 8, 16, 2] + [0] * 12)
    np.testing.assert_array_equal(tokens[1], [0] * 18)


GOOD = [4, 5, 8, 10, 15, 2]
MALFORMED = {
  "class in a coordinate slot": [4, 5, 14, 10, 15, 2],
  "confidence in a coordinate slot": [4, 2, 8, 10, 15, 2],
  "inverted in y": [8, 5, 4, 10, 15, 2],
  "inverted in x": [4, 10, 8, 5, 15, 2],
  "no height": [4, 5, 4, 10, 15, 2],
  "no width": [4, 5, 8, 5, 15, 2],
  "coordinate in the class slot": [4, 5, 8, 10, 13, 2],
  "class that is not in the vocabulary": [4, 5, 8, 10, 17, 2],
  "nothing in the class slot": [4, 5, 8, 10, 0, 2],
  "confidence 0": [4, 5, 8, 10, 15, 0],
  "confidence out of range": [4, 5, 8, 10, 15, 3],
  "class in the confidence slot": [4, 5, 8, 10, 15, 15],
  "negative": [4, -5, 8, 10, 15, 2],
  "huge": [4, 5, 8, 2**31 - 1, 15, 2],
}


@pytest.fixture(scope="module")
def malformed():
  """Each malformed box between two good ones."""
  return decode([GOOD + tokens + GOOD for tokens in MALFORMED.values()])


@pytest.mark.parametrize("name", list(MALFORMED))
def test_malformed_is_not_a_box(malformed, name):
  row = list(MALFORMED).index(name)
  np.testing.assert_array_equal(malformed.present[row], [True, False, True])
  assert malformed.scores[row, 1] == 0


def test_answers_show_the_same_whatever_their_malformed_boxes_say():
  """As on the raccoons, where each image got the same box and others without area behind it."""
  found = decode([GOOD + tokens for tokens in MALFORMED.values()] + [GOOD[:4] + [14, 2] + [0] * 6])
  shown = [
    [part.tobytes() for part in view(SMALL).content(jax.tree.map(lambda x, row=row: x[row], found))]
    for row in range(len(MALFORMED) + 1)
  ]
  assert all(one == shown[0] for one in shown[:-1])
  assert shown[-1] != shown[0]


def test_nothing_counts_after_the_end():
  end_with_box_behind = [0, 5, 8, 10, 15, 2]
  got = decode([GOOD + end_with_box_behind + GOOD, end_with_box_behind + GOOD * 2, GOOD * 3])
  np.testing.assert_array_equal(got.present, [[1, 0, 0], [0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("clip", [False, True])
def test_decoding_is_total(clip):
  task = Detection(max_boxes=3, levels=11, classes=("a", "b"), clip_tokens=clip)
  rng = np.random.default_rng(0)
  near = rng.integers(-3, task.vocab_size + 4, (2000, 2, 18))
  wild = rng.integers(-(2**30), 2**31 - 1, (200, 2, 18))
  got = decode(np.concatenate([near, wild]), task)
  assert got.boxes.shape == (2200, 2, 3, 4)
  for value in (got.boxes, got.scores):
    assert np.isfinite(value).all()
    assert (np.asarray(value) >= 0).all()
    assert (np.asarray(value) <= 1).all()
  assert ((got.labels >= 0) & (got.labels < 2)).all()
  assert 0 < np.mean(got.present) < 1
  if not clip:
    kept = np.asarray(got.boxes)[np.asarray(got.present)]
    assert (kept[:, 2:] > kept[:, :2]).all()


def test_clip_tokens_decodes_as_the_released_code():
  """seq2box of big_vision's detection_reward.py, restated: clip everything, keep confidence > 0."""
  task = Detection(max_boxes=3, levels=11, classes=("a", "b"), clip_tokens=True)
  tokens = np.random.default_rng(1).integers(0, task.vocab_size + 5, (500, 18))
  fields = tokens.reshape(500, 3, 6)
  got = decode(tokens, task)
  np.testing.assert_allclose(got.boxes, np.clip(fields[..., :4] - 3, 0, 10) / 10, atol=1e-6)
  np.testing.assert_array_equal(got.labels, np.clip(fields[..., 4] - 14, 0, 1))
  confidence = np.clip(fields[..., 5], 0, 2)
  np.testing.assert_array_equal(got.present, confidence > 0)
  np.testing.assert_allclose(got.scores, confidence / 2)
  padding_then_box = decode([[0] * 6 + GOOD + [0] * 6], task)
  np.testing.assert_array_equal(padding_then_box.present, [[False, True, False]])


def test_scores_of_tokens_alone():
  unsure = [*GOOD[:5], 1]
  got = decode([GOOD + unsure + [0] * 6])
  np.testing.assert_allclose(got.scores, [[1.0, 0.5, 0.0]])


def scored_with(confidence_logits, class_log_probs):
  """An opinion about the three boxes of GOOD * 3 that says nothing else."""
  logits = np.zeros((1, 1, 18, SMALL.vocab_size), np.float32)
  logits[0, 0, 5::6, :3] = confidence_logits
  log_prob = np.zeros((1, 1, 18), np.float32)
  log_prob[0, 0, 4::6] = class_log_probs
  ones = jnp.ones((1, 1, 18))
  return Scored(jnp.asarray(log_prob), ones, jnp.asarray(logits))


def test_score_is_the_expected_iou():
  logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]])
  got = decode([[GOOD * 3]], scored=scored_with(logits, [0, 0, 0]))
  np.testing.assert_allclose(got.scores, [[[0.5, 8 / 9, 0.25]]], rtol=1e-5)


def test_score_may_be_the_probability_of_the_class():
  task = Detection(max_boxes=3, levels=11, classes=SMALL.classes, score_by="class")
  scored = scored_with(np.zeros((3, 3)), np.log([0.9, 0.5, 0.1]))
  got = decode([[GOOD * 2 + [0] * 6]], task, scored)
  np.testing.assert_allclose(got.scores, [[[0.9, 0.5, 0.0]]], rtol=1e-5)
  with pytest.raises(UsageError, match=r"score_by is 'loudness'; write 'confidence' or 'class'"):
    Detection(score_by="loudness")


def test_crowds_are_left_out():
  one = example([[0, 0, 8, 8], [0, 0, 16, 16], [8, 8, 16, 16]], [0, 1, 2], [False, True, False])
  for rng in (None, np.random.default_rng(0)):
    features = SMALL.example(one, rng)
    np.testing.assert_array_equal(features["labels"], [0, 2, -1])


def test_no_boxes():
  batch = batch_of(example())
  np.testing.assert_array_equal(batch["labels"], [[-1, -1, -1]])
  truth = SMALL.truth(batch)
  assert not truth.present.any()
  assert not decode(targets(batch, 0)).present.any()
  features = SMALL.example(example(), np.random.default_rng(0))
  np.testing.assert_array_equal(features["labels"], [-1, -1, -1])


def test_more_boxes_than_fit():
  corners = [[i, 0, i + 2, 4] for i in range(10)]
  one = example(corners, np.arange(10) % 3)
  kept = set()
  for seed in range(40):
    features = SMALL.example(one, np.random.default_rng(seed))
    again = SMALL.example(one, np.random.default_rng(seed))
    np.testing.assert_array_equal(features["boxes"], again["boxes"])
    assert (features["labels"] >= 0).all()
    rows = np.round(features["boxes"][:, 0] * 16).astype(int)
    assert len(set(rows)) == 3, "no box twice"
    np.testing.assert_array_equal(features["labels"], rows % 3)
    kept |= set(rows)
  assert kept == set(range(10)), "every box has its chance"
  first = SMALL.example(one, None)
  np.testing.assert_allclose(first["boxes"][:, 0] * 16, [0, 1, 2])


def test_features_have_one_shape():
  some, none = example([[0, 0, 20, 8]], height=20, width=40), example(height=5, width=3)
  for rng in (None, np.random.default_rng(0)):
    for one in (some, none):
      shapes = {name: (v.shape, str(v.dtype)) for name, v in SMALL.example(one, rng).items()}
      assert shapes == {
        "image": ((16, 16, 3), "uint8"),
        "boxes": ((3, 4), "float32"),
        "labels": ((3,), "int32"),
        "content": ((4,), "float32"),
      }


def test_training_flips_and_evaluation_does_not():
  task = Detection(image_size=16, max_boxes=3, levels=11, classes=SMALL.classes, flip=1.0)
  one = example([[0, 2, 8, 6]])
  seen = task.example(one, None)
  np.testing.assert_array_equal(seen["image"], one["image"])
  np.testing.assert_allclose(seen["boxes"][0] * 16, [0, 2, 8, 6])
  turned = task.example(one, np.random.default_rng(0))
  np.testing.assert_array_equal(turned["image"], one["image"][:, ::-1])
  np.testing.assert_allclose(turned["boxes"][0] * 16, [0, 10, 8, 14], atol=1e-5)


def test_truth_is_what_was_annotated():
  batch = batch_of(example([[0, 4, 8, 12]], [2]))
  truth = SMALL.truth(batch)
  np.testing.assert_allclose(truth.boxes[0, 0], [0, 0.25, 0.5, 0.75])
  np.testing.assert_array_equal(truth.present, [[True, False, False]])
  np.testing.assert_array_equal(truth.labels, [[2, 0, 0]])


def test_record_is_in_pixels_of_the_original():
  """A wide image: 60 x 30 on a square of 24, so that a level of 61 is one of its pixels."""
  task = Detection(image_size=24, max_boxes=3, levels=61, classes=SMALL.classes)
  boxes = np.array([[3, 6, 15, 30], [0, 0, 30, 60]], np.float32)
  one = example(boxes, [2, 1], height=30, width=60)
  features = task.example(one, None)
  tokens = encode(jnp.asarray(features["boxes"]), jnp.asarray(features["labels"]), task)
  prediction = decode(tokens, task)
  record = view(task).record(jax.tree.map(np.asarray, prediction), features, one)
  np.testing.assert_allclose(record["boxes"], boxes, atol=1e-3)
  np.testing.assert_array_equal(record["labels"], [2, 1])
  np.testing.assert_allclose(record["scores"], [1, 1])
  assert record["image_id"] == 7


def test_record_is_clipped_to_the_image():
  task = Detection(image_size=24, max_boxes=1, levels=61, classes=SMALL.classes)
  one = example(height=30, width=60)
  whole_canvas = decode([[3, 3, 63, 63, task.first_class, 2]], task)
  prediction = jax.tree.map(lambda x: np.asarray(x[0]), whole_canvas)
  record = view(task).record(prediction, task.example(one, None), one)
  np.testing.assert_allclose(record["boxes"], [[0, 0, 30, 60]], atol=1e-3)


def test_confidence_tokens_may_be_left_out_of_reinforce():
  assert SMALL.space().weights == ()  # all 1
  task = Detection(max_boxes=3, levels=11, classes=SMALL.classes, tune_confidence=False)
  np.testing.assert_array_equal(task.space().weights, [1, 1, 1, 1, 1, 0] * 3)


class Counted(list):
  """A source that knows how many boxes its images have."""

  classes, category_ids = ("ant", "bee"), (10, 90)

  def box_counts(self):
    return np.array([0, 2, 5, 9])


def test_classes_come_from_the_data_unless_given():
  bound = bind(Detection(max_boxes=9), Counted())
  assert (bound.classes, bound.category_ids) == (("ant", "bee"), (10, 90))
  assert hash(bound) == hash(bind(Detection(max_boxes=9), Counted()))
  assert bind(SMALL, Counted()).classes == SMALL.classes


def test_images_with_too_many_boxes_are_counted_once(capsys, monkeypatch):
  monkeypatch.setattr(console, "_warned", set())
  for _ in range(2):
    bind(Detection(max_boxes=4), Counted())
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1
  assert "2 images have more than task.args.max_boxes=4 boxes (most: 9)" in lines[0]
