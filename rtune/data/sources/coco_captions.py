"""Images with captions from a COCO caption file, checked as a whole before training starts."""

import os

from rtune.data.files import coco_json, file_names, image_files, karpathy, layouts, validate
from rtune.data.files.images import MAX_PIXELS, read_image
from rtune.data.source import Example


class CocoCaptions:
  """A `CaptionSource` from a COCO JSON file and a folder of images.

  Captions are as they are in the file, in its order. Images without a caption are left out, and so
  are captions of images that the file does not list, as in cuts of COCO; both are counted.

  Attributes:
    paths: of the image files, in the order of the source.
    warnings: what was found and put right, one line for each kind; empty if nothing was.
  """

  def __init__(
    self,
    annotations: str,
    images: str = "",
    *,
    split: str = "",
    max_pixels: int = MAX_PIXELS,
    allow_outside_root: bool = False,
    check_images: bool = True,
  ):
    """Reads and checks everything but the pixels.

    Args:
      annotations: COCO caption JSON (`images`; `annotations` with `image_id` and `caption`), or
        Karpathy's (`images` with `sentences`).
      images: folder that the file names start from. Empty: `info.image_root` of the JSON, from
        the JSON's own folder, or that folder itself.
      split: of Karpathy's file: train, with his restval, val or test; empty: all.
      max_pixels: larger images are refused.
      allow_outside_root: also read images whose names or links lead out of the image folder, and
        an absolute `info.image_root`.
      check_images: look at the header of every image file now. Otherwise broken files come to
        light while training.

    Raises:
      DataError: one report of all that is wrong.
    """
    annotations = os.path.expanduser(annotations)
    report = validate.Report(annotations)
    data = validate.load_json(annotations)
    if images:
      root = os.path.expanduser(images)
    else:
      known = data if isinstance(data, dict) else {}
      root = coco_json.image_root(annotations, known, allow_outside_root, report)
    if layouts.is_karpathy(data):
      data = karpathy.as_coco(data, root, split, report)
    parts = validate.sections(data, ("images", "annotations"), report)
    self._max_pixels = max_pixels
    numbers = coco_json.image_ids(parts["images"], report)
    names = file_names.of_records(parts["images"], report)
    report.raise_errors()
    ids = numbers.numbers
    captions = coco_json.captions_of_images(parts["annotations"], numbers, report)
    keep = [row for row, own in enumerate(captions) if own]
    for row, own in enumerate(captions):
      if not own:
        report.warn("images without a caption", "Left out", f"image {ids[row]}")
    if not keep:
      report.error("files without a single caption", "Give the file of captions", annotations)
    paths = image_files.locate(root, [names[row] for row in keep], allow_outside_root, report)
    if check_images:
      image_files.check(paths, max_pixels, report)
    report.raise_errors()
    if check_images:
      image_files.warn_of_copies(paths, report)
    self._image_ids, self.paths = [ids[row] for row in keep], paths
    self._captions = [captions[row] for row in keep]
    self.warnings = report.warnings()

  def references(self, limit: int = 0) -> list[tuple[str, ...]]:
    """The captions of the first `limit` images; 0: of all."""
    return self._captions[: limit or len(self)]

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> Example:
    """Reads one image; raises DataError, naming the file, if that fails."""
    if not 0 <= index < len(self):
      raise IndexError(f"image {index} of {len(self)}")
    return {
      "image": read_image(self.paths[index], self._max_pixels),
      "image_id": self._image_ids[index],
      "captions": self._captions[index],
    }
