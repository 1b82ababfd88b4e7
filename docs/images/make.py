"""What is annotated, imitated and tuned, for a few images of a run: the pictures of the documents.

python docs/images/make.py runs/recall docs/images/detection.png --skip 2
python docs/images/make.py runs/captions docs/images/captions.png --skip 2 --images 3 --side 400
python docs/images/make.py runs/panoptic docs/images/panoptic.png --skip 2
python docs/images/make.py runs/colors docs/images/colorization.png --skip 2

Of a run that restores pictures: what is given, restored by imitation, and tuned, and the original.

python docs/images/make.py runs/color docs/images/recursive.png --passes 2
"""

import argparse
import pathlib
from collections.abc import Mapping

import numpy as np

import rtune
from rtune.inference.model import Model
from rtune.predictions.images import as_bytes
from rtune.tasks.restoration import Restoration
from rtune.training.open_data import open_source

_TITLES = {"mle": "imitated", "reward": "tuned"}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("workdir", help="a finished run with the phases mle and reward")
  parser.add_argument("picture", help="the PNG to write")
  parser.add_argument("--images", type=int, default=4, help="columns")
  parser.add_argument("--skip", type=int, default=0, help="validation images to leave out first")
  parser.add_argument("--side", type=int, default=200, help="pixels of a picture, at most")
  parser.add_argument("--passes", type=int, help="of a recursive restorer; default: as in training")
  flags = parser.parse_args()
  models = {phase: rtune.load(flags.workdir, phase, passes=flags.passes) for phase in _TITLES}
  run = models["mle"].run
  source = open_source(run)
  examples = [source[flags.skip + k] for k in range(flags.images)]
  make = restored_rows if isinstance(run.task, Restoration) else drawn_rows
  rows = make(models, examples)
  pictures = [picture for row in rows.values() for picture in row]
  captions = [title for title, row in rows.items() for _ in row]
  found = rtune.gallery(pictures, captions, columns=flags.images, side=flags.side)
  found.save(pathlib.Path(flags.picture), optimize=True)


def drawn_rows(models: Mapping[str, Model], examples) -> dict[str, list[np.ndarray]]:
  """Answers drawn on their images, below what is annotated."""
  images = [example["image"] for example in examples]
  rows = {"annotated": [models["mle"].draw(x["image"], x) for x in examples]}
  for phase, title in _TITLES.items():
    both = zip(images, models[phase].predict(images), strict=True)
    rows[title] = [models[phase].draw(image, answer) for image, answer in both]
  return rows


def restored_rows(models: Mapping[str, Model], examples) -> dict[str, list[np.ndarray]]:
  """Degraded, restored and original pictures, gray ones as RGB."""
  task = models["mle"].run.task
  features = [task.example(example, None) for example in examples]
  given, clean = ([colored(one[name]) for one in features] for name in ("image", "clean"))
  rows = {"given": given}
  for phase, title in _TITLES.items():
    rows[title] = [colored(one.record["picture"]) for one in models[phase].predict(given)]
  return rows | {"original": clean}


def colored(picture: np.ndarray) -> np.ndarray:
  """RGB in 8 bits of a picture in 0..1, [H, W, 1] or [H, W, 3]."""
  return np.broadcast_to(as_bytes(picture), (*picture.shape[:2], 3))


if __name__ == "__main__":
  main()
