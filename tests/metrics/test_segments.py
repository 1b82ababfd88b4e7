"""Panoptic quality against its definition, one segment and one pixel at a time, and by hand."""

import time

import numpy as np
import pytest

from rtune.errors import DataError, UsageError
from rtune.metrics import segments as metric

CLASSES, IDS, THINGS = ("cat", "dog", "sky"), (17, 3, 200), (True, True, False)


def predicted(image_id, segments, labels):
  return {"image_id": image_id, "segments": np.array(segments), "labels": np.array(labels, int)}


def annotated(image_id, segments, labels, crowd=None):
  crowd = np.zeros(len(labels), bool) if crowd is None else np.array(crowd, bool)
  return {**predicted(image_id, segments, labels), "crowd": crowd}


def collect(pairs):
  scorer = metric.panoptic(CLASSES, IDS, THINGS)
  state = scorer.init()
  for prediction, truth in pairs:
    state = scorer.update(state, prediction, truth)
  return scorer, state


def score(pairs):
  scorer, state = collect(pairs)
  return scorer.compute(state)


def row(*values):
  """A map of one row: (value, pixels) after the other."""
  return np.concatenate([np.full(count, value) for value, count in values])[None]


def random_pairs(seed, num=100, side=9):
  """Maps whose segments overlap by about a half, with void, crowd, and rows without pixels."""
  rng = np.random.default_rng(seed)
  pairs = []
  for image_id in rng.permutation(1000)[:num].tolist():
    there = int(rng.integers(0, 5))
    labels = rng.integers(0, 3, there)
    crowd = rng.random(there) < 0.3
    segments = np.zeros((side, side), int)
    for number in range(there):
      y0, x0 = rng.integers(0, side, 2)
      y1, x1 = rng.integers(2, side, 2)
      segments[y0 : y0 + y1, x0 : x0 + x1] = number + 1
    found, guesses = np.roll(segments, rng.integers(-1, 2), int(rng.integers(2))), labels.copy()
    noise = rng.random(found.shape) < rng.choice([0, 0.1, 0.5])
    found = np.where(noise, rng.integers(0, there + 1, found.shape), found)
    other = rng.random(there) < 0.2
    guesses[other] = rng.integers(0, 3, other.sum())
    pairs.append(
      (predicted(image_id, found, guesses), annotated(image_id, segments, labels, crowd))
    )
  return pairs


def pixels(segments, number):
  return set(zip(*map(list, np.nonzero(np.array(segments) == number)), strict=True))


def plain(pairs):
  """{class: [sum of IoU, matches, unmatched, missed]} by the definition, from sets of pixels."""
  sums = {label: [0.0, 0, 0, 0] for label in range(len(CLASSES))}
  for prediction, truth in pairs:
    void = pixels(truth["segments"], 0)
    found = {p: pixels(prediction["segments"], p + 1) for p in range(len(prediction["labels"]))}
    there = {g: pixels(truth["segments"], g + 1) for g in range(len(truth["labels"]))}
    pairs_found, pairs_there = set(), set()
    for p, own in found.items():
      for g, other in there.items():
        same = prediction["labels"][p] == truth["labels"][g]
        if not own or not other or truth["crowd"][g] or not same:
          continue
        iou = len(own & other) / len((own - void) | other)
        if iou > 0.5:
          sums[truth["labels"][g]][0] += iou
          sums[truth["labels"][g]][1] += 1
          pairs_found.add(p)
          pairs_there.add(g)
    for p, own in found.items():
      label = prediction["labels"][p]
      crowds = [g for g in there if truth["crowd"][g] and truth["labels"][g] == label]
      excused = void.union(*(there[g] for g in crowds))
      if own and p not in pairs_found and len(own & excused) / len(own) <= 0.5:
        sums[label][2] += 1
    for g, other in there.items():
      if other and g not in pairs_there and not truth["crowd"][g]:
        sums[truth["labels"][g]][3] += 1
  return sums


def plain_quality(sums, labels):
  rows = [sums[label] for label in labels if sum(sums[label][1:])]
  if not rows:
    return -1, -1, -1
  totals = [tp + fp / 2 + fn / 2 for _, tp, fp, fn in rows]
  pq = np.mean([row[0] / total for row, total in zip(rows, totals, strict=True)])
  sq = np.mean([row[0] / row[1] if row[1] else 0 for row in rows])
  rq = np.mean([row[1] / total for row, total in zip(rows, totals, strict=True)])
  return pq, sq, rq


@pytest.mark.parametrize("seed", range(5))
def test_is_its_definition(seed):
  pairs = random_pairs(seed)
  scorer, state = collect(pairs)
  result, sums = scorer.compute(state), plain(pairs)
  assert all(min(row[1:]) > 5 for row in sums.values())
  for group, labels in (("", (0, 1, 2)), ("_things", (0, 1)), ("_stuff", (2,))):
    values = [result[name + group] for name in ("PQ", "SQ", "RQ")]
    assert values == pytest.approx(plain_quality(sums, labels))
  for label, name in enumerate(CLASSES):
    assert scorer.details(state)[name] == pytest.approx(plain_quality(sums, (label,))[0])


def test_hand_computed():
  # Ten pixels: a cat of which 4 of 5 are found; a dog taken for a cat; a sky that is half found.
  truth = annotated(1, row((1, 5), (2, 3), (3, 2)), [0, 1, 2])
  found = predicted(1, row((1, 4), (0, 1), (2, 3), (3, 1), (0, 1)), [0, 0, 2])
  result = score([(found, truth)])
  assert result["PQ_things"] == pytest.approx((0.8 / 1.5 + 0) / 2)  # cat, dog
  assert result["SQ_things"] == pytest.approx((0.8 + 0) / 2)
  assert result["RQ_things"] == pytest.approx((1 / 1.5 + 0) / 2)
  assert result["PQ_stuff"] == 0  # an IoU of 0.5 is no match
  assert result["PQ"] == pytest.approx(0.8 / 1.5 / 3)
  assert result["segments"] == 3


def test_void_is_not_in_the_union():
  truth = annotated(1, row((1, 4), (0, 6)), [0])
  over = predicted(1, row((1, 10)), [0])  # 6 of its 10 pixels on void
  assert score([(over, truth)])["PQ"] == 1
  assert score([(over, annotated(1, row((1, 4), (2, 6)), [0, 1]))])["PQ"] == 0


def test_mostly_void_is_no_false_positive():
  for on_void, unmatched in ((6, 0), (5, 1)):  # more than half, exactly half
    truth = annotated(1, row((1, 10 - on_void), (0, on_void), (2, 90)), [0, 2])
    found = predicted(1, row((1, 10), (2, 90)), [1, 2])
    _, (record,) = collect([(found, truth)])
    assert len(record.unmatched) == unmatched and record.missed.tolist() == [0]


def test_crowd_need_not_be_found_and_excuses_its_own_class():
  truth = annotated(1, row((1, 8), (2, 8)), [0, 1], [True, False])
  _, (record,) = collect([(predicted(1, row((0, 8), (1, 8)), [1]), truth)])
  assert record.iou.tolist() == [1] and not record.missed.size and not record.unmatched.size
  found = predicted(1, row((1, 3), (2, 5), (3, 8)), [0, 1, 1])
  _, (record,) = collect([(found, truth)])
  assert record.unmatched.tolist() == [1]  # the dog on a crowd of cats
  both = annotated(1, row((1, 3), (2, 5), (0, 8)), [0, 0], [True, True])
  _, (record,) = collect([(predicted(1, row((1, 16)), [0]), both)])
  assert not record.matched.size and not record.unmatched.size  # void and crowds together


def test_nothing_predicted_and_nothing_there():
  nothing, there = predicted(1, row((0, 8)), []), annotated(1, row((1, 8)), [0])
  result = score([(nothing, there)])
  assert result["PQ"] == result["PQ_things"] == 0 and result["PQ_stuff"] == -1
  assert result["segments"] == 0
  # Where all is void, nothing can be wrong.
  guess = predicted(1, row((1, 8)), [0])
  empty = annotated(1, row((0, 8)), [])
  assert score([(guess, empty)]) | {"segments": 0.0} == score([(nothing, empty)])
  assert score([])["PQ"] == -1 and score([])["segments"] == 0
  scorer, state = collect([(nothing, there)])
  assert scorer.details(state) == {"cat": 0, "dog": -1, "sky": -1}


def test_rows_without_pixels_are_no_segments():
  pairs = random_pairs(3)
  padded = [
    ({**p, "labels": np.append(p["labels"], 1)},
     {**t, "labels": np.append(t["labels"], 0), "crowd": np.append(t["crowd"], False)})
    for p, t in pairs
  ]  # fmt: skip
  assert score(padded) == score(pairs)


def test_numbers_of_segments_do_not_matter():
  pairs = random_pairs(4)
  turned = []
  for prediction, truth in pairs:
    order = np.random.default_rng(0).permutation(len(prediction["labels"]))
    number = np.zeros(len(order) + 1, int)
    number[1:][order] = np.arange(len(order)) + 1
    turned.append(
      ({**prediction, "segments": number[prediction["segments"]],
        "labels": prediction["labels"][order]}, truth)
    )  # fmt: skip
  assert score(turned) == pytest.approx(score(pairs))


def test_order_of_images_changes_nothing_and_states_may_be_joined():
  pairs = random_pairs(5)
  assert score(pairs[::-1]) == pytest.approx(score(pairs))
  scorer, state = collect(pairs)
  assert scorer.compute(collect(pairs[:9])[1] + collect(pairs[9:])[1]) == scorer.compute(state)


def test_many_segments():
  """More pairs of numbers than two bytes can hold."""
  segments = np.arange(400).reshape(20, 20) + 1
  found = predicted(1, segments, [2] * 400)
  assert score([(found, annotated(1, segments, [2] * 400))])["PQ"] == 1
  assert score([(found, annotated(1, segments[::-1], [1] * 400))])["PQ"] == 0


def test_results_are_those_of_coco():
  found = predicted(7, [[0, 1, 300], [300, 300, 300]], [0] + [1] * 298 + [2])
  scorer, state = collect([(found, annotated(7, np.zeros((2, 3), int), []))])
  assert scorer.results(state) == {
    "annotations": [
      {
        "image_id": 7,
        "file_name": "000000000007.png",
        "segments_info": [
          {"id": 1, "category_id": 17, "area": 1},
          {"id": 300, "category_id": 200, "area": 4},
        ],
      }
    ]
  }
  ((name, picture),) = scorer.files(found).items()
  assert name == "000000000007.png" and picture.dtype == np.uint8
  np.testing.assert_array_equal(picture @ [1, 256, 65536], found["segments"])


def test_what_cannot_be_scored_is_refused():
  good, truth = predicted(1, row((1, 4)), [0]), annotated(1, row((1, 4)), [0])
  for prediction, message in (
    (predicted(2, row((1, 4)), [0]), "of image 2"),
    (predicted(1, row((1, 5)), [0]), r"\(1, 5\) pixels"),
    (predicted(1, row((2, 4)), [0]), "the prediction has the value 2, but there are 1"),
    (predicted(1, row((-1, 4)), [0]), "value -1"),
    (predicted(1, row((1, 4)), [3]), "class 3"),
    (predicted(1, row((1, 4)), [-1]), "class -1"),
  ):
    with pytest.raises(DataError, match=message):
      score([(prediction, truth)])
  with pytest.raises(DataError, match="the truth has the value 9"):
    score([(good, annotated(1, row((9, 4)), [0]))])
  with pytest.raises(DataError, match="more than once, such as 1"):
    score([(good, truth), (good, truth)])
  with pytest.raises(UsageError, match="2 different category ids"):
    metric.panoptic(CLASSES, (1, 2, 2), THINGS)


def test_a_photograph_takes_no_more_than_a_millisecond():
  rng = np.random.default_rng(0)
  blocks = rng.integers(0, 20, (2, 15, 20)).repeat(32, 1).repeat(32, 2).astype(np.uint8)
  found = predicted(1, blocks[0], rng.integers(0, 3, 19))
  truth = annotated(1, blocks[1], rng.integers(0, 3, 19))
  scorer, seconds = metric.panoptic(CLASSES, IDS, THINGS), []
  for _ in range(40):
    start = time.thread_time()  # of this thread: others may use the machine, too
    scorer.update([], found, truth)
    seconds.append(time.thread_time() - start)
  print(f"{1e3 * min(seconds):.2f} ms an image of 640 x 480")
  assert min(seconds) < 1e-3
