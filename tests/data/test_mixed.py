"""Shares of mixed sources, and that nothing is lost."""

import collections

import pytest

from rtune.data.mixed import Chosen, Mixed


class Named:
  def __init__(self, name, num):
    self.name, self.num = name, num

  def __len__(self):
    return self.num

  def __getitem__(self, index):
    if not 0 <= index < self.num:
      raise IndexError(index)
    return {"image_id": (self.name, index)}


@pytest.mark.parametrize(
  ("first", "second", "share"), [(10, 3, 0.5), (3, 10, 0.5), (7, 20, 0.25), (20, 2, 0.7)]
)
def test_shares_are_those_asked_for_and_every_example_comes(first, second, share):
  mixed = Mixed(Named("a", first), Named("b", second), share)
  seen = collections.Counter(mixed[index]["image_id"] for index in range(len(mixed)))
  assert {name for name, _ in seen} == {"a", "b"}
  assert len(seen) == first + second
  of_first = sum(count for (name, _), count in seen.items() if name == "a")
  assert of_first == pytest.approx(share * len(mixed), abs=1)
  for name in ("a", "b"):
    counts = [count for (own, _), count in seen.items() if own == name]
    assert max(counts) - min(counts) <= 1


def test_chosen_examples_in_their_order():
  chosen = Chosen(Named("a", 9), [4, 0, 7])
  assert [chosen[place]["image_id"][1] for place in range(len(chosen))] == [4, 0, 7]
