"""How fast this machine samples, scores, updates, reads and evaluates, beside the least it can be.

python -m rtune.benchmark [decode|train|rewards|data|eval|step|files|all] [--config configs/NAME.py]
python -m rtune.benchmark features      what it saves to keep the features of a frozen backbone
python -m rtune.benchmark paper [--small] [--seconds N]    steps at the papers' sizes, for one GPU

Medians over repeats after a warm-up. A floor is what counted operations and bytes take at this
machine's own measured matrix rate and memory bandwidth (rtune/plan/counts.py). What is timed is
what training calls: the same functions, and all of their results.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from rtune import commands

PARTS = ("decode", "train", "rewards", "data", "eval", "step", "files")  # of all
_BUSY = 0.1  # share of the cores that others may take before figures are called disturbed


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code."""
  parser = commands.Parser(
    "rtune.benchmark",
    "Times the parts of a run beside their floors.",
    "rtune benchmark decode",
  )
  add = parser.add_argument
  choices = [*PARTS, "features", "all", "paper"]
  add("part", nargs="?", default="all", choices=choices, help="default: all")
  add("--config", default="configs/detection_recall.py", help="of train, data, eval, step")
  add("--repeats", type=commands.positive, default=7, help="medians are over so many")
  sweep = "how sampling grows with samples, length, image, batch; files, up to as many as COCO's"
  add("--sweep", action="store_true", help=sweep)
  add("--json", action="store_true", help="figures for machines, on standard output")
  add("--small", action="store_true", help="of paper: sizes that show on any machine that it runs")
  add("--seconds", type=commands.positive, default=1800, help="of paper: for all cases together")
  add("--cases", default="", help="of paper: some, with commas; default: all, one after the other")
  add("--case", default="", help="of paper: one, in this process")
  at_once = "of paper: so many cases at once are compiled before the first is measured"
  add("--ahead", type=commands.positive, default=0, help=f"{at_once}; default: each in its turn")
  add("--compile", action="store_true", help="of a case: takes one step, to compile it")
  add("--rates", default="", help="of a case: FLOPS,BYTES a second; default: measured")
  return commands.guarded(lambda: _command(parser.parse_args(args)))


def _command(flags: argparse.Namespace) -> None:
  if flags.part == "paper":
    from rtune.benchmark import paper_run

    paper_run.command(flags)
    return
  from rtune.config.load import load_config
  from rtune.devices import processes

  parts = PARTS if flags.part == "all" else (flags.part,)
  needs_config = bool({"train", "data", "eval", "step"} & {*parts})
  config = load_config(flags.config) if needs_config else None
  processes.start()
  from rtune.benchmark.machine import best_dtype, measure_machine
  from rtune.benchmark.row import as_table
  from rtune.benchmark.timing import Elsewhere
  from rtune.display import console

  watch = Elsewhere()
  machine = measure_machine(best_dtype())
  rates = f"{machine.flops / 1e9:.0f} GFLOP/s, {machine.bandwidth / 1e9:.1f} GB/s"
  console.stage(f"this machine, measured: {rates}")
  rows = _rows(parts, config, machine, flags)
  busy = watch.share()
  if busy is not None and busy > _BUSY:
    console.warn(f"other processes took {100 * busy:.0f} % of the cores meanwhile: trust ratios")
  if flags.json:
    figures = [row.as_dict() for row in rows]
    about = {"flops": machine.flops, "bandwidth": machine.bandwidth, "busy_elsewhere": busy}
    print(json.dumps({"machine": about, "figures": figures}, indent=2))
  else:
    print(as_table(rows))


def _rows(parts: Sequence[str], config, machine, flags: argparse.Namespace) -> list:
  from rtune.benchmark import cached_features, captions, decode, files, loop, rewards, segments
  from rtune.display import console
  from rtune.training.setup import prepare

  rows, repeats = [], flags.repeats
  ready = loop.make_loop(prepare(config)) if config is not None else None
  run = {
    "decode": lambda: decode.decode_rows(machine, repeats),
    "train": lambda: loop.train_rows(ready, machine, repeats),
    "rewards": lambda: [
      *rewards.reward_rows(repeats),
      *captions.caption_rows(repeats),
      *segments.segment_rows(repeats),
    ],
    "data": lambda: loop.data_rows(ready, repeats),
    "eval": lambda: loop.eval_rows(ready, machine, repeats),
    "step": lambda: loop.step_rows(ready, machine, repeats),
    "features": lambda: cached_features.feature_rows(repeats),
    "files": lambda: files.file_rows(repeats, files.SIZES if flags.sweep else files.SIZES[:1]),
  }
  for part in parts:
    console.stage(part)
    rows += run[part]()
  if flags.sweep:
    console.stage("sweep")
    rows += decode.sweep_rows(machine, repeats)
  return rows


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
