"""Values at the end of each phase, over seeds, and how far they are from a reference."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rtune.compare import names, series
from rtune.compare.curves import lines_of
from rtune.compare.groups import Group
from rtune.compare.runs import Run, is_coded, label
from rtune.display import console

_CONTROL = "control"


class Spread(NamedTuple):
  """A mean with the standard deviation (divided by count - 1); None of a single value."""

  mean: float
  deviation: float | None
  count: int

  def text(self, sign: str = "") -> str:
    """0.436 ± 0.022, or with "+" as `sign` +0.143 ± 0.003."""
    plus = sign if self.mean >= 0 else ""
    shown = f"{plus}{console.number(self.mean)}"
    return shown if self.deviation is None else f"{shown} ± {console.number(self.deviation)}"


class Difference(NamedTuple):
  """Of a row from its reference.

  Attributes:
    paired: the runs of each seed were subtracted from each other; else the means were, and the
      deviation is None.
  """

  spread: Spread
  paired: bool

  def text(self) -> str:
    return self.spread.text("+") + ("" if self.paired else " *")


class Row(NamedTuple):
  """A phase of a group.

  Attributes:
    runs: how many have come so far.
    against: the row that it is compared with, as text; "" for none.
    values: by metric; metrics that no run has are not there.
    slopes: of the regression line through the phase, a 1,000 steps.
  """

  group: str
  phase: str
  runs: int
  against: str
  values: Mapping[str, Spread]
  differences: Mapping[str, Difference]
  slopes: Mapping[str, float]


def spread(values: Sequence[float]) -> Spread:
  """The mean and deviation of at least one value."""
  mean = float(np.mean(values))
  if len(values) < 2:
    return Spread(mean, None, len(values))
  deviation = float(np.std(values, ddof=1))
  # Of equal values it is zero, not what is left of rounding.
  return Spread(mean, deviation if deviation > 1e-14 * abs(mean) else 0.0, len(values))


def columns(groups: Sequence[Group], asked: Sequence[str] = ()) -> list[str]:
  """The metrics of the table: those asked for, else what matters for the task, else all."""
  if asked:
    return list(asked)
  runs = [run for group in groups for run in group.runs]
  there = dict.fromkeys(n for run in runs for values in run.final.values() for n in values)
  headline = dict.fromkeys(names.VAL + n for run in runs for n in (*run.headline, "reward"))
  return [n for n in headline if n in there] or list(there)


def table(groups: Sequence[Group], metrics: Sequence[str]) -> list[Row]:
  """A row for each group and phase that has one of the metrics, phases in order."""
  keys = [(g, phase) for g in groups for phase in _phases(g) if _any(g, phase, metrics)]
  phases = [phase for _, phase in keys]
  rows = []
  for group, phase in keys:
    reference = _reference(group, phase, keys)
    row = _row(group, phase, metrics, reference)
    if reference is not None:
      other, other_phase = reference
      alone = other is group or phases.count(other_phase) == 1
      name = label(other_phase) if alone else f"{label(other_phase)} of {other.name}"
      row = row._replace(against=name)
    rows.append(row)
  return rows


def _phases(group: Group) -> list[str]:
  found = [b.name for run in group.runs for b in run.branches]
  return list(dict.fromkeys([phase for run in group.runs for phase in run.final] + found))


def _any(group: Group, phase: str, metrics: Sequence[str]) -> bool:
  return any(value(run, phase, m) is not None for run in group.runs for m in metrics)


def value(run: Run, phase: str, metric: str) -> float | None:
  """A run's value at the end of a phase: of its results, else the last that was logged."""
  if metric in run.final.get(phase, {}):
    return run.final[phase][metric]
  rows = [row for b in run.branches if b.name == phase for row in b.rows]
  logged = [] if names.is_metric(metric) else [row[metric] for row in rows if metric in row]
  return float(logged[-1]) if logged and np.isfinite(logged[-1]) else None


def _reference(
  group: Group, phase: str, keys: Sequence[tuple[Group, str]]
) -> tuple[Group, str] | None:
  """What a row is compared with; None for a reference itself.

  Its own control, else another's control, else the same phase of the first group, or its last one.
  A single group without a control is compared with its first phase, a code model with the first.
  """
  first, alone = keys[0][0], all(key[0] is keys[0][0] for key in keys)
  same = [key for key in keys if key[1] == phase]
  peers = [key for key in keys if not is_coded(key[1])]
  controls = [key for key in peers if key[1] == _CONTROL]
  own = [key for key in controls if key[0] is group]
  leading = [key for key in peers if key[0] is first]
  if is_coded(phase):
    found = same
  elif alone:
    found = controls or leading
  else:
    found = own or controls or [k for k in same if k[0] is first] or leading[-1:]
  is_itself = not found or (found[0][0] is group and found[0][1] == phase)
  return None if is_itself else found[0]


def _row(
  group: Group, phase: str, metrics: Sequence[str], reference: tuple[Group, str] | None
) -> Row:
  values = {m: [v for run in group.runs if (v := value(run, phase, m)) is not None]
            for m in metrics}  # fmt: skip
  differences = {}
  if reference is not None:
    other, other_phase = reference
    found = {m: _difference(group, phase, other, other_phase, m) for m in metrics}
    differences = {m: d for m, d in found.items() if d is not None}
  slopes = {}
  for metric in metrics:
    lines = lines_of(group, phase, metric)
    straight = series.regression(lines) if lines else None
    if straight is not None:
      slopes[metric] = 1000 * straight.slope
  count = max(len(found) for found in values.values())
  spreads = {m: spread(found) for m, found in values.items() if found}
  return Row(group.name, label(phase), count, "", spreads, differences, slopes)


def _difference(
  group: Group, phase: str, other: Group, other_phase: str, metric: str
) -> Difference | None:
  ours, theirs = _by_seed(group, phase, metric), _by_seed(other, other_phase, metric)
  both = [seed for seed in ours if seed in theirs and seed is not None]
  if both:
    pairs = [float(np.mean(ours[seed]) - np.mean(theirs[seed])) for seed in both]
    return Difference(spread(pairs), True)
  if not ours or not theirs:
    return None
  means = [np.mean([v for found in side.values() for v in found]) for side in (ours, theirs)]
  return Difference(Spread(float(means[0] - means[1]), None, 0), False)


def _by_seed(group: Group, phase: str, metric: str) -> dict[int | None, list[float]]:
  found: dict[int | None, list[float]] = {}
  for run in group.runs:
    one = value(run, phase, metric)
    if one is not None:
      found.setdefault(run.seed, []).append(one)
  return found
