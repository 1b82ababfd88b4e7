"""A split -> predictions, greedy or of beam search -> the task's metric. Every image counts once.

python -m rtune.evaluate --workdir W [--phase P] [--annotations FILE.json [--images DIR]]

Dimension key:
  B: batch of images
"""

import argparse
import contextlib
import json
import pathlib
import sys
from collections.abc import Sequence

from rtune import commands
from rtune.devices import processes
from rtune.display import console
from rtune.errors import UsageError
from rtune.store import reading, run_files
from rtune.training import restore
from rtune.training.evaluation import evaluate_phase, open_source, predictor
from rtune.training.setup import metrics_of


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code."""
  parser = commands.Parser("rtune.evaluate", "Scores a trained model on a split or a file.")
  add = parser.add_argument
  add("--workdir", required=True, help="folder of the run")
  add("--phase", default="", help="whose weights; default: the last phase that is finished")
  add("--annotations", default="", help="annotation file; default: the run's validation data")
  add("--split", default="", help="one of the run's data.splits instead of its validation data")
  add("--images", default="", help="folder of its images; default: as the file says")
  add("--limit", type=commands.positive, default=0, help="only so many images, from the first on")
  add("--batch_size", type=commands.positive, help="images a step; default: as in the run")
  add("--results", default="", help="also write the predictions here, for the official scorer")
  add("--beam", type=commands.positive, default=1, help="size of beam search; 1 = greedy")
  add("--fast", action="store_true", help="score with the optional package hotcoco")
  return reading.run(parser, args, _command, lambda flags: [flags.workdir])


def _command(flags: argparse.Namespace) -> None:
  if flags.images and not flags.annotations:
    raise UsageError("--images goes with --annotations")
  if flags.split and flags.annotations:
    raise UsageError("--split and --annotations both say what to evaluate on; give one.")
  processes.start()
  run = restore.restore(flags.workdir)
  run = restore.with_batch_size(run, flags.batch_size)
  metrics = metrics_of(run.config, run.task, flags.fast)
  source = open_source(run, flags.annotations, flags.images, flags.split)
  predict = predictor(run, flags.beam)
  done = evaluate_phase(run, flags.phase, predict, source, metrics, flags.limit)
  if flags.results:
    path = commands.local(flags.results, "--results")
    both = list(zip(metrics, done.states, strict=True))
    results = next((metric.results(state) for metric, state in both if metric.results), [])
    run_files.write_whole(path, json.dumps(results))
    for metric in (metric for metric in metrics if metric.files):
      for one in done.judged:
        run_files.save_pictures(path, metric.files(one.record))
  parts = ["evaluation", done.phase]
  parts += [pathlib.Path(flags.annotations).stem] if flags.annotations else []
  parts += [flags.split] if flags.split else []
  parts += [f"first{flags.limit}"] if flags.limit else []
  parts += [f"beam{flags.beam}"] if flags.beam > 1 else []
  summary = {
    "phase": done.phase,
    "annotations": flags.annotations or flags.split or run.config.data.val.fn,
    "images": len(done.judged),
    "metrics": done.values,
    "classes": done.classes,
  }
  if done.confusion is not None:
    names, counts = done.confusion
    summary["confusion"] = {"classes": list(names), "counts": counts.tolist()}
  path = run.folder / f"{'_'.join(parts)}.json"
  run_files.write_whole(path, json.dumps(summary, indent=2) + "\n")
  for heading, values in (("metric", done.values), ("class", done.classes)):
    if values:
      print(console.table([*values.items()], (heading, done.phase)), end="\n\n")
  console.say(f"written to {path}")


if __name__ == "__main__":
  with contextlib.suppress(BrokenPipeError):
    sys.exit(main(sys.argv[1:]))
