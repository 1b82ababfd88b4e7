"""What a pool of samples says: the best of N drawn from it, and how two series go together.

Dimension key:
  S: samples in the pool
  N: pool sizes that are asked about
  T: evaluations
"""

import numpy as np
from jaxtyping import Float, Int


def draw_counts(size: int) -> Int[np.ndarray, " n"]:
  """About ten whole numbers a decade, from 1 to `size`, both included."""
  places = 1 + round(10 * np.log10(size))
  return np.unique(np.geomspace(1, size, places).round().astype(int))


def expected_pick(
  values_S: Float[np.ndarray, " s"],
  scores_S: Float[np.ndarray, " s"],
  counts_N: Int[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
  """The value that one gets by drawing N of the pool and taking the one with the highest score.

  It is the mean over all subsets of N, in closed form, so it is unbiased for N independent draws:
  of S sorted scores the i-th is the highest of N drawn in C(i - 1, N - 1) of C(S, N) subsets.
  Among equal scores each is as likely to be taken. Best of N by reward is `scores_S = values_S`;
  the most likely of N is log-probabilities as scores.

  Args:
    counts_N: each from 1 to S.
  """
  _, group_S, size_G = np.unique(scores_S, return_inverse=True, return_counts=True)
  mean_G = np.bincount(group_S, values_S) / size_G
  values_S = np.repeat(mean_G, size_G)  # now in order of score
  return _highest_share(len(values_S), counts_N) @ values_S


def _highest_share(size: int, counts_N: np.ndarray) -> Float[np.ndarray, "n s"]:
  """How often each of S sorted items is the highest of N drawn without replacement."""
  # Factorials overflow at 171; their logarithms lose nothing that matters at a million.
  log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size + 1)))])
  below_S, n_N1 = np.arange(size), np.asarray(counts_N)[:, None]
  rest_NS = np.maximum(below_S - (n_N1 - 1), 0)
  subsets_NS = log_factorial[below_S] - log_factorial[n_N1 - 1] - log_factorial[rest_NS]
  all_N1 = log_factorial[size] - log_factorial[n_N1] - log_factorial[size - n_N1]
  return np.where(below_S >= n_N1 - 1, np.exp(subsets_NS - all_N1), 0.0)


def pearson(x_T: Float[np.ndarray, " t"], y_T: Float[np.ndarray, " t"]) -> float:
  """The linear correlation; NaN where one of the two does not change."""
  if len(x_T) < 2 or np.ptp(x_T) == 0 or np.ptp(y_T) == 0:
    return float("nan")
  return float(np.corrcoef(x_T, y_T)[0, 1])


def spearman(x_T: Float[np.ndarray, " t"], y_T: Float[np.ndarray, " t"]) -> float:
  """The correlation of ranks, equal values sharing theirs; NaN as in `pearson`."""
  return pearson(_ranks(x_T), _ranks(y_T))


def _ranks(values_T: np.ndarray) -> np.ndarray:
  _, group_T, size_G = np.unique(values_T, return_inverse=True, return_counts=True)
  return (np.cumsum(size_G) - (size_G - 1) / 2)[group_T]
