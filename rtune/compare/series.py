"""Curves as arrays: smoothing, means over seeds, regression lines and trends.

Dimension key:
  N: points of a curve
  R: runs
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Series(NamedTuple):
  """Values of one metric in one phase of one run, steps rising."""

  steps: Int[np.ndarray, " n"]
  values: Float[np.ndarray, " n"]


class Mean(NamedTuple):
  """Over runs, at the steps at which all of them have a value.

  Attributes:
    deviation: standard deviation of the runs (divided by R - 1); NaN of a single run.
  """

  steps: Int[np.ndarray, " n"]
  values: Float[np.ndarray, " n"]
  deviation: Float[np.ndarray, " n"]


class Straight(NamedTuple):
  """A straight line: value = level + slope * step."""

  slope: float
  level: float

  def at(self, step: int | float) -> float:
    return self.level + self.slope * step


def smooth(values: Float[np.ndarray, " n"], weight: float) -> Float[np.ndarray, " n"]:
  """The debiased exponential moving average that TensorBoard draws.

  s_t = sum_{i <= t} (1 - w) w^(t - i) y_i / (1 - w^t), where only finite values count, those of i
  and of t. Values that are not finite stay as they are, and so does a curve that is constant.
  w = 1 gives zeros, as it does there.
  Source: `classicSmoothing` in tensorboard/webapp/widgets/line_chart_v2/data_transformer.ts.

  Args:
    weight: w, from 0 (nothing changes) to 1.
  """
  if (values == values[:1]).all():
    return values
  smoothed, last = values.copy(), 0.0
  for count, place in enumerate(np.flatnonzero(np.isfinite(values)), 1):
    last = last * weight + (1 - weight) * values[place]
    smoothed[place] = last / (1.0 if weight == 1 else 1 - weight**count)
  return smoothed


def rolling_mean(values: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " n"]:
  """The mean of `window` points around each; NaN at both ends, where there are not that many.

  As pandas' `rolling(window, center=True).mean()`: an even window reaches one point further back.
  """
  means = np.full(len(values), np.nan)
  if window <= len(values):
    windows = np.lib.stride_tricks.sliding_window_view(values, window)
    before = window // 2
    means[before : before + len(windows)] = windows.mean(axis=1)
  return means


def finite(series: Series) -> Series:
  """Without the points whose value is not finite."""
  known_N: Bool[np.ndarray, " n"] = np.isfinite(series.values)
  return Series(series.steps[known_N], series.values[known_N])


def mean_over(runs: Sequence[Series]) -> Mean:
  """Mean and deviation at the steps at which all runs have a finite value."""
  runs = [finite(run) for run in runs]
  steps = runs[0].steps
  for run in runs[1:]:
    steps = np.intersect1d(steps, run.steps)
  values_RN = np.array([run.values[np.isin(run.steps, steps)] for run in runs])
  deviation = values_RN.std(axis=0, ddof=1) if len(runs) > 1 else np.full(len(steps), np.nan)
  return Mean(steps, values_RN.mean(axis=0), deviation)


def regression(runs: Sequence[Series]) -> Straight | None:
  """The least-squares line through all finite points; None with fewer than two different steps."""
  runs = [finite(run) for run in runs]
  steps = np.concatenate([run.steps for run in runs]).astype(np.float64)
  values = np.concatenate([run.values for run in runs])
  if len(np.unique(steps)) < 2:
    return None
  slope = float(np.cov(steps, values, bias=True)[0, 1] / steps.var())
  return Straight(slope, float(values.mean() - slope * steps.mean()))
