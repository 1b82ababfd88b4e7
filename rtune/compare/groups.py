"""Runs that differ only in their seed are one group; its name is what sets it apart."""

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from rtune.compare.origins import is_phase
from rtune.compare.runs import Run
from rtune.errors import UsageError

_NONE = "none"
_LONGEST = 24  # characters of a value in a name
_MOST = 3  # settings in a name, where fewer tell the groups apart


class Group(NamedTuple):
  """One line of the charts: runs of the same settings."""

  name: str
  runs: tuple[Run, ...]


def make_groups(runs: Sequence[Run], given: Sequence[str] = ()) -> list[Group]:
  """The groups in order of their first run.

  Args:
    given: their names, from the user; (): what each differs in from the others.

  Raises:
    UsageError: not as many names as groups, or one twice.
  """
  sets: dict[str, list[Run]] = {}
  for run in runs:
    # A run whose settings nobody knows is alike to itself only.
    same = json.dumps([run.task, run.settings], sort_keys=True, default=str)
    sets.setdefault(same if run.settings else run.path, []).append(run)
  members = [tuple(found) for found in sets.values()]
  names = [_differing(found, members) or _of_folders(found) for found in members]
  if given:
    if len(given) != len(members):
      said = "; ".join(
        f"{name} ({', '.join(run.name for run in found)})"
        for name, found in zip(names, members, strict=True)
      )
      raise UsageError(
        f"--names gives {len(given)} names, but the runs are {len(members)} groups: {said}."
      )
    names = list(given)
    if len(set(names)) < len(names):
      raise UsageError("--names gives one name twice; each group needs its own.")
  return [Group(*pair) for pair in zip(_distinct(names, members), members, strict=True)]


def differences(groups: Sequence[Sequence[Run]]) -> list[str]:
  """The settings that are not the same in the first runs of all groups.

  Those of a phase are compared where the phase is run.
  """
  firsts = [group[0].settings for group in groups]
  found = []
  for key in dict.fromkeys(key for settings in firsts for key in settings):
    of_phase = is_phase(key.split(".")[0])
    values = {_text(s.get(key)) for s in firsts if key in s or not of_phase}
    found += [key] if len(values) > 1 else []
  return found


def shown(run: Run, key: str) -> str:
  """A setting as a person writes it: the name of a function, not its module."""
  if key in run.shown:
    return run.shown[key]
  value = run.settings.get(key)
  if value in (None, ""):
    return _NONE
  if isinstance(value, (tuple, list)):
    return "+".join(map(str, value)) or _NONE
  if isinstance(value, float):
    return f"{value:g}"
  return str(value).rpartition(":")[2] if key.endswith("fn") else str(value)


def seed_note(groups: Sequence[Group]) -> str:
  """One line that says which groups lack seeds that others have, or have one twice; "" if none."""
  seeds = {group.name: [run.seed for run in group.runs] for group in groups}
  every = sorted({seed for found in seeds.values() for seed in found if seed is not None})
  said = []
  for name, found in seeds.items():
    missing = [seed for seed in every if seed not in found]
    if missing and None not in found:
      said.append(f"{name} has no seed {_listed(missing)}")
    twice = sorted({seed for seed in found if seed is not None and found.count(seed) > 1})
    if twice:
      said.append(f"{name} has seed {_listed(twice)} more than once, and each run counts")
  if not said:
    return ""
  return f"Seeds: {'; '.join(said)}. Differences are of the seeds that both have."


def _listed(seeds: Sequence[int]) -> str:
  return ", ".join(map(str, seeds))


def _differing(own: Sequence[Run], groups: Sequence[Sequence[Run]]) -> str:
  """What a group differs in from the others of its kind; "" where there are none."""
  peers = [group for group in groups if group[0].task == own[0].task and group[0].settings]
  if len(peers) < 2 or own not in peers:
    return ""
  keys = differences(peers)
  told = keys if len(keys) <= _MOST else _enough(keys, peers)
  more = f" (+{len(keys) - len(told)})" if len(told) < len(keys) else ""
  short = _short_keys(told)
  said = {short[key]: _cut(shown(own[0], key)) for key in told}
  said = {key: value for key, value in said.items() if value != _NONE} or said
  return ", ".join(f"{key}={value}" for key, value in said.items()) + more


def _enough(keys: Sequence[str], groups: Sequence[Sequence[Run]]) -> list[str]:
  """A few keys that tell all groups apart: at each turn the one that splits them most."""
  told: list[str] = []

  def parts(more: Sequence[str]) -> int:
    return len({tuple(_text(g[0].settings.get(k)) for k in more) for g in groups})

  while parts(told) < len(groups):
    told.append(max(keys, key=lambda key: parts([*told, key])))
  return sorted(told, key=keys.index)


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
  """The ends of dotted names, as long as they must be to differ; `.fn` goes without saying."""
  parts = {key: key.removesuffix(".fn").split(".") for key in keys}
  short = {}
  for key, words in parts.items():
    for count in range(1, len(words) + 1):
      short[key] = ".".join(words[-count:])
      others = [".".join(w[-count:]) for k, w in parts.items() if k != key]
      if short[key] not in others:
        break
  return short


def _of_folders(runs: Sequence[Run]) -> str:
  """What the names of the folders begin with, without the number of the seed."""
  if len(runs) == 1:
    return runs[0].name
  same = itertools.takewhile(
    lambda signs: len(set(signs)) == 1, zip(*[r.name for r in runs], strict=False)
  )
  common = "".join(signs[0] for signs in same)
  return re.sub(r"[-_.]?(seed)?[-_.]?\d*$", "", common) or runs[0].name


def _distinct(names: Sequence[str], members: Sequence[Sequence[Run]]) -> list[str]:
  """The names, with the path of the first run behind those that are not alone."""
  pairs = zip(names, members, strict=True)
  return [f"{n} ({runs[0].path})" if names.count(n) > 1 else n for n, runs in pairs]


def _text(value: Any) -> str:
  return json.dumps(value, sort_keys=True, default=str)


def _cut(text: str) -> str:
  return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
