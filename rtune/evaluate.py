"""A split -> predictions, greedy or of beam search -> the task's metric. Every image counts once.

python -m rtune.evaluate --workdir W [--phase P] [--annotations FILE.json [--images DIR]]

Dimension key:
  B: batch of images
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import types
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rtune import commands
from rtune.config import trust as trusting
from rtune.devices import processes
from rtune.display import console
from rtune.errors import StorageError, UsageError
from rtune.store import naming, reading, run_files
from rtune.store.remote import copies, place
from rtune.tasks.task import view
from rtune.training import restore
from rtune.training.evaluation import Evaluation, evaluate_phase, predictor
from rtune.training.open_data import open_source, task_of
from rtune.training.setup import metrics_of


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code."""
  parser = commands.Parser(
    "rtune.evaluate",
    "Scores a trained model on a split or a file.",
    "rtune evaluate --workdir runs/recall --annotations test.json --images photos",
  )
  add = parser.add_argument
  add("--workdir", required=True, help="folder of the run")
  add("--phase", default="", help="whose weights; default: the last phase that is finished")
  parser.add_weights()
  add("--annotations", default="", help="annotation file; default: the run's validation data")
  add("--split", default="", help="one of the run's data.splits instead of its validation data")
  add("--images", default="", help="folder of its images; default: as the file says")
  add("--limit", type=commands.positive, default=0, help="only so many images, from the first on")
  add("--batch_size", type=commands.positive, help="images a step; default: as in the run")
  add("--results", default="", help="also write the predictions here, for the official scorer")
  add("--beam", type=commands.positive, default=1, help="size of beam search; 1 = greedy")
  add("--fast", action="store_true", help="score with the optional package hotcoco")
  return reading.run(parser, args, _command, lambda flags: [flags.workdir], data=True)


def evaluate(
  workdir: str | os.PathLike[str],
  phase: str = "",
  *,
  weights: str = "last",
  annotations: str = "",
  images: str = "",
  split: str = "",
  limit: int = 0,
  batch_size: int | None = None,
  beam: int = 1,
  fast: bool = False,
  data: Mapping[str, Any] = MappingProxyType({}),
  trust: bool = False,
) -> Evaluation:
  """The numbers of a trained phase, on the run's validation data or on others; writes nothing.

  Args:
    workdir: folder of the run, or a URL such as "gs://bucket/run".
    phase: whose weights; "": of the last phase that is finished.
    weights: "last" or "best" of that phase.
    annotations: annotation file; "": the run's own data.
    images: folder of its images; "": as the file says.
    split: one of the run's data.splits instead of its validation data.
    limit: only so many images, from the first on; 0 = all.
    batch_size: images a step; None: as in the run.
    beam: size of beam search; 1 is greedy.
    fast: score with the optional package hotcoco.
    data: arguments of the data, over those that the run has.
    trust: run the code of others that the workdir names.

  Raises:
    UsageError: arguments that do not fit each other or the run.
    DataError: what is wrong with the data.
  """
  _check_chosen(annotations, images, split)
  if place.is_remote(workdir):
    workdir = copies.local_copy(workdir, "workdir")
  with reading.reading([workdir], trust, tell=not trusting.is_limited()):
    run = restore.restore(workdir, weights)
    alone = annotations and view(run.task).own_size
    run = restore.with_batch_size(run, batch_size or (1 if alone else None))
    source = open_source(run, annotations, images, split, data)
    metrics = metrics_of(run.config, task_of(run, source), fast)
    return evaluate_phase(run, phase, predictor(run, beam), source, metrics, limit)


def _check_chosen(annotations: str, images: str, split: str) -> None:
  if images and not annotations:
    raise UsageError("--images goes with --annotations")
  if split and annotations:
    raise UsageError("--split and --annotations both say what to evaluate on; give one.")


def _command(flags: argparse.Namespace, data: Mapping[str, Any]) -> None:
  _check_chosen(flags.annotations, flags.images, flags.split)  # before jax takes seconds to start
  processes.start()
  names = ("phase", "weights", "annotations", "images", "split", "limit", "batch_size", "beam")
  given = {name: getattr(flags, name) for name in (*names, "fast", "trust")}
  done = evaluate(flags.workdir, **given, data=data)
  folder = pathlib.Path(flags.workdir).expanduser()
  own = run_files.read_config(folder).data.val.fn
  parts = ["evaluation", done.phase]
  parts += [pathlib.Path(flags.annotations).stem] if flags.annotations else []
  parts += [flags.split] if flags.split else []
  parts += ["best"] if flags.weights == "best" else []
  parts += [f"first{flags.limit}"] if flags.limit else []
  parts += [f"beam{flags.beam}"] if flags.beam > 1 else []
  summary = {
    "phase": done.phase,
    "weights": flags.weights,
    "annotations": _where(flags.annotations) or flags.split or own,
    "images": len(done.judged),
    "metrics": done.values,
    "classes": done.classes,
  }
  if done.confusion is not None:
    names, counts = done.confusion
    summary["confusion"] = {"classes": list(names), "counts": counts.tolist()}
  path = _place(folder, "_".join(parts), summary["annotations"])
  run_files.write_whole(path, json.dumps(summary, indent=2) + "\n")
  for heading, values in (("metric", done.values), ("class", done.classes)):
    if values:
      print(console.table([*values.items()], (heading, done.phase)), end="\n\n")
  console.say(f"written to {path}")
  if flags.results:
    _write_results(pathlib.Path(flags.results).expanduser(), done)


def _write_results(path: pathlib.Path, done: Evaluation) -> None:
  """The file for the official scorer first, then its masks: one that fails loses no other."""
  both = list(zip(done.metrics, done.states, strict=True))
  results = next((metric.results(state) for metric, state in both if metric.results), [])
  run_files.write_whole(path, json.dumps(results))
  failed: list[str] = []
  for metric in (metric for metric in done.metrics if metric.files):
    for one in done.judged:
      try:
        run_files.save_pictures(path, metric.files(one.record))
      except (OSError, ValueError) as error:
        failed.append(str(error))
  if failed:
    raise StorageError(f"{len(failed)} pictures of {path} cannot be written, first: {failed[0]}.")


def _where(annotations: str) -> str:
  """The file, whatever folder the command was started in."""
  return str(pathlib.Path(annotations).expanduser().resolve()) if annotations else ""


def _place(folder: pathlib.Path, stem: str, annotations: str) -> pathlib.Path:
  """Where to write: over an evaluation on the same data, else under a name that nobody has.

  Exports call the files of all splits alike, and then their folder tells them apart.
  """

  def path(name: str) -> pathlib.Path:
    return folder / naming.shortened(name, ".json")

  def free(name: str) -> bool:
    return not path(name).exists() or _annotations_of(path(name)) == annotations

  parent = pathlib.Path(annotations).parent.name
  return path(stem if free(stem) else naming.numbered(f"{stem}_{parent}".rstrip("_"), free))


def _annotations_of(path: pathlib.Path) -> str:
  try:
    found = json.loads(path.read_text())
  except (OSError, ValueError):
    return ""  # damaged: it stays as it is
  return found.get("annotations", "") if isinstance(found, dict) else ""


class _Callable(types.ModuleType):
  """`python -m rtune.evaluate` is a command, `rtune.evaluate(...)` a call, by one name."""

  def __call__(self, *args: Any, **kwargs: Any) -> Evaluation:
    return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
  with contextlib.suppress(BrokenPipeError):
    sys.exit(main(sys.argv[1:]))
