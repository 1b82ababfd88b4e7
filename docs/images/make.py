"""What is annotated, imitated and tuned, for a few images of a run: the pictures of the documents.

python docs/images/make.py runs/recall docs/images/detection.png --skip 2
"""

import argparse
import pathlib

import rtune
from rtune.training.open_data import open_source


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("workdir", help="a finished run with the phases mle and reward")
  parser.add_argument("picture", help="the PNG to write")
  parser.add_argument("--images", type=int, default=4, help="columns")
  parser.add_argument("--skip", type=int, default=0, help="validation images to leave out first")
  flags = parser.parse_args()
  models = {phase: rtune.load(flags.workdir, phase) for phase in ("mle", "reward")}
  first = models["mle"]
  source = open_source(first.run)
  examples = [source[flags.skip + k] for k in range(flags.images)]
  images = [example["image"] for example in examples]
  rows = {"annotated": [first.draw(x["image"], x) for x in examples]}
  for phase, title in (("mle", "imitated"), ("reward", "tuned")):
    answers = models[phase].predict(images)
    both = zip(images, answers, strict=True)
    rows[title] = [models[phase].draw(image, answer) for image, answer in both]
  pictures = [picture for row in rows.values() for picture in row]
  captions = [title for title, row in rows.items() for _ in row]
  found = rtune.gallery(pictures, captions, columns=flags.images, side=200)
  found.save(pathlib.Path(flags.picture), optimize=True)


if __name__ == "__main__":
  main()
