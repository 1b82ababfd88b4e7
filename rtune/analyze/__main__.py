"""What tuning did to a model: rewards of its samples, best of N, reward against metric.

python -m rtune.analyze --workdir W [--images 32] [--samples 1000] [--out W/analysis]

reward_distribution.png, reward_examples.png  with reward_distribution.csv, rewards_per_image.csv
best_of_n.png              the best of N answers by reward and by likelihood; best_of_n.csv
reward_against_metric.png  over training; reward_against_metric.csv, correlation.csv
perception_distortion.png  of policies with a temperature; perception_distortion.csv
"""

import argparse
import contextlib
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rtune import commands
from rtune.analyze import figures, progression, temperature
from rtune.analyze.figures import BestOfN
from rtune.analyze.pools import Pool, draw_pools
from rtune.analyze.tables import (
  Table,
  best_of_n,
  best_of_n_table,
  distribution_table,
  per_image_table,
  with_rewards,
)
from rtune.devices import processes
from rtune.display import console
from rtune.errors import UsageError
from rtune.store import reading, run_files
from rtune.training import restore
from rtune.training.open_data import open_source
from rtune.training.restore import Restored

_OWN = ("step", "phase", "reward")  # columns of an evaluation that are no metric


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code."""
  parser = commands.Parser(
    "rtune.analyze",
    "Says what tuning did to a model, in pictures and CSV.",
    "rtune analyze --workdir runs/recall --samples 100",
  )
  add, number = parser.add_argument, commands.positive
  add("--workdir", required=True, help="folder of the run")
  parser.add_weights()
  add("--images", type=number, default=32, help="validation images, from the first on")
  add("--samples", type=number, default=1000, help="answers drawn for each image")
  add("--chunk", type=number, default=50, help="answers drawn at once; fewer take less memory")
  add("--seed", type=int, default=0, help="of the drawing")
  add("--out", default="", help="folder to write to; default: analysis in the workdir")
  return reading.run(parser, args, _command, lambda flags: [flags.workdir], data=True)


def _command(flags: argparse.Namespace, data: Mapping[str, Any]) -> None:
  folder = pathlib.Path(flags.workdir).expanduser()
  config = run_files.read_config(folder)
  if not (config.reward.fn or config.reward.fns):
    raise UsageError(f"{folder} has no reward (config.reward.fn), so there is nothing to analyze.")
  out = commands.make_folder(flags.out or folder / "analysis")
  processes.start()
  run = restore.restore(folder, flags.weights)
  restore.load_params(run)
  source = open_source(run, args=data)
  images = min(flags.images, len(source))
  console.stage(f"{flags.samples} answers for each of {images} images; the first ones compile")
  pools = with_rewards(draw_pools(run, source, images, flags.samples, flags.chunk, flags.seed))
  best = best_of_n(pools)
  run_files.write_csv(out / "reward_distribution.csv", distribution_table(pools))
  run_files.write_csv(out / "rewards_per_image.csv", per_image_table(pools))
  run_files.write_csv(out / "best_of_n.csv", best_of_n_table(pools, best))
  figures.draw_distribution(pools, out / "reward_distribution.png")
  figures.draw_examples(pools, out / "reward_examples.png")
  figures.draw_best_of_n(best, pools, out / "best_of_n.png")
  print(_summary(pools, best), end="\n\n")
  _analyze_progression(run, progression.evaluations(run, source), out)
  if temperature.has_temperature(run):
    rows = temperature.over_temperature(run, source, images, flags.seed)
    run_files.write_csv(out / "perception_distortion.csv", rows)
    temperature.draw_trade(rows, out / "perception_distortion.png")
  console.say(f"written to {out}")


def _analyze_progression(run: Restored, rows: Table, out: pathlib.Path) -> None:
  """Writes the evaluations, and where there are enough of them what they say."""
  metrics = tuple(
    name for name in dict.fromkeys(n for row in rows for n in row) if name not in _OWN
  )
  run_files.write_csv(out / "reward_against_metric.csv", rows)
  found = progression.correlations(rows, metrics)
  run_files.write_csv(out / "correlation.csv", found)
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


if __name__ == "__main__":
  with contextlib.suppress(BrokenPipeError):
    sys.exit(main(sys.argv[1:]))
