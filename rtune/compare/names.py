"""What the names in a log stand for: validation metrics, losses, rewards, and the rest."""

import difflib
from collections.abc import Collection, Iterable, Sequence

from rtune.display.logs import TIME
from rtune.errors import UsageError
from rtune.report.curves import SECONDS
from rtune.store.run_files import is_score

VAL = "val/"
# Terms of an objective that are not called loss.
_LOSSES = ("nll", "reinforce", "supervised", "kl_term", "entropy_bonus")


def is_metric(name: str) -> bool:
  """Whether it is of an evaluation: val/AR."""
  return is_score(name)


def is_loss(name: str) -> bool:
  """Whether it is the training loss or a term of it."""
  return not is_score(name) and ("loss" in name or name in _LOSSES)


def is_reward(name: str) -> bool:
  """Whether it is the reward of samples in training, or a part of it."""
  return name.startswith("reward/")


def is_clock(name: str) -> bool:
  """Whether it is wall-clock time."""
  return name.startswith((TIME, SECONDS))


def is_training(name: str) -> bool:
  """Whether it is logged in training and is no time: losses, rewards, lr, and so on."""
  return not is_score(name) and name != "step" and not is_clock(name)


def ordered(names: Iterable[str]) -> list[str]:
  """Each name once: validation metrics, then losses, then rewards, then the rest."""
  kinds = (is_metric, is_loss, is_reward)
  place = {n: next((i for i, kind in enumerate(kinds) if kind(n)), 3) for n in names}
  return sorted(place, key=place.__getitem__)


def short(name: str) -> str:
  """Without the prefix of the validation data: AR."""
  return name.removeprefix(VAL)


def chosen(asked: Sequence[str], known: Collection[str]) -> list[str]:
  """The names of logs that a user asks for, with or without "val/".

  Raises:
    UsageError: no run has such a name.
  """
  found = []
  for name in asked:
    full = next((n for n in (name, f"{VAL}{name}") if n in known), "")
    if not full:
      near = difflib.get_close_matches(name, [*known, *map(short, known)], n=1)
      hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(map(short, known))}."
      raise UsageError(f"--metrics {name}: no run has it; {hint}")
    found.append(full)
  return list(dict.fromkeys(found))
