"""How often each class is annotated, boxes or pixels, and the weights that rewards make of it.

python -m rtune.class_weights --annotations train.json [--smoothing 0.05]
python -m rtune.class_weights --folder cityscapes --layout cityscapes --split train
  [--args '{"classes": "classes.txt"}'] [--csv weights.csv] [--plot weights.png]
"""

import argparse
import csv
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from rtune import commands
from rtune.config import data_args
from rtune.config.knobs import Part
from rtune.data import findings
from rtune.data.class_counts import count
from rtune.data.files import validate
from rtune.data.source import Categories, Source
from rtune.data.sources.coco import CocoDetection
from rtune.data.sources.coco_labels import CocoLabels, PanopticLabels
from rtune.data.sources.label_folder import LabelFolder
from rtune.display import console
from rtune.errors import StorageError, UsageError
from rtune.rewards.boxes import balanced_weights
from rtune.training.sources import open_part


class Weighed(NamedTuple):
  """The classes of a source.

  Attributes:
    classes: names.
    unit: what is counted, "boxes" or "pixels".
    counts: of each class.
    frequencies: its share of all.
    weights: see `balanced_weights`.
  """

  classes: Sequence[str]
  unit: str
  counts: Int[np.ndarray, " c"]
  frequencies: Float64[np.ndarray, " c"]
  weights: Float64[np.ndarray, " c"]


def main(args: Sequence[str]) -> int:
  """Prints the table; returns the exit code."""

  def run() -> None:
    rest, data = data_args.take(args)
    _run(_parse(rest), data)

  return commands.guarded(run)


def weigh(source: Source, smoothing: float) -> Weighed:
  """Counts the boxes or pixels of a source; UsageError where it has neither."""
  if not isinstance(source, Categories):
    raise UsageError(f"{type(source).__name__} has no classes. Name a source of boxes or masks.")
  unit, counts = count(source)
  frequencies = counts / max(int(counts.sum()), 1)
  return Weighed(source.classes, unit, counts, frequencies, balanced_weights(counts, smoothing))


def _parse(args: Sequence[str]) -> argparse.Namespace:
  parser = commands.Parser(
    "rtune.class_weights",
    "Counts boxes or pixels and shows the weights of classes.",
    "rtune class_weights --annotations train.json",
  )
  given = parser.add_mutually_exclusive_group(required=True)
  given.add_argument(
    "--annotations", help="JSON: COCO detection or panoptic, or a list of images with masks"
  )
  given.add_argument("--folder", help="root of images and masks in folders (LabelFolder)")
  given.add_argument("--source", help="any source, as module:name or file.py:name")
  parser.add_argument("--layout", default="", help="of --folder, such as cityscapes")
  parser.add_argument("--split", default="", help="of --folder, such as train")
  parser.add_argument("--args", default="{}", help="more settings of the source, as JSON")
  parser.add_argument("--smoothing", type=float, default=0.05, help="share of all counts added")
  parser.add_argument("--csv", default="", help="file to write the table to")
  parser.add_argument("--plot", default="", help="PNG to draw frequencies and weights in")
  parser.epilog = f"{data_args.HELP}\n\n{parser.epilog}"
  flags = parser.parse_args(args)
  if not flags.smoothing >= 0:
    raise UsageError(f"--smoothing is {flags.smoothing}; it must not be negative.")
  return flags


def _run(flags: argparse.Namespace, data: Mapping[str, Any]) -> None:
  source = _open(flags, data)
  name = flags.annotations or flags.folder or flags.source
  findings.tell({name: source}, train=name)
  found = weigh(source, flags.smoothing)
  numbers = found.counts.tolist(), found.frequencies.tolist(), found.weights.tolist()
  rows = list(zip(found.classes, *numbers, strict=True))
  columns = ("class", found.unit, "frequency", "weight")
  console.say(console.table(rows, columns), stream=sys.stdout)
  try:
    if flags.csv:
      with open(flags.csv, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    if flags.plot:
      _draw(found, flags.plot)
  except OSError as error:
    raise StorageError(f"{error.filename} cannot be written: {error.strerror}.") from error


def _open(flags: argparse.Namespace, data: Mapping[str, Any]) -> Source:
  try:
    args = json.loads(flags.args)
  except ValueError as error:
    raise UsageError(f'--args is not JSON ({error}). Write \'{{"split": "train"}}\'.') from error
  if not isinstance(args, dict):
    raise UsageError(f'--args is {flags.args}; give an object, such as \'{{"split": "train"}}\'.')
  args |= data
  if flags.source:
    return open_part(Part(flags.source, args), "source", "--data.")
  if flags.folder:
    args = {"root": flags.folder, "layout": flags.layout, "split": flags.split, **args}
    fn = LabelFolder
  else:
    args = {"annotations": flags.annotations, **args}
    fn = _kind(validate.load_json(flags.annotations))
    if fn is CocoDetection:
      args = {"check_images": False, **args}
  return open_part(Part(f"{fn.__module__}:{fn.__name__}", args), "source", "--data.")


def _kind(data: Any) -> type[CocoDetection] | type[CocoLabels] | type[PanopticLabels]:
  """What reads a JSON of annotations."""
  data = data if isinstance(data, dict) else {}
  records = data.get("annotations")
  if "classes" in data and records is None:
    return CocoLabels
  first = records[0] if isinstance(records, list) and records else {}
  return PanopticLabels if isinstance(first, dict) and "segments_info" in first else CocoDetection


def _draw(found: Weighed, path: str) -> None:
  """Two bars a class: its frequency, on a logarithmic axis, and its weight."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(max(5.0, 0.3 * len(found.classes)), 6.0), layout="constrained")
  upper, lower = figure.subplots(2, sharex=True)
  places = np.arange(len(found.classes))
  upper.bar(places, found.frequencies, color="#0072B2")
  upper.set_ylabel(f"share of {found.unit}")
  if found.counts.any():
    upper.set_yscale("log")
  lower.bar(places, found.weights, color="#D55E00")
  lower.axhline(1, color="#8A8A8A", linewidth=1)
  lower.set_ylabel("weight")
  lower.set_xticks(places, found.classes, rotation=90)
  figure.savefig(pathlib.Path(path), format="png")


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
