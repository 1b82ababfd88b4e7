"""Tables of what samples are worth: best of N, percentiles of each image, distributions.

Dimension key:
  S: samples for each image
  N: numbers of draws
"""

from collections.abc import Mapping, Sequence

import numpy as np

from rtune.analyze import figures
from rtune.analyze.estimators import draw_counts, expected_pick
from rtune.analyze.figures import BestOfN, mean_and_error
from rtune.analyze.pools import Pool
from rtune.display import console
from rtune.errors import UsageError

Table = list[dict[str, object]]


def best_of_n(pools: Sequence[Pool]) -> dict[str, BestOfN]:
  """Phase -> estimates for N up to the smallest number of valid samples of an image."""
  size = min(int(np.isfinite(pool.reward).sum(axis=1).min()) for pool in pools)
  counts_N = draw_counts(size)
  result = {}
  for pool in pools:
    rows = []
    for reward_S, log_prob_S in zip(pool.reward, pool.log_prob, strict=True):
      valid = np.isfinite(reward_S)
      values = reward_S[valid].astype(np.float64)
      scores = (values, log_prob_S[valid].astype(np.float64))
      rows.append([expected_pick(values, by, counts_N) for by in scores])
    by_reward, by_likelihood = np.swapaxes(rows, 0, 1)
    result[pool.phase] = BestOfN(counts_N, by_reward, by_likelihood)
  return result


def best_of_n_table(pools: Sequence[Pool], best: Mapping[str, BestOfN]) -> Table:
  """Means over images with standard errors.

  `kl_bound` is what the oracle's choice can be away from the model in nats, log N - (N - 1) / N.
  """
  rows = []
  for pool in pools:
    one = best[pool.phase]
    oracle, likely = mean_and_error(one.by_reward), mean_and_error(one.by_likelihood)
    for place, count in enumerate(one.counts.tolist()):
      rows.append(
        {
          "phase": pool.phase,
          "n": count,
          "by_reward": oracle[0][place],
          "by_reward_error": oracle[1][place],
          "by_likelihood": likely[0][place],
          "by_likelihood_error": likely[1][place],
          "greedy": np.nanmean(pool.greedy),
          "kl_bound": np.log(count) - (count - 1) / count,
        }
      )
  return rows


def per_image_table(pools: Sequence[Pool]) -> Table:
  """Percentiles of each image's rewards; `most_likely` is the reward of the likeliest sample."""
  rows = []
  for pool in pools:
    for place, image in enumerate(pool.images.tolist()):
      valid = np.isfinite(pool.reward[place])
      rewards, log_prob = pool.reward[place][valid], pool.log_prob[place][valid]
      low, median, high = np.percentile(rewards, (1, 50, 99))
      rows.append(
        {
          "phase": pool.phase,
          "image": image,
          "samples": len(rewards),
          "expected": rewards.mean(dtype=np.float64),
          "deviation": rewards.std(dtype=np.float64),
          "percentile_1": low,
          "median": median,
          "percentile_99": high,
          "best": rewards.max(),
          "most_likely": rewards[log_prob.argmax()],
          "greedy": pool.greedy[place],
        }
      )
  return rows


def distribution_table(pools: Sequence[Pool]) -> Table:
  """Shares of all samples in bins of reward that the phases have in common."""
  edges = figures.bin_edges(pools)
  columns = {pool.phase: figures.shares(pool.reward, edges) for pool in pools}
  return [
    {"from": edges[bin_], "to": edges[bin_ + 1]}
    | {phase: column[bin_] for phase, column in columns.items()}
    for bin_ in range(len(edges) - 1)
  ]


def with_rewards(pools: Sequence[Pool]) -> list[Pool]:
  """The pools without the images that have no valid reward in one of them.

  Raises:
    UsageError: nothing is left.
  """
  invalid = sum(int(np.isnan(pool.reward).sum()) for pool in pools)
  if invalid:
    total = sum(pool.reward.size for pool in pools)
    console.warn(f"{invalid} of {total} rewards could not be computed and are left out.")
  valid_I = np.all([np.isfinite(pool.reward).any(axis=1) for pool in pools], axis=0)
  if not valid_I.any():
    raise UsageError("config.reward gave no reward for any sample; there is nothing to analyze.")
  return [
    pool._replace(**{k: getattr(pool, k)[valid_I] for k in Pool._fields[1:]}) for pool in pools
  ]
