"""Batches: their order, what each process sees of them, and what happens when reading fails."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import numpy as np
import pytest

from rtune.data import slow
from rtune.data.loader import eval_batches, train_batches
from rtune.errors import DataError, UsageError


class Numbers:
  """Example i is the number i; remembers what was read."""

  def __init__(self, length: int, seconds: float = 0.0):
    self.length, self.seconds, self.read = length, seconds, []

  def __len__(self):
    return self.length

  def __getitem__(self, index: int):
    time.sleep(self.seconds)
    self.read.append(index)
    return {"image": np.full((2, 2, 3), index, np.uint8), "image_id": 100 + index}


def features(raw, rng):
  noise = -1.0 if rng is None else rng.random()
  return {"image": raw["image"], "id": np.int32(raw["image_id"] - 100), "noise": np.float32(noise)}


def take(number: int, source, example=features, *, threads=2, prefetch=2, **settings):
  options = {"batch_size": 4, "seed": 0, "num_threads": threads, "prefetch": prefetch} | settings
  with closing(train_batches(source, example, **options)) as batches:
    return list(itertools.islice(batches, number))


def ids(batches) -> list[int]:
  return np.concatenate([batch["id"] for batch in batches]).tolist()


def assert_same(left, right):
  assert len(left) == len(right)
  for a, b in zip(left, right, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_batches_have_static_shapes_and_types():
  for batch in take(5, Numbers(6)):
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
      "image": ((4, 2, 2, 3), "uint8"),
      "id": ((4,), "int32"),
      "noise": ((4,), "float32"),
    }
    assert (batch["image"][:, 0, 0, 0] == batch["id"]).all()


@pytest.mark.parametrize("length", [1, 3, 4, 10])
def test_every_epoch_has_every_example_once_in_another_order(length):
  stream = ids(take(3 * length, Numbers(length)))  # 12 epochs, which end within batches
  epochs = [stream[i : i + length] for i in range(0, len(stream), length)]
  assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
  if length > 3:
    assert len({tuple(epoch) for epoch in epochs}) > 6


def test_order_and_noise_stay_the_same_over_releases():
  # A run that resumes with newer packages must go on with the same batches. Made by
  # ids(take(5, Numbers(10))) and take(1, Numbers(10))[0]["noise"] with grain 0.2.18, numpy 2.4.6.
  order = [0, 1, 8, 3, 2, 9, 5, 7, 4, 6, 4, 7, 0, 5, 9, 1, 2, 8, 6, 3]
  noise = [0.6369616985321045, 0.8897387981414795, 0.08082403987646103, 0.8949727416038513]
  assert ids(take(5, Numbers(10))) == order
  np.testing.assert_allclose(take(1, Numbers(10))[0]["noise"], noise, rtol=1e-6)


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_together_see_what_one_sees(process_count):
  whole = take(7, Numbers(10))
  parts = [
    take(7, Numbers(10), process_index=index, process_count=process_count)
    for index in range(process_count)
  ]
  joined = [
    {name: np.concatenate([part[name] for part in step]) for name in step[0]}
    for step in zip(*parts, strict=True)
  ]
  assert_same(joined, whole)


@pytest.mark.parametrize("threads, prefetch", [(1, 1), (4, 8), (8, 2), (1, 0)])
def test_threads_do_not_change_batches(threads, prefetch):
  assert_same(take(7, Numbers(10), threads=threads, prefetch=prefetch), take(7, Numbers(10)))


def test_resume_goes_on_where_the_run_was():
  assert_same(take(4, Numbers(10), start_step=3), take(7, Numbers(10))[3:])


def test_resume_far_out_reads_nothing_before():
  source = Numbers(10)
  take(1, source, start_step=10**12)
  assert len(source.read) <= 4 * 4  # one batch taken, two ahead, one begun


def test_seeds_give_orders_and_noise_of_their_own():
  zero, one = take(10, Numbers(10)), take(10, Numbers(10), seed=1)
  assert ids(zero)[:10] != ids(one)[:10]
  assert ids(zero)[10:20] != ids(one)[:10]  # grain itself shuffles epoch e with seed + e
  noise = np.concatenate([batch["noise"] for batch in zero + one])
  assert len(np.unique(noise)) == len(noise)  # also for the same example in another epoch


def test_source_smaller_than_a_batch():
  (batch,) = take(1, Numbers(3), batch_size=8)
  assert np.bincount(batch["id"]).min() >= 2


def fail_at(index: int, error: Exception):
  def example(raw, rng):
    if raw["image_id"] == 100 + index:
      raise error
    return features(raw, rng)

  return example


@pytest.mark.timeout(60)
@pytest.mark.parametrize("prefetch", [0, 3])
def test_data_error_names_the_example(prefetch):
  with pytest.raises(DataError, match=r"example 7 of Numbers \(image_id 107\): truncated"):
    take(9, Numbers(10), fail_at(7, DataError("truncated")), prefetch=prefetch)


@pytest.mark.timeout(60)
def test_other_errors_come_out_as_they_were():
  with pytest.raises(ZeroDivisionError) as caught:
    take(9, Numbers(10), fail_at(7, ZeroDivisionError("in user code")))
  assert "This was example 7 of Numbers (image_id 107)." in caught.value.__notes__
  assert caught.traceback[-1].name == "example"  # the user's own line


@pytest.mark.timeout(60)
def test_source_errors_name_the_index():
  class Broken(Numbers):
    def __getitem__(self, index):
      raise DataError("disk gone")

  with pytest.raises(DataError, match=r"example \d of Broken: disk gone"):
    take(1, Broken(10))


@pytest.mark.timeout(60)
def test_stop_iteration_is_an_error_and_not_the_end():
  with pytest.raises(RuntimeError, match="StopIteration"):
    take(9, Numbers(10), fail_at(7, StopIteration()))
  with pytest.raises(RuntimeError, match="StopIteration"):
    evaluate(Numbers(10), fail_at(7, StopIteration()), batch_size=4)


def test_shapes_that_differ_are_named():
  def ragged(raw, rng):
    return {"boxes": np.zeros((raw["image_id"] % 2, 4))}

  with pytest.raises(ValueError, match=r"Feature 'boxes' .* \[\(0, 4\), \(1, 4\)\]"):
    take(3, Numbers(10), ragged)


@pytest.mark.parametrize(
  "settings, message",
  [
    ({"process_count": 3}, "make it a multiple of 3"),
    ({"batch_size": 0}, "batch size 0"),
    ({"process_index": 2, "process_count": 2}, "no process 2 among 2"),
    ({"seed": -1}, "must not be negative"),
  ],
)
def test_wrong_settings_are_usage_errors_at_once(settings, message):
  options = {"batch_size": 4, "seed": 0, "num_threads": 1, "prefetch": 1} | settings
  with pytest.raises(UsageError, match=message):
    train_batches(Numbers(10), features, **options)


def test_empty_source_is_a_data_error():
  with pytest.raises(DataError, match="holds no examples"):
    take(1, Numbers(0))
  with pytest.raises(DataError, match="holds no examples"):
    evaluate(Numbers(0), batch_size=4)


def reading_threads() -> list[threading.Thread]:
  return [thread for thread in threading.enumerate() if "grain" in thread.name]


def assert_threads_end():
  deadline = time.monotonic() + 10
  while reading_threads() and time.monotonic() < deadline:
    time.sleep(0.01)
  assert not reading_threads()


def test_close_ends_the_threads():
  batches = train_batches(
    Numbers(10, seconds=0.005), features, batch_size=4, seed=0, num_threads=3, prefetch=8
  )
  next(batches)
  assert reading_threads()
  batches.close()
  assert_threads_end()
  assert list(batches) == []


def test_slow_source_does_not_make_a_slower_consumer_wait():
  batches = train_batches(
    Numbers(64, seconds=0.002), features, batch_size=8, seed=0, num_threads=2, prefetch=4
  )
  waits = []
  with closing(batches):
    for _ in range(10):
      start = time.perf_counter()
      next(batches)
      waits.append(time.perf_counter() - start)
      time.sleep(0.05)  # a training step; a batch costs 16 ms
  assert waits[0] > 0.012
  assert np.median(waits[1:]) < 0.008


def evaluate(source, example=features, **settings):
  return list(eval_batches(source, example, **({"num_threads": 2, "prefetch": 2} | settings)))


@pytest.mark.parametrize("process_count", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 5, 6, 7, 13, 18])
def test_eval_sees_every_example_once(length, process_count):
  block = 6 // process_count
  seen = []
  counts = set()
  for index in range(process_count):
    batches = evaluate(
      Numbers(length), batch_size=6, process_index=index, process_count=process_count
    )
    counts.add(len(batches))
    for batch in batches:
      assert {len(value) for value in batch.features.values()} == {block}
      assert batch.mask.shape == batch.indices.shape == (block,)
      np.testing.assert_array_equal(batch.features["id"], batch.indices)
      assert (batch.features["noise"] == -1).all()  # no generator
      assert batch.truths == [{"image_id": 100 + i} for i in batch.indices[batch.mask]]
      seen += batch.indices[batch.mask].tolist()
  assert counts == {-(-length // 6)}
  assert sorted(seen) == list(range(length))


class Sizes(Numbers):
  """Every example has a size of its own."""

  def __getitem__(self, index):
    return {**super().__getitem__(index), "image": np.zeros((index + 1, 2))}


@pytest.mark.parametrize("process_count", [1, 2])
def test_examples_of_different_sizes_come_alone(process_count):
  def example(raw, rng):
    return {"image": raw["image"]}

  seen = []
  for index in range(process_count):
    given = {"batch_size": 4, "process_index": index, "process_count": process_count}
    batches = evaluate(Sizes(3), example, alone=True, **given)
    shapes = [batch.features["image"].shape for batch in batches]
    assert shapes == [(4 // process_count, size, 2) for size in (1, 2, 3)]
    seen += [index for batch in batches for index in batch.indices[batch.mask]]
    assert [len(batch.truths) for batch in batches] == 3 * [1 if index == 0 else 0]
  assert seen == [0, 1, 2]
  with pytest.raises(DataError, match="different sizes are evaluated one by one"):
    evaluate(Sizes(3), example, batch_size=2)


def test_eval_padding_comes_last_and_repeats():
  *_, last = evaluate(Numbers(6), batch_size=4)
  assert last.mask.tolist() == [True, True, False, False]
  assert last.indices.tolist() == [4, 5, 5, 5]
  assert len(last.truths) == 2


def test_eval_reads_padding_once():
  source = Numbers(1)
  evaluate(source, batch_size=64)
  assert source.read == [0]


def test_eval_of_the_first_examples():
  batches = evaluate(Numbers(100), batch_size=4, num_examples=6)
  assert [i for b in batches for i in b.indices[b.mask]] == list(range(6))
  (batch,) = evaluate(Numbers(3), batch_size=4, num_examples=6)
  assert batch.mask.sum() == 3


def test_eval_errors_name_the_example():
  with pytest.raises(DataError, match=r"example 7 of Numbers \(image_id 107\): truncated"):
    evaluate(Numbers(10), fail_at(7, DataError("truncated")), batch_size=4)
  with pytest.raises(UsageError, match="make it a multiple of 3"):
    evaluate(Numbers(10), batch_size=4, process_count=3)


class Hanging:
  """A source whose third example takes its time."""

  def __len__(self):
    return 8

  def __getitem__(self, index):
    if index == 2:
      time.sleep(0.8)
    return {"image": np.zeros((2, 2, 3), np.uint8), "image_id": index}


def test_a_read_that_hangs_is_named(monkeypatch, capsys):
  monkeypatch.setattr(slow, "SLOW_S", 0.2)
  batches = eval_batches(
    Hanging(), lambda raw, rng: {"x": np.float32(0)}, batch_size=2, num_threads=1, prefetch=1
  )
  assert len(list(batches)) == 4
  told = capsys.readouterr().err
  assert "example 2 of Hanging has been read for" in told
  assert "example 2 of Hanging is read after 1 s" in told
  assert told.count("example ") == 2
  assert not [thread for thread in threading.enumerate() if thread.name == "slow-reads"]


class Waiting(Numbers):
  """Every example takes its time; one of them waits until it is told to end."""

  def __init__(self, length, seconds, hangs):
    super().__init__(length, seconds)
    self.hangs, self.end = hangs, threading.Event()

  def __getitem__(self, index):
    if index == self.hangs:
      self.end.wait(5)
    return super().__getitem__(index)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_read_that_hangs_ends_the_run(prefetch):
  source = Waiting(8, 0.0, hangs=5)
  batches = eval_batches(
    source, features, batch_size=2, num_threads=2, prefetch=prefetch, timeout_s=0.5
  )
  begun = time.monotonic()
  with pytest.raises(DataError, match=r"example 5 of Waiting has been read for more than 0\.5 s"):
    list(batches)
  assert 0.5 < time.monotonic() - begun < 5
  assert_threads_end()
  source.end.set()


def test_what_is_slow_ends_nothing():
  """The limit is for one example: a batch of four takes thrice as long."""
  batches = take(3, Waiting(8, 0.15, hangs=None), timeout_s=0.2)
  assert sorted(ids(batches)[:8]) == list(range(8))


def test_a_limit_changes_no_batch():
  assert_same(take(9, Numbers(10)), take(9, Numbers(10), timeout_s=5.0))


SLEEPS = """
import sys, time
import numpy as np
from rtune.data.loader import eval_batches

seconds, limit = map(float, sys.argv[1:])

class Source:
  def __len__(self):
    return 2

  def __getitem__(self, index):
    print("reading", flush=True)
    time.sleep(seconds)
    return {"image_id": index}

options = {"batch_size": 1, "num_threads": 1, "prefetch": 1, "timeout_s": limit}
print(len(list(eval_batches(Source(), lambda raw, rng: {"x": np.float32(0)}, **options))))
"""


def reads(seconds, limit):
  """A process that reads two examples of so many seconds each; it has begun with the first."""
  command = [sys.executable, "-c", SLEEPS, str(seconds), str(limit)]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  assert process.stdout.readline() == "reading\n"
  return process


def test_a_read_that_hangs_does_not_hold_back_the_end_of_the_process():
  with reads(600, 0.5) as process:
    _, errors = process.communicate(timeout=30)
  assert process.returncode == 1 and "example 0 of Source has been read for more" in errors


def test_a_process_that_was_stopped_has_not_waited():
  with reads(1, 2) as process:
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3)
    os.kill(process.pid, signal.SIGCONT)
    out, errors = process.communicate(timeout=60)
  assert out.splitlines()[-1] == "2", errors
