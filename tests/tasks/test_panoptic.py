"""Segments as codes: what goes into the code model, what comes out of it, and back to the image."""

import dataclasses
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune import config as configs
from rtune.data.scenes.panoptic import PanopticShapes
from rtune.devices.compiling import jit_once
from rtune.display import console
from rtune.errors import UsageError
from rtune.metrics.segments import panoptic
from rtune.predictions import segments as slots
from rtune.predictions.patches import patches, unpatch
from rtune.rewards.segments import panoptic_quality
from rtune.tasks.coded import CodedTask
from rtune.tasks.panoptic import Panoptic
from rtune.tasks.task import Task, bind, knowledge, settings, view

SMALL = {"patch_size": 8, "code_length": 4, "width": 16, "encoder_depth": 1, "decoder_depth": 1}
SMALL |= {"num_heads": 2, "mlp_dim": 16, "dict_size": 8, "codeword_dim": 4, "conv_context": True}
SCENES = PanopticShapes("train", 40, size=32)


def make(source=SCENES, **args):
  return bind(Panoptic(**{"image_size": 32, "max_segments": 9, "codes": SMALL} | args), source)


def batch_of(task, *raws, rng=None):
  rows = [task.example(raw, rng) for raw in raws]
  return {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}


def metric_of(task):
  return panoptic(task.classes, task.category_ids, task.things)


@pytest.fixture
def told(monkeypatch):
  """What is warned of."""
  found = []
  monkeypatch.setattr(console, "warn_once", lambda key, text: found.append(text))
  return found


def logits_of(task, batch):
  """Logits that say the truth, of the code model's two heads."""
  return {name: 9.0 * value for name, value in task.labels(batch).items()}


def test_is_a_coded_task():
  task = make()
  assert isinstance(task, Task) and isinstance(task, CodedTask)
  assert task.codes == configs.CodeSizes(**SMALL)  # from a config's mapping
  assert pickle.loads(pickle.dumps(task)) == task and hash(task) == hash(make())
  assert task.classes == SCENES.classes and task.things == SCENES.things
  held = json.loads(json.dumps(dataclasses.asdict(task)))
  assert set(held) == set(settings(task))
  again = Panoptic(**{k: tuple(v) if isinstance(v, list) else v for k, v in held.items()})
  assert again == task and bind(again, SCENES) == task


def test_examples_have_static_shapes():
  task = make()
  for raw in (SCENES[0], SCENES[1], view(task).unlabeled(np.zeros((50, 41, 3), np.uint8), 3)):
    for rng in (None, np.random.default_rng(0)):
      features = task.example(raw, rng)
      shapes = {name: (value.shape, value.dtype) for name, value in features.items()}
      assert shapes == {
        "image": ((32, 32, 3), np.uint8),
        "segments": ((32, 32), np.uint8),
        "labels": ((9,), np.int32),
        "crowd": ((9,), bool),
        "content": ((4,), np.float32),
      }
  assert not features["segments"].any() and (features["labels"] == -1).all()


def test_slots_follow_from_where_segments_are():
  """From top to bottom, then from left to right, whatever their numbers are."""
  segments = np.zeros((6, 6), np.uint8)
  segments[0:2, 3:5], segments[0:2, 0:2], segments[4:, :], segments[2:4, 2] = 7, 3, 1, 5
  found, rows, more = slots.canonical(segments, 9)
  assert rows.tolist() == [2, 6, 4, 0] and more == 0
  np.testing.assert_array_equal(found == 1, segments == 3)
  np.testing.assert_array_equal(found == 4, segments == 1)
  np.testing.assert_array_equal(found == 0, segments == 0)
  turned = np.array([0, 9, 0, 2, 0, 4, 0, 1], np.uint8)[segments]
  np.testing.assert_array_equal(slots.canonical(turned, 9)[0], found)


def test_slots_are_those_of_plain_centers():
  for seed in range(20):
    rng = np.random.default_rng(seed)
    segments = rng.integers(0, 6, (4, 4)).repeat(3, 0).repeat(3, 1)
    centers = {}
    for number in set(segments.ravel().tolist()) - {0}:
      y, x = np.nonzero(segments == number)
      centers[number] = 12 * y.mean() + x.mean()
    expected = sorted(centers, key=centers.get)
    assert [row + 1 for row in slots.canonical(segments, 9)[1]] == expected


def test_more_segments_than_slots(told):
  """The largest stay, the others are void, and somebody is told."""
  segments = np.repeat(np.repeat(np.arange(1, 5), [1, 4, 2, 3])[None], 10, axis=0)
  found, rows, more = slots.canonical(segments, 3)
  assert rows.tolist() == [1, 3] and more == 2
  np.testing.assert_array_equal(found, np.where(segments == 2, 1, np.where(segments == 4, 2, 0)))

  class Counted(PanopticShapes):
    def segment_counts(self):
      return np.array([1, 3, 7, 4])

  make(Counted("train", 4, size=32), max_segments=4)
  assert told == [
    "2 images have more than 3 segments (most: 7), all that task.args.max_segments=4 has slots for "
    "beside void; the largest are imitated and rewarded, the others are void there. Evaluation "
    "counts all."
  ]
  task = make(max_segments=2)
  features = task.example(SCENES[0], None)
  assert "There are images with more than 1 segments" in told[-1]
  assert set(np.unique(features["segments"])) == {0, 1} and features["labels"][1] >= 0


def test_labels_are_the_truth_of_each_pixel():
  task = make()
  batch = batch_of(task, SCENES[3], SCENES[4])
  labels = task.labels(batch)
  assert {name: value.shape for name, value in labels.items()} == {
    "semantics": (2, 16, 13, 64), "instances": (2, 16, 9, 64),
  }  # fmt: skip
  for row, raw in enumerate((SCENES[3], SCENES[4])):
    semantic = np.argmax(unpatch(labels["semantics"])[row], axis=-1)
    np.testing.assert_array_equal(semantic - 1, raw["labels"][raw["segments"] - 1])
    instance = np.argmax(unpatch(labels["instances"])[row], axis=-1)
    np.testing.assert_array_equal(instance, batch["segments"][row])
  assert all(np.all(value.sum(axis=2) == 1) for value in labels.values())


def test_loss_is_the_cross_entropy_of_each_pixel():
  task = make()
  batch = batch_of(task, SCENES[0], SCENES[1])
  keys = dict(zip(("semantics", "instances"), jax.random.split(jax.random.key(0)), strict=True))
  labels = task.labels(batch)
  logits = {name: jax.random.normal(keys[name], labels[name].shape) for name in labels}
  loss_of = jax.jit(task.code_loss)
  loss, parts = loss_of(logits, batch)
  for name, value in labels.items():
    expected = -np.mean(np.sum(value * jax.nn.log_softmax(logits[name], axis=2), axis=2))
    np.testing.assert_allclose(parts[f"loss_{name}"], expected, rtol=1e-5)
  np.testing.assert_allclose(loss, sum(parts.values()))
  assert float(loss_of(logits_of(task, batch), batch)[0]) < 0.01


def test_true_logits_are_the_true_segments():
  task = make()
  batch = batch_of(task, *(SCENES[i] for i in range(12)))
  logits = logits_of(task, batch)

  @jax.jit
  def read(logits):
    found = slots.segments_of(logits["semantics"], logits["instances"], 0.0)
    return slots.merge_stuff(found, jnp.asarray(task.things))

  found, truth = read(logits), task.truth(batch)
  np.testing.assert_array_equal(found.ids, truth.ids)
  np.testing.assert_array_equal(found.present, truth.present)
  labels = [jnp.where(one.present, one.labels, 0) for one in (found, truth)]
  np.testing.assert_array_equal(*labels)
  reward = jax.jit(jax.vmap(panoptic_quality))(found, truth)["reward"]
  np.testing.assert_allclose(reward, 1)
  metric, state = metric_of(task), []
  for row in range(12):
    one = jax.tree.map(lambda x, row=row: np.asarray(x[row]), found)
    features = {name: np.asarray(value[row]) for name, value in batch.items()}
    state = metric.update(state, view(task).record(one, features, SCENES[row]), SCENES[row])
  assert metric.compute(state)["PQ"] == 1


def plain_segments(semantics, instances, min_fraction):
  """{slot: (class, pixels)} from maps [I, I, C] and [I, I, M], one slot at a time."""
  slot = np.argmax(instances, axis=-1)
  found = {}
  for number in np.unique(slot):
    mask = slot == number
    channel = int(np.argmax(semantics[mask].sum(axis=0)))
    if channel > 0 and mask.mean() > min_fraction:
      found[int(number)] = (channel - 1, mask)
  return found


@pytest.mark.parametrize("min_fraction", [0.0, 0.15])
def test_segments_are_read_from_logits_as_defined(min_fraction):
  rng = np.random.default_rng(0)
  semantics, instances = (rng.normal(size=(5, 2, 16, 16, n)) for n in (4, 6))
  cut = [patches(jnp.asarray(x, jnp.float32), 4) for x in (semantics, instances)]
  found = slots.segments_of(*cut, min_fraction)
  removed = 0
  for place in np.ndindex(5, 2):
    expected = plain_segments(semantics[place], instances[place], min_fraction)
    assert np.flatnonzero(found.present[place]).tolist() == sorted(expected)
    for number, (label, mask) in expected.items():
      assert found.labels[place][number] == label
      np.testing.assert_array_equal(found.ids[place] == number, mask)
    removed += 6 - len(expected)
  assert removed > 0


def test_stuff_of_one_class_is_one_segment():
  ids = jnp.asarray([[[0, 1, 2, 3, 4, 5]]])
  labels = jnp.asarray([[1, 0, 1, 0, 1, 1]])  # class 0 has instances, class 1 has not
  present = jnp.asarray([[False, True, True, True, True, False]])
  found = slots.merge_stuff(slots.Segments(ids, labels, present), jnp.asarray([True, False]))
  assert found.ids.tolist() == [[[0, 1, 2, 3, 2, 5]]]
  assert found.present.tolist() == [[False, True, True, True, False, False]]


@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (20, 31), (32, 32)])
def test_records_are_in_pixels_of_the_original(shape, stretch):
  height, width = shape
  quarter = np.array([[1, 2], [2, 3]], np.uint8)
  segments = quarter.repeat(height // 2 + 1, 0).repeat(width // 2 + 1, 1)[:height, :width]
  raw = {
    "image": np.zeros((height, width, 3), np.uint8),
    "image_id": 5,
    "segments": segments,
    "labels": np.array([2, 7, 4], np.int32),
    "crowd": np.zeros(3, bool),
  }
  task = make(stretch=stretch)
  features = task.example(raw, None)
  truth = jax.tree.map(lambda x: np.asarray(x[0]), task.truth(batch_of(task, raw)))
  record = view(task).record(slots.Segments(*truth[:3]), features, raw)
  assert record["segments"].shape == shape and record["segments"].dtype == np.uint8
  kinds = [np.append(-1, one["labels"])[one["segments"]] for one in (record, raw)]
  assert np.mean(kinds[0] != kinds[1]) < 0.09  # the borders move by less than a pixel
  metric = metric_of(task)
  assert metric.compute(metric.update([], record, raw))["PQ"] > 0.85


def test_record_leaves_out_what_is_absent_or_has_no_pixels():
  task = make()
  ids = np.zeros((32, 32), np.int32)
  ids[:16] = 4
  ids[16:, :16] = 2
  present = np.zeros(9, bool)
  present[[4, 7]] = True
  found = slots.Segments(ids, np.arange(9, dtype=np.int32), present)
  features = task.example(SCENES[0], None)
  record = view(task).record(found, features, {"image_id": 1})
  assert record["labels"].tolist() == [4]
  np.testing.assert_array_equal(record["segments"], ids == 4)


def test_codes_of_labels_become_segments(quick_compiles):
  """Through an untrained code model: shapes, any tokens, each sample for itself."""
  task = make()
  batch = batch_of(task, SCENES[0], SCENES[1])
  frozen = jit_once(task.codes_of().init)(jax.random.key(0))
  actions = jax.jit(task.targets)(frozen, batch, jax.random.key(1))
  assert actions.shape == (2, 4) and (actions >= 1).all() and (actions <= 8).all()
  tokens = jax.random.randint(jax.random.key(2), (2, 3, 4), 0, 9)
  decode = jax.jit(task.decode)
  found = decode(frozen, tokens, batch)
  assert found.ids.shape == (2, 3, 32, 32) and found.labels.shape == (2, 3, 9)
  turned = decode(frozen, tokens[:, ::-1], batch)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:, ::-1]), found, turned)


def test_views_of_training_move_image_and_segments_together():
  task = make(flip=1.0)
  for index in range(5):
    raw = SCENES[index]
    features = task.example(raw, np.random.default_rng(index))
    np.testing.assert_array_equal(features["image"], raw["image"][:, ::-1])
    found = features["labels"][features["segments"]]
    np.testing.assert_array_equal(found, raw["labels"][raw["segments"] - 1][:, ::-1])
  zoomed = make(scale_min=2.0, scale_max=3.0)
  features = zoomed.example(SCENES[0], np.random.default_rng(0))
  assert features["segments"].all() and (features["image"] != SCENES[0]["image"]).any()
  for number in range(1, features["segments"].max() + 1):  # slots of what is left by the crop
    assert (features["segments"] == number).any()


def test_crowd_is_told_apart():
  raw = dict(SCENES[0])
  raw["crowd"] = raw["labels"] == raw["labels"][0]
  task = make()
  truth = task.truth(batch_of(task, raw))
  np.testing.assert_array_equal(
    np.asarray(truth.crowd), np.asarray(truth.present & (truth.labels == raw["labels"][0]))
  )


def test_pictures_and_words():
  task, raw = make(), SCENES[0]
  picture = view(task).draw(raw["image"], view(task).annotated(raw))
  assert picture.dtype == np.uint8 and picture.shape == (384, 384, 3)
  assert view(task).text(view(task).annotated(raw)) == () and task.space().weights == ()
  assert knowledge(task).knows(["corpus"]) == {}


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ({"image_size": 0}, "image_size is 0"),
    ({"max_segments": 1}, "max_segments is 1"),
    ({"min_fraction": 2.0}, "min_fraction is 2"),
    ({"codes": {**SMALL, "dict_sise": 3}}, r"config\.task\.args\.codes\.dict_sise"),
    ({"codes": {**SMALL, "width": 1.5}}, r"config\.task\.args\.codes\.width"),
  ],
)
def test_wrong_settings_are_named(args, message):
  with pytest.raises(UsageError, match=message):
    make(**args)


def test_sources_of_other_tasks_are_refused():
  from rtune.data.scenes.shapes import Shapes

  with pytest.raises(UsageError, match="Shapes has no segments"):
    make(Shapes("train", 3))


def test_real_labels(shared_data):
  task = Panoptic(image_size=64, max_segments=20, codes=SMALL)
  source = view(task).source(str(shared_data / "panoptic/coco/dev/val.json"), "")
  task = bind(task, source)
  metric, state = metric_of(task), []
  for index in range(8):
    raw = source[index]
    truth = jax.tree.map(lambda x: np.asarray(x[0]), task.truth(batch_of(task, raw)))
    record = view(task).record(slots.Segments(*truth[:3]), task.example(raw, None), raw)
    state = metric.update(state, record, raw)
  assert 0.4 < metric.compute(state)["PQ"] < 1  # what is left at 64 pixels
