"""Pictures as charts of the page (SVG) and as PNG files."""

import pathlib
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rtune.compare import names
from rtune.compare.curves import Curve, Picture
from rtune.report.charts import Line, chart
from rtune.report.page import COLORS

_FEW = 30  # points of a curve that are marked one by one


def file_name(picture: Picture) -> str:
  """val.AR.png for val/AR."""
  prefix = "codes." if picture.coded else ""
  return prefix + re.sub(r"[^\w.-]+", ".", picture.metric) + ".png"


def svg(picture: Picture) -> str:
  """The chart for the page."""
  lines = []
  for curve in picture.curves:
    dots = names.is_metric(picture.metric)
    if _shows_runs(curve):
      lines += [
        Line(curve.group, _pairs(run.steps, run.values), curve.style, curve.beside, thin=True)
        for run in curve.raw
      ]
    mean, shade = curve.mean, _band(curve)
    points = _pairs(mean.steps, mean.values)
    edges = tuple(_pairs(mean.steps[shade], edge) for edge in _edges(curve))
    lines.append(Line(curve.group, points, curve.style, curve.beside, dots, shade=edges))
    if curve.fit is not None:
      ends = [(x, curve.fit.at(x)) for x in _range(curve)]
      lines.append(Line(curve.group, ends, curve.style, "regression"))
  for trend in picture.trends:
    lines.append(Line(trend.name, trend.ends, trend.style, "trend"))
  return chart(picture.title, lines)


def png(picture: Picture, path: pathlib.Path) -> None:
  """The same on white, for papers and slides. matplotlib without pyplot: no display."""
  figure = Figure(dpi=130, layout="constrained")
  axes = figure.subplots()
  for curve in picture.curves:
    _draw_curve(axes, curve)
  for trend in picture.trends:
    xs, ys = zip(*trend.ends, strict=True)
    color = COLORS[trend.style % len(COLORS)]
    axes.plot(
      xs,
      ys,
      "-.",
      color=color,
      linewidth=1.6,
      alpha=0.8,
      label=f"{trend.name}, trend, {_slope(trend.slope)}",
    )
  axes.set_title(picture.title)
  axes.set_xlabel("step")
  axes.grid(alpha=0.25)
  handles, labels = axes.get_legend_handles_labels()
  once = dict(zip(labels, handles, strict=True))
  figure.set_size_inches(7.6, 4.0 + 0.18 * len(once))
  figure.legend(once.values(), once, frameon=False, fontsize=8, loc="outside lower left")
  figure.savefig(path)


def _draw_curve(axes: Axes, curve: Curve) -> None:
  color, dash = COLORS[curve.style], "--" if curve.beside else "-"
  name, mean = ", ".join(filter(None, (curve.group, curve.beside))), curve.mean
  thin = {"color": color, "linewidth": 0.7, "alpha": 0.35, "linestyle": dash}
  if _shows_runs(curve):
    for run in curve.raw:
      axes.plot(run.steps, run.values, label=None if len(mean.steps) else name, **thin)
  if len(mean.steps):
    marker = "o" if len(mean.steps) <= _FEW else ""
    axes.plot(
      *(mean.steps, mean.values, dash),
      **{"color": color, "linewidth": 1.8, "marker": marker, "markersize": 3, "label": name},
    )
    low, high = _edges(curve)
    axes.fill_between(mean.steps[_band(curve)], low, high, color=color, alpha=0.16, linewidth=0)
  if curve.fit is not None:
    xs = _range(curve)
    ys, said = [curve.fit.at(x) for x in xs], f"regression, {_slope(curve.fit.slope)}"
    axes.plot(xs, ys, ":", color=color, label=f"{name}, {said}")


def _slope(slope: float) -> str:
  return f"{1000 * slope:+.3g} a 1,000 steps"


def _shows_runs(curve: Curve) -> bool:
  """Whether single runs are anything else than the mean."""
  if len(curve.raw) > 1:
    return True
  run, mean = curve.raw[0], curve.mean
  return len(run.steps) != len(mean.steps) or not np.array_equal(run.values, mean.values)


def _band(curve: Curve) -> np.ndarray:
  """Where the mean has a deviation."""
  return np.isfinite(curve.mean.deviation)


def _edges(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
  """Mean minus and plus one deviation."""
  mean, where = curve.mean, _band(curve)
  values, deviation = mean.values[where], mean.deviation[where]
  return values - deviation, values + deviation


def _range(curve: Curve) -> tuple[float, float]:
  steps = np.concatenate([run.steps for run in curve.raw])
  return float(steps.min()), float(steps.max())


def _pairs(steps: np.ndarray, values: np.ndarray) -> Sequence[tuple[int, float]]:
  return list(zip(steps.tolist(), values.tolist(), strict=True))
