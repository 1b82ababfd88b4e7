"""Kept examples are those of the source, read once each while they fit, and cannot be changed."""

import threading

import numpy as np
import pytest

from rtune.data import loader
from rtune.data.cached import Cached
from rtune.errors import DataError


class Counted:
  """Examples of 1,000 bytes that tell how often each was read."""

  classes = ("cell",)

  def __init__(self, length: int = 5):
    self.reads = [0] * length

  def __len__(self) -> int:
    return len(self.reads)

  def __getitem__(self, index: int):
    if index == 3:
      raise DataError("third.jpg is broken")
    self.reads[index] += 1
    return {"image": np.full((10, 100), index, np.uint8), "image_id": index}


def test_each_is_read_once():
  source = Counted()
  cached = Cached(source, megabytes=1)
  for _ in range(3):
    for index in (0, 1, 2, 4):
      assert (cached[index]["image"] == index).all()
      assert cached[index]["image_id"] == index
  assert source.reads == [1, 1, 1, 0, 1]
  assert len(cached) == 5
  assert cached.classes == ("cell",)


def test_what_does_not_fit_is_read_again():
  source = Counted()
  cached = Cached(source, megabytes=0.0025)  # two of 1,000 bytes
  for _ in range(3):
    for index in (0, 1, 2):
      assert (cached[index]["image"] == index).all()
  assert source.reads[:3] == [1, 1, 3]


def test_a_reader_cannot_change_what_the_next_one_gets():
  cached = Cached(Counted(), megabytes=1)
  first = cached[0]
  first["image_id"] = 99
  with pytest.raises(ValueError, match="read-only"):
    first["image"][0, 0] = 7
  with pytest.raises(ValueError, match="read-only"):
    cached[0]["image"][0, 0] = 7
  assert cached[0]["image_id"] == 0


def test_threads_do_not_overfill_it():
  source = Counted(200)
  source.reads[3] = 0
  cached = Cached(source, megabytes=0.05)

  def read():
    for index in (i for i in range(200) if i != 3):
      assert cached[index]["image_id"] == index

  threads = [threading.Thread(target=read) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  before = sum(source.reads)
  for index in (i for i in range(200) if i != 3):
    cached[index]
  assert sum(source.reads) - before == 199 - 50


def test_errors_and_batches_are_those_of_the_source():
  def example(raw, rng):
    return {"image": raw["image"], "noise": rng.random(2) if rng else np.zeros(2)}

  source, cached = Counted(3), Cached(Counted(3), megabytes=1)
  options = {"batch_size": 2, "seed": 0, "num_threads": 2, "prefetch": 2}
  plain = loader.train_batches(source, example, **options)
  kept = loader.train_batches(cached, example, **options)
  for _ in range(6):
    ours, theirs = next(kept), next(plain)
    for name in theirs:
      np.testing.assert_array_equal(ours[name], theirs[name])
  plain.close()
  kept.close()
  batches = loader.eval_batches(
    Cached(Counted(), 1), example, batch_size=5, num_threads=1, prefetch=0
  )
  with pytest.raises(DataError, match=r"example 3 of Counted: third\.jpg is broken"):
    next(batches)
