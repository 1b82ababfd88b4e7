"""Images in, results file and drawn pictures out.

python -m rtune.predict --workdir W IMAGES_AND_FOLDERS... --out D [--phase P] [--score_threshold T]

D/predictions.json  what the official scorer reads: COCO's results format, of boxes, captions or
                    segments, with masks in the folder D/predictions; of colorization, how colorful
                    each picture is; of a task of yours, its records
D/images.json       "images": [{id, file_name, width, height, drawing}] and "skipped"
D/*_predicted.*     the pictures; of colorization, the images in color, in their own size
"""

import argparse
import contextlib
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from rtune import commands
from rtune.config.build import check_plain
from rtune.data.files.folder import SUFFIXES, search
from rtune.data.files.images import MAX_PIXELS, read_image
from rtune.devices import processes
from rtune.display import console
from rtune.errors import DataError, StorageError, UsageError
from rtune.inference.images import PROBLEM, Images
from rtune.inference.model import Model, load
from rtune.store import naming, reading, run_files
from rtune.tasks.task import view
from rtune.training.restore import Restored
from rtune.training.setup import metrics_of

_MOST_PLAIN = 1000  # numbers of a field that predictions.json may hold


def find_images(names: Sequence[str], out: pathlib.Path) -> list[pathlib.Path]:
  """Files as they are named, folders with all that is in them, each file once.

  Raises:
    UsageError: nothing to do, or an image lies in the folder that is written to.
  """
  found, out = [], out.absolute()
  for name in names:
    path = pathlib.Path(name).expanduser().absolute()
    if path == out:
      raise UsageError(f"{path} is --out as well; write to a folder without images of yours.")
    if path.is_dir():
      images, passed_over = search(path, out)
      found += images
      for other, reason in passed_over:
        console.warn(f"passed over: {other} {reason}")
    else:
      found.append(path)
  for path in found:
    if out == path.parent:
      raise UsageError(f"{path} lies in --out; write to a folder without images of yours.")
  if not found:
    raise UsageError(f"no images in {', '.join(names)}; known are {', '.join(SUFFIXES)}.")
  return list(dict.fromkeys(found))


def predict_files(
  model: Model,
  paths: Sequence[pathlib.Path],
  out: pathlib.Path,
  threshold: float,
  beam: int = 1,
  batch_size: int | None = None,
  max_pixels: int = MAX_PIXELS,
) -> list[dict[str, str]]:
  """Writes predictions and pictures of image files; returns what was skipped and why.

  A drawing that cannot be written loses no prediction: it counts as skipped, too.
  """
  task = model.run.task
  # Nobody knows the truth of these images: what does no more than compare with it is left out.
  metrics = [m for m in metrics_of(model.run.config, task) if m.results or m.files]
  source = Images(task, paths, max_pixels, tell=True)
  draw = view(task).draw
  states, images, skipped, drawings = [metric.init() for metric in metrics], [], [], set()
  plain: list[dict[str, Any]] = []  # what is written where no metric knows a results format
  for one in model.judged(source, beam=beam, batch_size=batch_size):
    path, truth = paths[one.index], one.truth
    if truth[PROBLEM]:
      console.warn(f"skipped: {truth[PROBLEM]}")
      skipped.append({"file_name": str(path), PROBLEM: truth[PROBLEM]})
      continue
    record = _above(one.record, threshold)
    both = zip(metrics, states, strict=True)
    states = [metric.update(state, record, truth) for metric, state in both]
    if not any(metric.results for metric in metrics):
      plain.append(_plain(record))
    drawing = _drawing_name(path, truth["image_id"], drawings)
    try:
      for metric in (metric for metric in metrics if metric.files):
        run_files.save_pictures(out / "predictions.json", metric.files(record))
      _save(draw(read_image(path, max_pixels), record), out / drawing)
    except (OSError, ValueError) as error:
      problem = f"{str(path)!r}: its picture cannot be written ({error})"
      console.warn(problem)
      skipped.append({"file_name": str(path), PROBLEM: problem})
      drawing = ""
    height, width = truth["size"]
    images.append(
      {
        "id": truth["image_id"],
        "file_name": str(path),
        "width": width,
        "height": height,
        "drawing": drawing,
      }
    )
  both = zip(metrics, states, strict=True)
  results = next((metric.results(state) for metric, state in both if metric.results), plain)
  _write_json(out / "predictions.json", results)
  _write_json(out / "images.json", {"images": images, "skipped": skipped})
  return skipped


def _above(record: Mapping[str, Any], threshold: float) -> dict[str, Any]:
  """What of a record has at least this score; all of it where a task gives no scores."""
  if "scores" not in record:
    return dict(record)
  keep = record["scores"] >= threshold
  return {k: v[keep] if np.shape(v)[:1] == keep.shape else v for k, v in record.items()}


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
  """A record as JSON has it, without maps and pictures."""
  values = {name: np.asarray(value) for name, value in record.items()}
  return {name: value.tolist() for name, value in values.items() if value.size <= _MOST_PLAIN}


def _drawing_name(path: pathlib.Path, image_id: int, taken: set[str]) -> str:
  suffix = ".jpg" if path.suffix.lower() in (".jpg", ".jpeg") else ".png"
  ending = f"_predicted{suffix}"
  stem = path.stem
  # File systems may not tell upper from lower case.
  while naming.shortened(stem, ending).lower() in taken:
    stem += f"_{image_id}"
  name = naming.shortened(stem, ending)
  taken.add(name.lower())
  return name


def _save(picture: np.ndarray, path: pathlib.Path) -> None:
  options = {"quality": 92, "subsampling": 0} if path.suffix == ".jpg" else {}
  Image.fromarray(picture).save(path, **options)


def _write_json(path: pathlib.Path, value: Any) -> None:
  run_files.write_whole(path, json.dumps(value) + "\n")


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code, 3 if an image was skipped."""
  parser = commands.Parser(
    "rtune.predict",
    "Predicts on images and draws the predictions.",
    "rtune predict --workdir runs/recall --out predicted photos",
  )
  add = parser.add_argument
  add("--workdir", required=True, help="folder of the run")
  add("images", nargs="+", help="image files, and folders that are searched for them")
  add("--out", required=True, help="folder to write to")
  add("--phase", default="", help="whose weights; default: the last phase that is finished")
  parser.add_weights()
  add("--score_threshold", type=float, default=0.0, help="leave out what has a lower score")
  add("--beam", type=commands.positive, default=1, help="size of beam search; 1 = greedy")
  add("--passes", type=commands.positive, help="of a recursive restorer; default: as in training")
  add("--batch_size", type=commands.positive, help="images a step; default: as in evaluation")
  return reading.run(parser, args, _command, lambda flags: [flags.workdir], data=True, fetch=True)


def _command(flags: argparse.Namespace, data: Mapping[str, Any]) -> None:
  out = commands.local(flags.out, "--out")
  paths = find_images(flags.images, out)
  processes.start()
  given = {"weights": flags.weights, "trust": flags.trust, "passes": flags.passes}
  model = load(flags.workdir, flags.phase, **given)
  max_pixels = _max_pixels(model.run, data)
  try:
    out.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UsageError(f"--out {out} cannot be written ({error.strerror})") from error
  console.stage(f"{model.phase}: predicting on {len(paths)} images")
  given = out, flags.score_threshold, flags.beam, flags.batch_size, max_pixels
  try:
    skipped = predict_files(model, paths, *given)
  except OSError as error:
    raise StorageError(f"--out {out} cannot be written: {error}.") from error
  console.say(f"written to {out}: {len(paths) - len(skipped)} images")
  if skipped:
    hint = "; --data.max_pixels=... takes larger ones" if "max_pixels" in str(skipped) else ""
    raise DataError(
      f"{len(skipped)} of {len(paths)} images were skipped; see {out}/images.json{hint}"
    )


def _max_pixels(run: Restored, data: Mapping[str, Any]) -> int:
  """As given, else as the run's own data have it: images alone have no other argument."""
  for name, value in data.items():
    if name != "max_pixels":
      raise UsageError(f"--data.{name}: images without annotations take --data.max_pixels alone.")
    check_plain(int, value, "--data.max_pixels")
  return {"max_pixels": MAX_PIXELS, **run.config.data.val.args, **data}["max_pixels"]


if __name__ == "__main__":
  with contextlib.suppress(BrokenPipeError):
    sys.exit(main(sys.argv[1:]))
