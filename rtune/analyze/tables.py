"""What tuning did to a model: rewards of its samples, best of N, reward against metric.

python -m rtune.analyze --workdir W [--images 32] [--samples 1000] [--out W/analysis]

reward_distribution.png, reward_examples.png  with reward_distribution.csv, rewards_per_image.csv
best_of_n.png              the best of N answers by reward and by likelihood; best_of_n.csv
reward_against_metric.png  over training; reward_against_metric.csv, correlation.csv

Dimension key:
  I: images
  S: samples for each image
  N: numbers of draws
"""

import argparse
import contextlib
import csv
import io
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from rtune import commands, console, launch, restore, run_files
from rtune.analysis import figures, progression
from rtune.analysis.estimators import draw_counts, expected_pick
from rtune.analysis.figures import BestOfN, mean_and_error
from rtune.analysis.pools import Pool, draw_pools
from rtune.errors import UsageError
from rtune.evaluate import open_source
from rtune.restore import Restored

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
    raise UsageError("config.reward.fn gave no reward for any sample; there is nothing to analyze.")
  return [
    pool._replace(**{k: getattr(pool, k)[valid_I] for k in Pool._fields[1:]}) for pool in pools
  ]


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code."""
  parser = commands.Parser("rtune.analyze", "Says what tuning did to a model, in pictures and CSV.")
  add, number = parser.add_argument, commands.positive
  add("--workdir", required=True, help="folder of the run")
  add("--images", type=number, default=32, help="validation images, from the first on")
  add("--samples", type=number, default=1000, help="answers drawn for each image")
  add("--chunk", type=number, default=50, help="answers drawn at once; fewer take less memory")
  add("--seed", type=int, default=0, help="of the drawing")
  add("--out", default="", help="folder to write to; default: analysis in the workdir")
  return commands.guarded(lambda: _command(parser.parse_args(args)))


def _command(flags: argparse.Namespace) -> None:
  folder = pathlib.Path(flags.workdir).expanduser()
  config = run_files.read_config(folder)
  if not config.reward.fn:
    raise UsageError(f"{folder} has no reward (config.reward.fn), so there is nothing to analyze.")
  out = _make_folder(pathlib.Path(flags.out).expanduser() if flags.out else folder / "analysis")
  launch.start()
  run = restore.restore(folder)
  restore.load_params(run)
  source = open_source(run)
  images = min(flags.images, len(source))
  console.stage(f"{flags.samples} answers for each of {images} images; the first ones compile")
  pools = with_rewards(draw_pools(run, source, images, flags.samples, flags.chunk, flags.seed))
  best = best_of_n(pools)
  _write(out / "reward_distribution.csv", distribution_table(pools))
  _write(out / "rewards_per_image.csv", per_image_table(pools))
  _write(out / "best_of_n.csv", best_of_n_table(pools, best))
  figures.draw_distribution(pools, out / "reward_distribution.png")
  figures.draw_examples(pools, out / "reward_examples.png")
  figures.draw_best_of_n(best, pools, out / "best_of_n.png")
  print(_summary(pools, best), end="\n\n")
  _analyze_progression(run, progression.evaluations(run, source), out)
  console.say(f"written to {out}")


def _analyze_progression(run: Restored, rows: Table, out: pathlib.Path) -> None:
  """Writes the evaluations, and where there are enough of them what they say."""
  metrics = run.task.headline
  _write(out / "reward_against_metric.csv", rows)
  found = progression.correlations(rows, metrics)
  _write(out / "correlation.csv", found)
  if found:
    figures.draw_progression(rows, found, metrics, out / "reward_against_metric.png")
    columns = list(found[0])
    print(console.table([list(entry.values()) for entry in found], columns), end="\n\n")


def _summary(pools: Sequence[Pool], best: Mapping[str, BestOfN]) -> str:
  """One line a phase, means over images."""
  last = best[pools[0].phase].counts[-1]
  rows = [
    [
      pool.phase,
      np.nanmean(pool.reward),
      np.nanmean(np.nanpercentile(pool.reward, 99, axis=1)),
      np.nanmean(pool.greedy),
      best[pool.phase].by_reward[:, -1].mean(),
      best[pool.phase].by_likelihood[:, -1].mean(),
    ]
    for pool in pools
  ]
  columns = ("phase", "expected", "top 1 %", "greedy", f"best of {last}", f"likeliest of {last}")
  return console.table(rows, columns)


def _make_folder(path: pathlib.Path) -> pathlib.Path:
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UsageError(f"--out {path} cannot be written: {error.strerror}.") from error
  return path


def _write(path: pathlib.Path, rows: Table) -> None:
  """A table as CSV; without rows it is only a line break."""
  text = io.StringIO()
  writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  run_files.write_whole(path, text.getvalue())


if __name__ == "__main__":
  with contextlib.suppress(BrokenPipeError):
    sys.exit(main(sys.argv[1:]))
