"""Learning from another domain's images: the model labels them itself, or a person some of them.

A phase whose settings say `adapt.by` trains on `config.data.target` beside its own data. What it is
trained on stands in the workdir, in labels/<phase>: a folder of label maps for each round, or the
list of images to label. It is made once, so a run that is resumed trains on the same labels.

Dimension key:
  B: batch of images
  H, W: height and width in pixels
  C: classes
"""

import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from rtune import config as configs
from rtune.config.names import build_part
from rtune.data.mixed import Chosen, Mixed
from rtune.data.reader import Reader
from rtune.data.recolor import Recolored, colors_of
from rtune.data.source import Example, Source
from rtune.data.unreadable import Unreadable, left_out
from rtune.devices import processes
from rtune.display import console
from rtune.errors import UsageError
from rtune.predictions import certainty
from rtune.predictions.labels import IGNORE
from rtune.store import run_files
from rtune.training import choosing
from rtune.training.labeling import Labeled, label
from rtune.training.setup import Setup

SUMMARY = "summary.json"
CHOSEN = "chosen.txt"


class Span(NamedTuple):
  """Steps of a phase, from `first` on and before `last`, that are trained on one source."""

  first: int
  last: int
  source: Source


def spans(
  setup: Setup, phase: str, folder: pathlib.Path, done: int, params: Callable[[], Any]
) -> Iterator[Span]:
  """What a phase trains on after `done` steps.

  Args:
    params: () -> the parameters that label images, as they are when a round begins.

  Raises:
    UsageError: a person has labels to give before training can go on.
  """
  settings = getattr(setup.config, phase)
  adapt = getattr(settings, "adapt", configs.Adapt())
  if not adapt.by:
    yield Span(done, settings.steps, setup.train)
    return
  left = left_out(setup.config.data, "data.target", setup.target, folder)
  folder = folder / "labels" / phase
  rounds = adapt.rounds if adapt.by == "model" else 1
  for number in range(rounds):
    first, last = (settings.steps * n // rounds for n in (number, number + 1))
    if done >= last:
      continue
    if adapt.by == "model":
      own = _self_labeled(setup, adapt, folder / f"round_{number + 1}", params, phase, left)
    else:
      own = _labeled_by_people(setup, adapt, folder, params, phase, left)
    source = Mixed(setup.train, own, adapt.mix) if adapt.mix > 0 else own
    yield Span(max(done, first), last, source)


class SelfLabeled:
  """Images of a source with those labels of a folder that are sure enough."""

  def __init__(self, images: Source, folder: pathlib.Path, least_C: np.ndarray):
    self._images, self._folder, self._least_C = images, folder, least_C
    # Those that could not be read have none.
    self._places = sorted(int(path.name.split("_")[0]) for path in folder.glob("*_labels.png"))

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: int) -> Example:
    place = self._places[index]
    labels, levels = read_labels(self._folder, place)
    sure = levels >= self._least_C[labels]
    label_map = np.where(sure, labels, IGNORE).astype(np.int16)
    return {**self._images[place], "label_map": label_map}


def write_labels(folder: pathlib.Path, found: Labeled) -> None:
  """Two PNGs of an image: labels, and how sure of them the model is."""
  pictures = {"labels": found.labels, "sure": found.levels}
  for name, picture in pictures.items():
    Image.fromarray(picture).save(folder / f"{found.index:07d}_{name}.png")


def read_labels(folder: pathlib.Path, index: int) -> tuple[np.ndarray, np.ndarray]:
  """Labels and levels [H, W] that `write_labels` wrote."""
  read = []
  for name in ("labels", "sure"):
    with Image.open(folder / f"{index:07d}_{name}.png") as picture:
      read.append(np.asarray(picture).astype(np.int64))
  return read[0], read[1]


def _self_labeled(
  setup: Setup,
  adapt: configs.Adapt,
  folder: pathlib.Path,
  params: Callable[[], Any],
  phase: str,
  left: Unreadable | None,
) -> Source:
  """The target's images with the model's own labels, made and written unless they are there."""
  path = folder / SUMMARY
  if not path.is_file():
    folder.mkdir(parents=True, exist_ok=True)
    counts_KCL = np.zeros((3, len(setup.task.classes), certainty.LEVELS), np.int64)
    seen = _recolored(setup, left) if adapt.recolor else setup.target
    for found in label(setup, params(), seen, f"{phase}: labels", left):
      write_labels(folder, found)
      counts_KCL += _counts(found, counts_KCL.shape[1])
    counts_KCL = sum(processes.gather_objects([counts_KCL]))
    if jax.process_index() == 0:
      summary = _summary(setup.task.classes, adapt, counts_KCL)
      run_files.write_whole(path, json.dumps(summary, indent=2) + "\n")
    processes.barrier(f"labels of {phase}")
  summary = json.loads(path.read_text())
  right = "" if summary["right"] is None else f", {summary['right']:.1%} of them right"
  console.stage(
    f"{phase}: {summary['kept']:.1%} of the pixels of {len(setup.target)} images are labeled by "
    f"the model{right}"
  )
  least_C = np.array([summary["levels"][name] for name in setup.task.classes])
  return SelfLabeled(setup.target, folder, least_C)


def _recolored(setup: Setup, left: Unreadable | None) -> Source:
  """The target in the colors of the training data."""
  own = left_out(setup.config.data, "the training data", setup.train)
  return Recolored(setup.target, colors_of(setup.train, unreadable=own), left)


def _counts(found: Labeled, classes: int) -> np.ndarray:
  """[K, C, L]: pixels by class and level: all, those whose truth is known, and the right ones."""
  pixels = [(found.labels, found.levels)]
  if found.truth is None:
    pixels += [(found.labels[:0], found.levels[:0])] * 2
  else:
    for which in (found.truth != IGNORE, found.truth == found.labels):
      pixels.append((found.labels[which][None], found.levels[which][None]))
  return np.stack([certainty.count_levels(*both, classes) for both in pixels])


def _summary(
  classes: Sequence[str], adapt: configs.Adapt, counts_KCL: np.ndarray
) -> dict[str, Any]:
  """From which level on labels of each class are kept; shares of what is, and of what is right."""
  if adapt.select == "balanced":
    least_C = certainty.surest(counts_KCL[0], adapt.share)
  else:
    least_C = np.full(len(classes), certainty.level_of(adapt.threshold))
  is_kept_CL = np.arange(certainty.LEVELS) >= least_C[:, None]
  made, known, right = (counts_KCL * is_kept_CL).sum(axis=2)
  of_all = counts_KCL[0].sum(axis=1)
  shares = made / np.maximum(of_all, 1)
  return {
    "kept": float(made.sum() / of_all.sum()),
    "right": float(right.sum() / known.sum()) if known.any() else None,
    "kept_by_class": dict(zip(classes, shares.round(4).tolist(), strict=True)),
    "levels": dict(zip(classes, least_C.tolist(), strict=True)),
  }


def _labeled_by_people(
  setup: Setup,
  adapt: configs.Adapt,
  folder: pathlib.Path,
  params: Callable[[], Any],
  phase: str,
  left: Unreadable | None,
) -> Source:
  """The images that were chosen, with labels that a person has given.

  Where the target has labels they are those: so that it can be tried what labeling would bring.
  """
  path = folder / CHOSEN
  if not path.is_file():
    _choose(setup, adapt, path, params, phase, left)
  chosen = [int(line.split("\t")[0]) for line in path.read_text().splitlines()[1:]]
  if adapt.labels.fn:
    return build_part(adapt.labels, f"{phase}.adapt.labels")
  # What cannot be read any more is left to training, which leaves it out as well.
  reader = Reader(setup.target, lambda raw, rng: raw, left)
  read = (found for found in map(reader.read, chosen) if found is not None)
  bare = [found.index for found in read if (found.raw["label_map"] == IGNORE).all()]
  if bare:
    raise UsageError(
      f"{path} lists {len(chosen)} images to label, and {len(bare)} of them have no label. Label "
      f"them, name the source of their masks in config.{phase}.adapt.labels, and start the same "
      "command with --allow_config_change."
    )
  return Chosen(setup.target, chosen)


def _choose(
  setup: Setup,
  adapt: configs.Adapt,
  path: pathlib.Path,
  params: Callable[[], Any],
  phase: str,
  left: Unreadable | None,
) -> None:
  """Writes the list of images to label: place in the source, name or id, scores."""
  classes = len(setup.task.classes)
  looked = [
    (found.index, choosing.look(found.labels, found.entropy, classes))
    for found in label(setup, params(), setup.target, f"{phase}: images to label", left)
  ]
  looked = sorted(processes.gather_objects(looked), key=lambda pair: pair[0])
  images = [image for _, image in looked]
  rng = np.random.default_rng(setup.config.seed)
  budget = min(adapt.budget, len(images))  # fewer than the target has where some are left out
  chosen = choosing.named(adapt.choose)(images, budget, rng)
  names = getattr(setup.target, "names", None)
  lines = ["place\tname\tentropy\timpurity"]
  for place, image in (looked[number] for number in chosen):
    name = names[place] if names else setup.target[place]["image_id"]
    lines.append(f"{place}\t{name}\t{image.entropy:.4f}\t{image.impurity:.4f}")
  if jax.process_index() == 0:
    run_files.write_whole(path, "\n".join(lines) + "\n")
  processes.barrier(f"images chosen in {phase}")
  console.stage(f"{phase}: {len(chosen)} of {len(images)} images chosen, see {path}")
