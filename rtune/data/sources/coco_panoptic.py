"""Images cut into segments from a COCO panoptic file, checked as a whole before training starts."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from rtune.data.files import (
  coco_doubts,
  coco_json,
  file_names,
  id_masks,
  image_files,
  label_pairs,
  panoptic_json,
  validate,
)
from rtune.data.files.images import MAX_PIXELS, read_image
from rtune.data.files.threads import in_threads
from rtune.data.source import Example
from rtune.errors import DataError

_UNKNOWN = "masks with ids that the file does not list"
_ABSENT = "segments without a pixel in their mask"


class CocoPanoptic:
  """A `SegmentSource` from a COCO JSON file, masks of segment ids, and a folder of images.

  It counts segments, too. Images without an annotation are left out and counted.

  Attributes:
    classes: category names, ordered by category id.
    category_ids: the file's category ids, same order; label k is `category_ids[k]`.
    things: whether a category has instances (isthing), same order; the others are stuff.
    paths: of the image files, in the order of the source.
    warnings: what was found and put right, one line for each kind; empty if nothing was.
  """

  def __init__(
    self,
    annotations: str,
    images: str = "",
    masks: str = "",
    *,
    max_pixels: int = MAX_PIXELS,
    allow_outside_root: bool = False,
    check_images: bool = True,
    check_masks: int = 200,
  ):
    """Reads and checks what it can without decoding every mask.

    Args:
      annotations: COCO panoptic JSON (`images`, `annotations` with `segments_info`, `categories`
        with `isthing`).
      images: folder that the images' file names start from. Empty: `info.image_root` of the JSON,
        from the JSON's own folder, or that folder itself.
      masks: folder of the masks. Empty: `info.mask_root`, or the folder beside the JSON that is
        called like it (COCO's way), or the JSON's own.
      max_pixels: larger images are refused.
      allow_outside_root: also read files whose names or links lead out of these folders, and
        absolute roots in `info`.
      check_images: look at the header of every image and every mask now. Otherwise broken files
        come to light while training.
      check_masks: compare the ids of so many masks with the JSON now, from the first on; all others
        when they are read (COCO's 118,000 would take ten minutes).

    Raises:
      DataError: one report of all that is wrong.
    """
    annotations = os.path.expanduser(annotations)
    report = validate.Report(annotations)
    data = validate.load_json(annotations)
    parts = validate.sections(data, ("images", "annotations", "categories"), report)
    self._max_pixels = max_pixels
    records = parts["annotations"]
    known = coco_json.categories(parts["categories"], panoptic_json.annotated(records), report)
    self.category_ids, self.classes = known.ids, known.names
    self.things = panoptic_json.things(parts["categories"], known.rows, report)
    numbers = coco_json.image_ids(parts["images"], report)
    names = file_names.of_records(parts["images"], report)
    found = panoptic_json.annotations(records, numbers, known.labels, report)
    if len(names) < len(numbers.numbers):
      report.raise_errors()
    coco_doubts.warn_of_names(known, report)
    keep = sorted(found)
    for row, image_id in enumerate(numbers.numbers):
      if row not in found:
        report.warn("images without an annotation", "Left out", f"image {image_id}")
    if not keep:
      report.error("files without an annotated image", "Give a panoptic file", annotations)
    crowds = [crowd for annotation in found.values() for crowd in annotation.crowd]
    if keep and all(crowds):
      kind = "in which every segment is a crowd" if crowds else "without a single segment"
      report.error(f"files {kind}", "Correct segments_info", annotations)
    self._image_ids = [numbers.numbers[row] for row in keep]
    self._annotations = [found[row] for row in keep]
    names = [names[row] for row in keep]
    self._locate(annotations, data, names, (images, masks), allow_outside_root, report)
    bad = self._check_headers(report) if check_images else set()
    self._check_ids(check_masks, bad, report)
    report.raise_errors()
    self.warnings = report.warnings()

  def segment_counts(self) -> Int[np.ndarray, " i"]:
    """Segments of each image."""
    return np.array([len(annotation.ids) for annotation in self._annotations], np.int64)

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> Example:
    """Reads one image and its mask; raises DataError, naming the file, if that fails."""
    if not 0 <= index < len(self):
      raise IndexError(f"image {index} of {len(self)}")
    image = read_image(self.paths[index], self._max_pixels)
    rest = self.segments(index)
    size = rest["segments"].shape
    if size != image.shape[:2]:
      raise DataError(
        label_pairs.differ(self._masks[index], size, self.paths[index], image.shape[:2])
      )
    return {"image": image, "image_id": self._image_ids[index], **rest}

  def segments(self, index: int) -> Example:
    """What an example has beside its image: `segments`, `labels` and `crowd`."""
    path, annotation = self._masks[index], self._annotations[index]
    mask = id_masks.read_mask(path, annotation.ids, self._max_pixels)
    for kind, wrong in ((_UNKNOWN, mask.unknown), (_ABSENT, mask.absent)):
      if wrong:
        raise DataError(f"{path!r}: {kind}: {_listed(wrong)}. Mend the JSON or the mask.")
    return {
      "segments": mask.segments,
      "labels": np.array(annotation.labels, np.int32),
      "crowd": np.array(annotation.crowd, bool),
    }

  def _locate(
    self,
    annotations: str,
    data: dict[str, Any],
    names: Sequence[str],
    folders: tuple[str, str],
    outside: bool,
    report: validate.Report,
  ) -> None:
    """Paths of the images of these names and of their masks; `folders` as given, maybe empty."""
    root, folder = (os.path.expanduser(given) for given in folders)
    root = root or coco_json.image_root(annotations, data, outside, report)
    folder = folder or panoptic_json.mask_root(annotations, data, outside, report)
    mask_names = [annotation.mask for annotation in self._annotations]
    self.paths = image_files.locate(root, names, outside, report)
    self._masks = image_files.locate(folder, mask_names, outside, report)
    if not len(self.paths) == len(self._masks) == len(names) > 0:
      report.raise_errors()

  def _check_headers(self, report: validate.Report) -> set[str]:
    """Sizes of images and masks, which must agree; returns the masks that cannot be used."""
    of_images = image_files.check(self.paths, self._max_pixels, report)
    of_masks = image_files.check(self._masks, self._max_pixels, report)
    image_files.warn_of_copies(self.paths, report)
    bad = set()
    sizes = zip(self._masks, of_masks, self.paths, of_images, strict=True)
    for mask, mask_size, path, size in sizes:
      problem = id_masks.problem_of(mask) if mask_size else ""
      if problem:
        report.error("files that are no masks of ids", "Each as told", f"{mask!r} {problem}")
      elif mask_size and size and mask_size != size:
        mend = "Resize masks with nearest neighbor, or give the photographs that they were made on"
        what = label_pairs.differ(mask, mask_size, path, size)
        report.error("masks of another size than their image", mend, what)
      if problem or not mask_size or label_pairs.claims_more(mask_size, size):
        bad.add(mask)
    return bad

  def _check_ids(self, limit: int, bad: set[str], report: validate.Report) -> None:
    """The ids of the first masks, but those that are known to be bad."""
    rows = [row for row in range(min(limit, len(self))) if self._masks[row] not in bad]

    def check(row: int) -> id_masks.Mask | str:
      try:
        return id_masks.read_mask(self._masks[row], self._annotations[row].ids, self._max_pixels)
      except DataError as error:
        return str(error)

    found = in_threads(check, rows)
    for row, mask in zip(rows, found, strict=True):
      path = self._masks[row]
      if isinstance(mask, str):
        report.error("masks that cannot be read", "Each as told", mask)
        continue
      if mask.unknown:
        mend = "List them in segments_info, or paint them 0"
        report.error(_UNKNOWN, mend, f"{path!r} (ids {_listed(mask.unknown)})")
      if mask.absent:
        report.error(_ABSENT, "Remove them", f"{path!r} (ids {_listed(mask.absent)})")


def _listed(ids: Sequence[int]) -> str:
  more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
  return ", ".join(map(str, ids[:5])) + more
