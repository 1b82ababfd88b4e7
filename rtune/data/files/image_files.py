"""The image files that annotations name: where they are, and a look at each of their headers."""

import functools
import os
from collections.abc import Sequence

from rtune.data.files import copies, file_names, validate
from rtune.data.files.images import check_image
from rtune.data.files.threads import in_threads


def locate(
  root: str, names: Sequence[str], allow_outside_root: bool, report: validate.Report
) -> list[str]:
  """Paths of the image files, without those that lead out of `root`, also by links: errors."""
  if not os.path.isdir(root):
    mend = "Set `images` to the folder that the file names start from"
    report.error("image folders that do not exist", mend, repr(root))
    report.raise_errors()
  paths = [os.path.join(root, name) for name in file_names.existing(root, names, report)]
  if allow_outside_root:
    return paths
  real_root = os.path.realpath(root)

  @functools.cache
  def inside(path: str) -> bool:
    return os.path.commonpath([real_root, os.path.realpath(path)]) == real_root

  found = []
  for name, path in zip(names, paths, strict=True):
    # Folders are resolved once each, files only if they are links: 118,000 files take a second.
    if inside(os.path.dirname(path)) and (not os.path.islink(path) or inside(path)):
      found.append(path)
    else:
      mend = "Correct them, or set allow_outside_root if you trust this file"
      report.error(f"file names that lead out of the image folder {root}", mend, repr(name))
  return found


def check(
  paths: Sequence[str], max_pixels: int, report: validate.Report
) -> list[tuple[int, int] | None]:
  """(height, width) of each image file by its header; files that cannot be used are errors."""

  results = in_threads(lambda path: check_image(path, max_pixels), paths)
  for path, result in zip(paths, results, strict=True):
    if isinstance(result, str):
      kind = f"image files, of {len(paths)} in all, that cannot be used"
      report.error(kind, "Each as told", f"{path!r} {result}{file_names.hint(path, result)}")
  return [None if isinstance(result, str) else result for result in results]


def warn_of_copies(paths: Sequence[str], report: validate.Report) -> None:
  """Warnings for files that are listed twice, and for others with the same bytes."""
  listed = set(paths)
  if len(listed) < len(paths):
    seen: set[str] = set()
    for path in paths:
      if path in seen:
        mend = "Each time counts as an image of its own; list each file once"
        report.warn("image files that are listed before", mend, repr(path))
      seen.add(path)
  for first, *others in copies.find(sorted(listed)):
    for other in others:
      mend = "Each counts as an image of its own; remove the copies"
      report.warn("image files that are copies of another", mend, f"{other!r} of {first!r}")
