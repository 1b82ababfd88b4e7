"""What is drawn of a metric: single runs, the mean of each group, lines through them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rtune.compare import names, series
from rtune.compare.groups import Group
from rtune.compare.runs import Run, branches_off, is_coded, logged
from rtune.compare.series import Mean, Series, Straight
from rtune.errors import UsageError
from rtune.report.charts import NUM_STYLES


class Anchor(NamedTuple):
  """An end of a trend: a step (-inf and inf: the first and the last there is), maybe its value."""

  step: float
  value: float | None


class Drawing(NamedTuple):
  """How curves are drawn.

  Attributes:
    smoothing: weight of the exponential moving average, 0 to 1.
    rolling: points of the centered rolling mean; 0: none.
    regression: whether to draw the regression line of each phase.
    trend: the two ends of a straight line; (): none.
  """

  smoothing: float = 0.0
  rolling: int = 0
  regression: bool = False
  trend: tuple[Anchor, ...] = ()


class Curve(NamedTuple):
  """One phase of one group.

  Attributes:
    style: number of its color.
    beside: "control" for what stands beside the main line.
    raw: of each run, as logged.
    mean: of the smoothed runs.
    fit: the regression line, where it is to be drawn.
  """

  group: str
  style: int
  beside: str
  raw: list[Series]
  mean: Mean
  fit: Straight | None


class Trend(NamedTuple):
  """A straight line from one point (step, value) to another, as drawn."""

  name: str
  style: int
  ends: tuple[tuple[float, float], tuple[float, float]]

  @property
  def slope(self) -> float:
    (x0, y0), (x1, y1) = self.ends
    return (y1 - y0) / (x1 - x0)


class Picture(NamedTuple):
  """All that is drawn of one metric. `coded`: of code models."""

  metric: str
  coded: bool
  curves: list[Curve]
  trends: list[Trend]

  @property
  def title(self) -> str:
    short = names.short(self.metric)
    return f"code model: {short}" if self.coded else short


def parse_trend(text: str) -> tuple[Anchor, Anchor]:
  """What --trend says: two of "first", "last", a step, or step:value, with a comma between.

  Raises:
    UsageError: anything else.
  """
  found = []
  for part in text.split(","):
    step, colon, value = part.strip().partition(":")
    try:
      at = {"first": -math.inf, "last": math.inf}.get(step)
      anchor = Anchor(float(step) if at is None else at, float(value) if colon else None)
    except ValueError:
      anchor = Anchor(math.nan, None)
    if math.isnan(anchor.step) or (colon and not math.isfinite(anchor.step + anchor.value)):
      found = []
      break
    found.append(anchor)
  if len(found) != 2 or found[0].step == found[1].step:
    raise UsageError(
      f"--trend {text}: give two different points with a comma between, such as first,last or "
      "20000,40000 or 40000:79.1,80000:79.3."
    )
  return found[0], found[1]


def lines_of(group: Group, phase: str, metric: str, rooted: bool = False) -> list[Series]:
  """The values of a metric in a phase of each run that has logged a finite one.

  Args:
    rooted: begin the evaluations of tuning and control with the last one of imitation.
  """
  found = [_points(run, phase, metric, rooted) for run in group.runs]
  return [one for one in found if np.isfinite(one.values).any()]


def pictures(groups: Sequence[Group], metrics: Sequence[str], drawing: Drawing) -> list[Picture]:
  """What to draw of each metric, of answers and of code models apart."""
  found = []
  for metric in metrics:
    for coded in (False, True):
      curves = [
        c for place, g in enumerate(groups) for c in _curves(place, g, metric, coded, drawing)
      ]
      if curves:
        found.append(Picture(metric, coded, curves, _trends(curves, drawing)))
  return found


def drawn(groups: Sequence[Group]) -> list[str]:
  """What is drawn unless the user says otherwise: validation metrics, losses, rewards."""
  kinds = (names.is_metric, names.is_loss, names.is_reward)
  found = names.ordered(n for group in groups for run in group.runs for n in logged(run))
  return [name for name in found if any(kind(name) for kind in kinds)]


def smoothed(line: Series, drawing: Drawing) -> Series:
  """The line as it is averaged over runs."""
  if drawing.rolling:
    return Series(line.steps, series.rolling_mean(line.values, drawing.rolling))
  return Series(line.steps, series.smooth(line.values, drawing.smoothing))


def _curves(place: int, group: Group, metric: str, coded: bool, drawing: Drawing) -> list[Curve]:
  labels = {branch.name: branch.label for run in group.runs for branch in run.branches}
  curves = []
  for phase, beside in labels.items():
    raw = lines_of(group, phase, metric, rooted=True)
    if not raw or is_coded(phase) != coded:
      continue
    mean = series.mean_over([smoothed(line, drawing) for line in raw])
    fit = series.regression(lines_of(group, phase, metric)) if drawing.regression else None
    curves.append(Curve(group.name, place % NUM_STYLES, beside, raw, mean, fit))
  return curves


def _points(run: Run, phase: str, metric: str, rooted: bool) -> Series:
  own = [branch for branch in run.branches if branch.name == phase]
  rows = [row for branch in own for row in branch.rows if metric in row]
  if rooted and rows and names.is_metric(metric) and branches_off(phase):
    before = [b for b in run.branches if not branches_off(b.name) and not is_coded(b.name)]
    start = [row for b in before for row in b.rows if metric in row]
    rows = [row for row in start if row["step"] <= own[0].start][-1:] + rows
  values = np.array([row[metric] for row in rows], np.float64)
  if names.is_metric(metric):
    values[values == -1] = np.nan  # how COCO's numbers say that there is nothing to count
  return Series(np.array([row["step"] for row in rows], np.int64), values)


def _trends(curves: Sequence[Curve], drawing: Drawing) -> list[Trend]:
  """One line a group, along its main phases; one for all where the user gave both values."""
  if not drawing.trend:
    return []
  first, last = drawing.trend
  if first.value is not None and last.value is not None:
    style = (1 + max(curve.style for curve in curves)) % NUM_STYLES
    return [Trend("given", style, ((first.step, first.value), (last.step, last.value)))]
  found = []
  for name in dict.fromkeys(curve.group for curve in curves):
    own = [curve for curve in curves if curve.group == name]
    main = [curve for curve in own if not curve.beside] or own
    means = [series.mean_over(curve.raw) for curve in main]
    steps, values = (np.concatenate(part) for part in zip(*[m[:2] for m in means], strict=True))
    ends = [_end(anchor, steps, values) for anchor in (first, last) if len(steps)]
    if ends and ends[0][0] != ends[1][0]:
      found.append(Trend(name, own[0].style, (ends[0], ends[1])))
  return found


def _end(anchor: Anchor, steps: np.ndarray, values: np.ndarray) -> tuple[float, float]:
  """The point that an anchor means: of the mean curve, the one nearest to its step."""
  if anchor.value is not None:
    return anchor.step, anchor.value
  bounded = min(max(anchor.step, float(steps.min())), float(steps.max()))
  place = int(np.argmin(abs(steps - bounded)))
  return float(steps[place]), float(values[place])
