"""Rewards of segments against their definition from sets of pixels, and cases by hand."""

import functools
import time

import jax
import numpy as np
import pytest

from rtune.metrics.segments import panoptic
from rtune.predictions.segments import AnnotatedSegments, Segments
from rtune.rewards import segments as reward

PREDICTED, ANNOTATED, CLASSES = 6, 5, 2


def segments(ids, labels, present=None, crowd=None):
  labels = np.array(labels, np.int32)
  present = np.ones(len(labels), bool) if present is None else np.array(present, bool)
  crowd = np.zeros(len(labels), bool) if crowd is None else np.array(crowd, bool)
  ids = np.array(ids, np.int32)
  return Segments(ids, labels, present), AnnotatedSegments(ids, labels, present, crowd)


def row(*values):
  """A map of one row: (slot, pixels) after the other."""
  return np.concatenate([np.full(count, value) for value, count in values])[None]


def random_pairs(seed, num=120, side=8):
  """Overlaps of about a half, absent slots with and without pixels, crowd, other classes."""
  rng = np.random.default_rng(seed)
  predictions, truths = [], []
  for _ in range(num):
    ids = np.zeros((side, side), int)
    for slot in range(1, int(rng.integers(1, ANNOTATED + 1))):
      y0, x0 = rng.integers(0, side, 2)
      y1, x1 = rng.integers(2, side, 2)
      ids[y0 : y0 + y1, x0 : x0 + x1] = slot
    labels = rng.integers(0, CLASSES, ANNOTATED)
    present = rng.random(ANNOTATED) < 0.85
    present[0] = rng.random() < 0.1
    crowd = rng.random(ANNOTATED) < 0.2
    found = np.roll(ids, rng.integers(-1, 2), int(rng.integers(2)))
    noise = rng.random(ids.shape) < rng.choice([0, 0.1, 0.5])
    found = np.where(noise, rng.integers(0, PREDICTED, ids.shape), found)
    same = rng.random(PREDICTED) < 0.85
    guesses = np.where(same, np.append(labels, 0), rng.integers(0, CLASSES, PREDICTED))
    predictions.append(segments(found, guesses, rng.random(PREDICTED) < 0.85)[0])
    truths.append(segments(ids, labels, present, crowd)[1])
  return predictions, truths


def pixels(ids, slot):
  return set(zip(*map(list, np.nonzero(ids == slot)), strict=True))


def plain(prediction, truth):
  """(sum of IoU, matched, unmatched, missed), one segment at a time."""
  there = {g: pixels(truth.ids, g) for g in np.flatnonzero(truth.present)}
  found = {p: pixels(prediction.ids, p) for p in np.flatnonzero(prediction.present)}
  there, found = ({k: v for k, v in part.items() if v} for part in (there, found))
  void = set(np.ndindex(*truth.ids.shape)).difference(*there.values())
  total, matched_p, matched_g = 0.0, set(), set()
  for p, own in found.items():
    for g, other in there.items():
      iou = len(own & other) / len((own - void) | other)
      if prediction.labels[p] == truth.labels[g] and not truth.crowd[g] and iou > 0.5:
        total += iou
        matched_p.add(p)
        matched_g.add(g)
  unmatched = 0
  for p in set(found) - matched_p:
    crowds = [there[g] for g in there if truth.crowd[g] and truth.labels[g] == prediction.labels[p]]
    unmatched += len(found[p] & void.union(*crowds)) / len(found[p]) <= 0.5
  missed = sum(not truth.crowd[g] for g in set(there) - matched_g)
  return total, len(matched_p), unmatched, missed


def stack(rows):
  return jax.tree.map(lambda *parts: np.stack(parts), *rows)


@functools.cache
def compiled(function):
  return jax.jit(jax.vmap(function))


def one(function, prediction, truth):
  return {name: value[0] for name, value in batched(function, [prediction], [truth]).items()}


def batched(function, predictions, truths):
  out = compiled(function)(stack(predictions), stack(truths))
  return {name: np.asarray(value) for name, value in out.items()}


@pytest.mark.parametrize("seed", range(3))
def test_rewards_are_their_definition(seed):
  predictions, truths = random_pairs(seed)
  expected = np.array([plain(p, t) for p, t in zip(predictions, truths, strict=True)])
  assert (expected.sum(axis=0)[1:] > 30).all()
  iou, matched, unmatched, missed = expected.T
  sums = batched(lambda p, t: reward.matched_iou(p, t, unmatched=0.4), predictions, truths)
  for name, value in zip(("iou", "matched", "unmatched", "missed"), expected.T, strict=True):
    np.testing.assert_allclose(sums[name], value, rtol=1e-6, err_msg=name)
  np.testing.assert_allclose(sums["reward"], iou - 0.4 * unmatched, rtol=1e-5, atol=1e-6)
  total = matched + unmatched / 2 + missed / 2
  quality = np.where(total > 0, iou / np.maximum(total, 0.5), 1)
  found = batched(reward.panoptic_quality, predictions, truths)
  np.testing.assert_allclose(found["reward"], quality, rtol=1e-6)


def test_one_class_and_one_image_make_the_metric():
  """What is rewarded is what is reported."""
  predictions, truths = random_pairs(9, num=30)
  metric = panoptic(("a",), (1,), (True,))

  def example(one):
    number = np.where(one.present, np.arange(len(one.labels)) + 1, 0)
    return {"image_id": 1, "segments": number[one.ids], "labels": 0 * one.labels}

  predictions, truths = (
    [p._replace(labels=0 * p.labels) for p in x] for x in (predictions, truths)
  )
  rewards = batched(reward.panoptic_quality, predictions, truths)["reward"]
  for value, prediction, truth in zip(rewards, predictions, truths, strict=True):
    state = metric.update([], example(prediction), example(truth) | {"crowd": truth.crowd})
    reported = metric.compute(state)["PQ"]
    assert value == pytest.approx(1 if reported == -1 else reported)


def test_hand_computed():
  # Slot 0 is void. A cat of which 4 of 5 pixels are found, a dog taken for a cat, a false dog.
  truth = segments(row((1, 5), (2, 3), (0, 2)), [0, 0, 1], [False, True, True])[1]
  found = segments(row((1, 4), (3, 1), (2, 3), (0, 2)), [0, 0, 0, 1], [False, True, True, True])[0]
  parts = one(reward.matched_iou, found, truth)
  assert {name: float(value) for name, value in parts.items()} == pytest.approx(
    {"reward": 0.8 - 0.6, "iou": 0.8, "matched": 1, "unmatched": 2, "missed": 1}
  )
  parts = one(reward.panoptic_quality, found, truth)
  assert float(parts["reward"]) == pytest.approx(0.8 / (1 + 1 + 0.5))


def test_nothing_there():
  empty = segments(row((0, 8)), [0, 0], [False, False])
  guess = segments(row((1, 8)), [0, 0], [False, True])
  assert float(one(reward.panoptic_quality, empty[0], empty[1])["reward"]) == 1
  assert float(one(reward.matched_iou, empty[0], empty[1])["reward"]) == 0
  # On an image that nobody has annotated no guess is wrong.
  assert float(one(reward.panoptic_quality, guess[0], empty[1])["reward"]) == 1
  assert float(one(reward.panoptic_quality, empty[0], guess[1])["reward"]) == 0


def test_half_is_no_match():
  truth = segments(row((1, 4), (0, 4)), [0, 0], [False, True])[1]
  found = segments(row((1, 2), (0, 6)), [0, 0], [False, True])[0]
  assert float(one(reward.matched_iou, found, truth)["matched"]) == 0


def test_more_slots_change_nothing():
  predictions, truths = random_pairs(5, num=40)
  wide = [Segments(p.ids, np.pad(p.labels, (0, 9)), np.pad(p.present, (0, 9), constant_values=True))
          for p in predictions]  # fmt: skip
  narrow = batched(reward.matched_iou, predictions, truths)
  np.testing.assert_array_equal(
    batched(reward.matched_iou, wide, truths)["reward"], narrow["reward"]
  )


def test_ninety_six_samples_take_milliseconds():
  predictions, truths = random_pairs(6, num=96, side=48)
  predictions, truths = stack(predictions), stack(truths)
  score = jax.jit(jax.vmap(reward.matched_iou))
  jax.block_until_ready(score(predictions, truths))
  seconds = []
  for _ in range(5):
    start = time.perf_counter()
    jax.block_until_ready(score(predictions, truths))
    seconds.append(time.perf_counter() - start)
  print(f"{1e3 * min(seconds):.2f} ms for 96 samples of 48 x 48")
  assert min(seconds) < 0.1
