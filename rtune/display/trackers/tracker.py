"""What every number and every picture of a run is passed on to."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

# rtune's name in the log -> the name that trl gives to the same number. `kl` is called so by both.
ALIASES = {
  "reward/mean": "reward",
  "reward/std_within": "reward_std",
  "reward/alike": "frac_reward_zero_std",
}


@runtime_checkable
class Follower(Protocol):
  """Gets what a run logs, in the order of the log. A step may come in several parts."""

  def numbers(self, step: int, values: Mapping[str, float]) -> None:
    """Values of one step by name; they may be NaN or infinite."""
    ...

  def picture(self, step: int, name: str, path: pathlib.Path) -> None:
    """A PNG in the workdir that belongs to a step."""
    ...

  def close(self) -> None:
    """Nothing follows."""
    ...


@runtime_checkable
class Tracker(Follower, Protocol):
  """A follower that keeps runs elsewhere, where they have names of their own.

  Attributes:
    id: by which the same run is found again when ours is resumed.
  """

  id: str


class Session(NamedTuple):
  """What a tracker is told of a run before all.

  Attributes:
    name: of the run, for people.
    folder: the workdir, in which a tracker may keep files of its own.
    config: all settings, nested.
    id: of the tracker's run that shall be continued; "": it begins one.
  """

  name: str
  folder: pathlib.Path
  config: Mapping[str, Any]
  id: str


Open = Callable[[Session], Tracker]


def with_aliases(values: Mapping[str, float]) -> dict[str, float]:
  """The values, and some of them once more under trl's names."""
  return {**values, **{ALIASES[name]: values[name] for name in ALIASES if name in values}}
