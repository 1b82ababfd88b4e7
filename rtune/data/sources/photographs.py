"""Photographs without annotation, such as colorization learns from, checked before training."""

import os
import pathlib
from collections.abc import Sequence

from rtune.data.files import coco_json, file_names, folder, image_files, validate
from rtune.data.files.images import MAX_PIXELS, color_spread, read_image
from rtune.data.files.threads import in_threads
from rtune.data.source import Example


class Photographs:
  """A `Source` of photographs in color: a folder, a list of files, or the images of a COCO JSON.

  What is transparent is put on white. Gray photographs teach that all is gray, so they are left out
  and counted.

  Attributes:
    paths: of the files, in the order of the source.
    warnings: what was left out, one line for each kind; empty if nothing was.
  """

  def __init__(
    self,
    annotations: str,
    images: str = "",
    *,
    split: str = "",
    holdout: float = 0.1,
    least_color: float = 3.0,
    max_pixels: int = MAX_PIXELS,
    allow_outside_root: bool = False,
    check_images: bool = True,
  ):
    """Finds the photographs and looks at each.

    Args:
      annotations: a folder, searched with all that is in it; or a JSON with the list `images` of
        records with `file_name`, and with `id` if the images have numbers; or a text file with a
        name on each line.
      images: folder that the names of a JSON or a list start from. Empty: `info.image_root` of the
        JSON, from the JSON's own folder, or the file's own folder.
      split: "val" for a share of the photographs, "train" for the others, empty for all of them.
        Which is which follows from each name alone, and stays as photographs come and go.
      holdout: the share of "val".
      least_color: photographs with a smaller mean difference of largest and smallest of R, G, B
        (0..255) are gray. 0 keeps all and reads none of them: for large sets that are known.
      max_pixels: larger images are refused.
      allow_outside_root: also read images whose names or links lead out of the image folder, and
        an absolute `info.image_root`.
      check_images: look at the header of every image file now. Otherwise broken files come to
        light while training.

    Raises:
      UsageError: a split that does not exist.
      DataError: one report of all that is wrong.
    """
    folder.check_split("Photographs", split, holdout)
    annotations = os.path.expanduser(annotations)
    report = validate.Report(annotations)
    root, names, ids = _find(annotations, os.path.expanduser(images), allow_outside_root, report)
    self._max_pixels = max_pixels
    keep = [row for row, name in enumerate(names) if folder.in_split(name, split, holdout)]
    paths = image_files.locate(root, [names[row] for row in keep], allow_outside_root, report)
    if check_images:
      image_files.check(paths, max_pixels, report)
      image_files.warn_of_copies(paths, report)
    report.raise_errors()
    colored = _colored(paths, least_color, max_pixels, report)
    if not any(colored):
      what = f"{split} split of {len(names)} images" if split else f"{len(names)} images"
      kind = "sets without a photograph" + (" in color" if least_color > 0 else "")
      mend = "a larger `holdout` of both splits, such as 0.3" if names and not keep else "others"
      report.error(kind, f"Give more, or {mend}", what)
    report.raise_errors()
    self.paths = [path for path, kept in zip(paths, colored, strict=True) if kept]
    self._image_ids = [ids[row] for row, kept in zip(keep, colored, strict=True) if kept]
    self.warnings = report.warnings()

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> Example:
    """Reads one photograph; raises DataError, naming the file, if that fails."""
    if not 0 <= index < len(self):
      raise IndexError(f"image {index} of {len(self)}")
    image = read_image(self.paths[index], self._max_pixels)
    return {"image": image, "image_id": self._image_ids[index]}


def _find(
  where: str, images: str, allow_outside: bool, report: validate.Report
) -> tuple[str, list[str], list[int]]:
  """The folder that names start from, the names, and the numbers of the images."""
  if os.path.isdir(where):
    root = pathlib.Path(where)
    names = [path.relative_to(root).as_posix() for path in folder.images_in(root, report)]
    return where, names, _numbers(names)
  beside = images or os.path.dirname(where) or "."
  if not where.lower().endswith(".json"):
    names = validate.load_lines(where)
    return beside, names, _numbers(names)
  data = validate.load_json(where)
  records = validate.sections(data, ("images",), report)["images"]
  names = file_names.of_records(records, report)
  root = images or coco_json.image_root(where, data, allow_outside, report)
  # Lists of photographs often have no ids, for nothing refers to them.
  has_ids = any("id" in record for record in records)
  ids = coco_json.image_ids(records, report).numbers if has_ids else _numbers(names)
  report.raise_errors()
  return root, names, ids


def _numbers(names: Sequence[str]) -> list[int]:
  return folder.image_ids([pathlib.Path(name) for name in names])


def _colored(
  paths: Sequence[str], least_color: float, max_pixels: int, report: validate.Report
) -> list[bool]:
  """Which photographs are in color; gray ones are warnings, unreadable ones errors."""
  if least_color <= 0:
    return [True] * len(paths)
  spreads = in_threads(lambda path: color_spread(path, max_pixels), paths)
  for path, spread in zip(paths, spreads, strict=True):
    if isinstance(spread, str):
      report.error("image files that cannot be read", "Each as told", f"{path!r} {spread}")
    elif spread < least_color:
      kind = f"gray photographs, of {len(paths)} in all"
      report.warn(kind, "Left out; set least_color=0 to keep them", repr(path))
  return [isinstance(spread, float) and spread >= least_color for spread in spreads]
