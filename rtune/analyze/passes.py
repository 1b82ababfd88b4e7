"""What the agent of a recursive restorer is worth, pass by pass, beside other ways to go.

python -m rtune.analyze.passes --workdir W [--weights best] [--images 0] [--train_images 32]

Every phase that is finished, on validation images: imitation is the restorer without an agent,
control as many more steps of it. Beside them: random multipliers of the published range, the best
step and mix for all patches (found on training images), an agent that was trained by the exact
gradient, and the best choice of each patch, seen on the original. passes.csv has all numbers,
passes.png shows them.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rtune import commands
from rtune.analyze import agents
from rtune.analyze.curves_by_pass import draw_by_pass
from rtune.config.names import as_tuples, build_part
from rtune.data import loader
from rtune.data.source import Source
from rtune.devices import processes
from rtune.display import console
from rtune.errors import UsageError
from rtune.metrics.passes import by_pass, passes_of
from rtune.store import reading, run_files
from rtune.training import evaluation, restore
from rtune.training.evaluation import Judging
from rtune.training.open_data import open_source
from rtune.training.phases import phase_of
from rtune.training.restore import Restored

_SHOWN = "PSNR"
_SEED = 2**24  # of the batches that the exact gradient is taken on
_NAMES = {"mle": "no agent", "control": "more imitation", "reward": "REINFORCE"}


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code."""
  parser = commands.Parser(
    "rtune.analyze.passes",
    "Compares an agent of restoration by pass.",
    "python -m rtune.analyze.passes --workdir runs/table",
  )
  add = parser.add_argument
  add("--workdir", required=True, help="folder of the run")
  parser.add_weights()
  add("--annotations", default="", help="pictures to restore: a folder, a list or a JSON")
  add("--images", type=int, default=0, help="validation images, from the first on; 0 = all")
  add("--split", default="", help="another split of the run's to restore, by its name")
  add("--corruptions", default="", help="JSON: spoil the pictures so, not as config.task.args says")
  add("--train_images", type=commands.positive, default=32, help="for the best constants")
  add("--without", default="", help="rows to leave out: random,constant,gradient,oracle")
  add("--out", default="", help="folder to write to; default: analysis in the workdir")
  return reading.run(parser, args, _command, lambda flags: [flags.workdir])


def _command(flags: argparse.Namespace) -> None:
  processes.start()
  run = restore.restore(flags.workdir, flags.weights)
  if run.policy.control is None or "passes" not in run.config.policy.args:
    raise UsageError(
      f"{run.folder}: its policy {run.config.policy.fn} does not restore in passes; give a run of "
      "configs/restoration_recursive.py."
    )
  if flags.split and flags.annotations:
    raise UsageError("--split and --annotations both say what to restore; give one.")
  source = open_source(run, flags.annotations, split=flags.split)
  # A user's pictures are of many sizes, and come one by one.
  run = restore.with_batch_size(run, 1 if flags.annotations else None)
  if flags.corruptions:
    run = run._replace(task=_spoiled_by(run.task, flags.corruptions))
  out = commands.make_folder(flags.out or run.folder / "analysis")
  rows = measured(run, source, flags.images, flags.train_images, {*flags.without.split(",")})
  run_files.write_csv(out / "passes.csv", rows)
  measures = tuple(dict.fromkeys(key.split("_")[0] for key in rows[0] if key != "name"))
  draw_by_pass(rows, measures, out / "passes.png")
  _say(rows, measures)
  console.say(f"written to {pathlib.Path(out) / 'passes.csv'}")


def _spoiled_by(task: Any, corruptions: str) -> Any:
  """The task with another chain of corruptions in evaluation."""
  try:
    steps = json.loads(corruptions)
  except json.JSONDecodeError as error:
    raise UsageError(f"--corruptions is no JSON ({error}); write a list of steps.") from error
  return dataclasses.replace(task, eval_corruptions=(as_tuples(steps),))


def measured(
  run: Restored, source: Source, images: int, train_images: int, without: set[str]
) -> list[dict[str, Any]]:
  """A row for each way to restore `source`: its name, and each measure after each pass."""
  metrics = [by_pass()]
  judging = Judging(run.task, run.frozen, run.config.data, run.mesh, metrics, None)
  rows = []

  def measure(name: str, params: Any, predict: Any) -> None:
    console.stage(f"{name}: evaluating")
    found = evaluation.evaluate(judging, params, predict, source, images)
    rows.append({"name": name, **found})

  # All of them first: what a phase lacks is told before minutes of evaluation.
  phases = dict.fromkeys(("mle", *restore.finished(run)))
  trained = {phase: restore.load_params(run, phase)[1] for phase in phases}
  predict = evaluation.predictor(run)
  for phase, found in trained.items():
    measure(_NAMES.get(phase, phase), found, predict(phase_of(phase)))
  params = trained["mle"]
  passes = int(run.config.policy.args["passes"])
  if "random" not in without:
    measure("random multipliers", params, agents.random_choices(run, passes))
  if "constant" not in without:
    chosen = agents.best_constants(run, params, _training_pictures(run, train_images), passes)
    said = "; ".join(str([tuple(pair) for pair in one.round(2).tolist()]) for one in chosen)
    console.say(f"best step and mix of each channel, pass by pass: {said}")
    measure("best constants", params, agents.constant(run, chosen))
  if "gradient" not in without:
    with contextlib.closing(_training_batches(run)) as batches:
      learned = agents.by_gradient(run, params, batches)
    measure("exact gradient", learned, predict(phase_of("mle")))
  if "oracle" not in without:
    measure("best choices, seen", params, agents.oracle(run, passes))
  return rows


def _training_pictures(run: Restored, number: int) -> Iterator[Mapping[str, Any]]:
  """The first training pictures whole, as evaluation would have them."""
  source = build_part(run.config.data.train, "data.train")
  # Spoiled as in training, whatever is restored here.
  task = dataclasses.replace(run.task, eval_corruptions=())
  given = run.config.data, task, run.mesh, source, min(number, len(source))
  for batch, on_device in evaluation.batches(*given):
    count = int(batch.mask.sum())
    yield {name: on_device[name][:count] for name in ("image", "clean")}


def _training_batches(run: Restored):
  data, settings = run.config.data, run.config.reward
  return loader.train_batches(
    build_part(data.train, "data.train"),
    run.task.example,
    batch_size=settings.batch_size,
    seed=run.config.seed * 3 + _SEED,
    num_threads=data.threads,
    prefetch=data.prefetch,
  )


def _say(rows: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> None:
  """One table for each measure, one line for each way to go."""
  for measure in measures:
    columns = [name for _, name in passes_of(rows[0], measure)]
    digits = "{:.2f}" if measure == _SHOWN else "{:.4f}"
    table = [[row["name"], *(digits.format(row[key]) for key in columns)] for row in rows]
    print(console.table(table, [measure, *(key.split("_")[1] for key in columns)]), end="\n\n")


if __name__ == "__main__":
  with contextlib.suppress(BrokenPipeError):
    sys.exit(main(sys.argv[1:]))
