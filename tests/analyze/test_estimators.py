"""Closed forms against all subsets, one by one."""

import itertools

import numpy as np
import pytest
import scipy.stats

from rtune.analyze.estimators import draw_counts, expected_pick, pearson, spearman


def _pick_of_subset(values, scores, subset) -> float:
  """The value of the highest score; the mean over those that share it."""
  best = max(scores[i] for i in subset)
  return float(np.mean([values[i] for i in subset if scores[i] == best]))


def _brute_force(values, scores, count) -> float:
  subsets = itertools.combinations(range(len(values)), count)
  return float(np.mean([_pick_of_subset(values, scores, subset) for subset in subsets]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [3, 1000], ids=["ties", "no ties"])
def test_the_pick_is_the_mean_over_all_subsets(seed, levels):
  rng = np.random.default_rng(seed)
  values, scores = rng.normal(size=8), rng.integers(levels, size=8) / 7.0
  counts = np.arange(1, 9)
  for by in (scores, values):
    expected = [_brute_force(values, by, count) for count in counts]
    np.testing.assert_allclose(expected_pick(values, by, counts), expected, atol=1e-12)


def test_one_draw_is_the_mean_and_all_draws_are_the_best():
  rewards, log_probs = np.array([0.0, 3.0, 1.0]), np.array([-1.0, -9.0, -2.0])
  ends = np.array([1, 3])
  np.testing.assert_allclose(expected_pick(rewards, rewards, ends), [4 / 3, 3.0])
  np.testing.assert_allclose(expected_pick(rewards, log_probs, ends), [4 / 3, 0.0])


def test_large_pools_neither_overflow_nor_drift():
  size = 5000
  values = np.arange(size, dtype=float)
  counts = draw_counts(size)
  # The highest of N out of 1 ... S without replacement is N (S + 1) / (N + 1) on average.
  expected = counts * (size + 1) / (counts + 1) - 1
  np.testing.assert_allclose(expected_pick(values, values, counts), expected, rtol=1e-9)


def test_it_is_unbiased_for_independent_draws():
  rng = np.random.default_rng(0)
  pools = rng.exponential(size=(1500, 20))
  estimates = [expected_pick(pool, pool, np.array([5]))[0] for pool in pools]
  truth = sum(1 / k for k in range(1, 6))  # the highest of five exponentials
  assert abs(np.mean(estimates) - truth) < 4 * np.std(estimates) / np.sqrt(len(pools))


@pytest.mark.parametrize("size", [1, 2, 7, 50, 1000])
def test_counts_rise_from_one_to_the_pool(size):
  counts = draw_counts(size)
  assert counts[0] == 1 and counts[-1] == size and (np.diff(counts) > 0).all()
  assert len(counts) <= 31


def test_correlations_are_those_of_scipy():
  rng = np.random.default_rng(1)
  x = rng.integers(5, size=30).astype(float)
  y = x**3 + rng.integers(20, size=30)
  np.testing.assert_allclose(pearson(x, y), scipy.stats.pearsonr(x, y).statistic)
  np.testing.assert_allclose(spearman(x, y), scipy.stats.spearmanr(x, y).statistic)
  assert spearman(np.array([1.0, 2, 3]), np.array([1.0, 8, 900])) == 1.0
  assert np.isnan(pearson(x, np.ones(30))) and np.isnan(spearman(x, np.ones(30)))
