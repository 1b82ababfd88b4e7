"""Curves against TensorBoard's definition, pandas' rule, numpy's polyfit and hand-made means."""

import numpy as np
import pytest

from rtune.compare import series
from rtune.compare.series import Series


def noisy(seed: int, length: int = 40) -> np.ndarray:
  """Values that no smoothing leaves alone."""
  return np.random.default_rng(seed).normal(size=length)


def tensorboard(values: np.ndarray, weight: float) -> np.ndarray:
  """The whole history of each point written out: weights w^age of the finite ones, sum to one."""
  smoothed = values.copy()
  for now in range(len(values)):
    if not np.isfinite(values[now]):
      continue
    history = [v for v in values[: now + 1] if np.isfinite(v)]
    parts = [weight ** (len(history) - 1 - i) for i in range(len(history))]
    smoothed[now] = sum(p * v for p, v in zip(parts, history, strict=True)) / sum(parts)
  return smoothed


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.6, 0.9, 0.999])
def test_smoothing_is_tensorboards(weight):
  values = noisy(0)
  values[[3, 17]] = np.nan, np.inf
  smoothed = series.smooth(values, weight)
  np.testing.assert_allclose(smoothed, tensorboard(values, weight), rtol=1e-9)
  assert np.isnan(smoothed[3]) and np.isinf(smoothed[17])


def test_smoothing_as_tensorboards_own_tests_have_it():
  # data_transformer_test.ts: three points, weight 0.6.
  third = ((0.5 * 0.4 + 0.4 * 1 * 0.6) * 0.6) / (1 - 0.6**3)
  down = series.smooth(np.array([1.0, 0.5, 0.0]), 0.6)
  np.testing.assert_allclose(down, [1, 0.6875, third], rtol=1e-12)
  up = series.smooth(np.array([0.0, 0.5, 1.0]), 0.6)
  np.testing.assert_allclose(up, [0, 0.3125, (0.4 + 0.5 * 0.4 * 0.6) / (1 - 0.6**3)], rtol=1e-12)
  assert series.smooth(np.array([1.0, 0.5, 0.0]), 1.0).tolist() == [0, 0, 0]
  assert series.smooth(np.array([1.0, 0.5, 0.0]), 0.0).tolist() == [1, 0.5, 0]
  assert series.smooth(np.full(3, 0.3), 0.1).tolist() == [0.3] * 3  # bit by bit
  assert series.smooth(np.array([]), 0.5).tolist() == []


@pytest.mark.parametrize("window", [1, 2, 3, 4, 7, 40, 41])
def test_rolling_mean_is_centered(window):
  values = noisy(1)
  means = series.rolling_mean(values, window)
  for place in range(len(values)):
    # pandas: an even window reaches one point further back.
    first, last = place - window // 2, place + (window - 1) // 2
    if first < 0 or last >= len(values):
      assert np.isnan(means[place])
    else:
      assert means[place] == pytest.approx(values[first : last + 1].mean(), abs=1e-12)


def test_mean_and_deviation_are_of_common_steps():
  steps = np.arange(0, 400, 10)
  runs = [Series(steps, noisy(seed)) for seed in range(3)]
  runs[0].values[5] = np.nan
  runs[1] = Series(steps[2:], runs[1].values[2:])
  runs[2] = Series(steps[:-3], runs[2].values[:-3])
  mean = series.mean_over(runs)
  expected = [place for place in range(2, 37) if place != 5]
  assert mean.steps.tolist() == steps[expected].tolist()
  for place, step in enumerate(expected):
    values = [noisy(seed)[step] for seed in range(3)]
    average = sum(values) / 3
    assert mean.values[place] == pytest.approx(average)
    squares = sum((v - average) ** 2 for v in values)
    assert mean.deviation[place] == pytest.approx((squares / 2) ** 0.5)
  alone = series.mean_over(runs[1:2])
  assert alone.values.tolist() == runs[1].values.tolist() and np.isnan(alone.deviation).all()
  apart = series.mean_over([Series(steps, noisy(0)), Series(steps + 1, noisy(1))])
  assert len(apart.steps) == len(apart.values) == len(apart.deviation) == 0


def test_regression_is_polyfits():
  steps = np.arange(50, 2050, 50)
  runs = [Series(steps, 0.001 * steps + noisy(seed)) for seed in range(2)]
  runs[1].values[7] = np.nan
  good = np.isfinite(runs[1].values)
  xs, ys = (
    np.concatenate([steps, steps[good]]),
    np.concatenate([runs[0].values, runs[1].values[good]]),
  )
  slope, level = np.polyfit(xs, ys, 1)
  found = series.regression(runs)
  assert found.slope == pytest.approx(slope) and found.level == pytest.approx(level)
  assert found.at(300.0) == pytest.approx(np.polyval([slope, level], 300))
  assert series.regression([Series(np.array([5, 6]), np.array([1.0, np.nan]))]) is None
