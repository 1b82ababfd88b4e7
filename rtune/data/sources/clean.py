"""Clean pictures without degraded ones, which the task degrades itself; checked before training."""

from rtune.data.files import image_files, picture_checks, validate
from rtune.data.files.images import MAX_PIXELS
from rtune.data.source import Example
from rtune.data.sources.photographs import Photographs
from rtune.errors import UsageError


class CleanPictures:
  """A `Source` of pictures, gray or in color: a folder, a list of files, or a COCO JSON's images.

  16-bit files are read as 8 bits and transparent pixels as white. `warnings` tells so.

  Attributes:
    paths: of the files, in the order of the source.
    warnings: what was found and put right, one line for each kind; empty if nothing was.
  """

  def __init__(
    self,
    annotations: str,
    images: str = "",
    *,
    split: str = "",
    holdout: float = 0.1,
    multiple: int = 1,
    times: int = 1,
    least_side: int = 1,
    max_pixels: int = MAX_PIXELS,
    allow_outside_root: bool = False,
    check_images: bool = True,
  ):
    """Finds the pictures and looks at each.

    Args:
      annotations: as of `Photographs`, such as images, split, holdout and allow_outside_root.
      multiple: sides are cut at the right and below to multiples of it: a scale of
        super-resolution, as its benchmarks do.
      times: every picture comes so many times on end, under different numbers: once for each of as
        many chains of evaluation.
      least_side: pictures with a shorter side are refused: the side of a patch.
      max_pixels: larger images are refused.
      check_images: look at the header of every file now. Otherwise broken files come to light
        while training.

    Raises:
      UsageError: a setting that makes no sense.
      DataError: one report of all that is wrong.
    """
    if not 1 <= multiple <= 16:
      raise UsageError(f"CleanPictures: multiple is {multiple}; it must lie between 1 and 16")
    if times < 1:
      raise UsageError(f"CleanPictures: times is {times}; it must be 1 or more")
    # Headers are looked at below, where their sizes are needed.
    self._photographs = Photographs(
      annotations,
      images,
      split=split,
      holdout=holdout,
      least_color=0.0,
      max_pixels=max_pixels,
      allow_outside_root=allow_outside_root,
      check_images=False,
    )
    self._multiple, self._times = multiple, times
    self.paths = self._photographs.paths
    report = validate.Report(annotations)
    if check_images:
      sizes = image_files.check(self.paths, max_pixels, report)
      image_files.warn_of_copies(self.paths, report)
      picture_checks.check_sides(self.paths, sizes, max(least_side, multiple), report)
      picture_checks.warn_of_conversions(self.paths, max_pixels, report)
      picture_checks.warn_of_trimming(self.paths, sizes, multiple, report)
    report.raise_errors()
    self.warnings = (*self._photographs.warnings, *report.warnings())

  def __len__(self) -> int:
    return self._times * len(self._photographs)

  def __getitem__(self, index: int) -> Example:
    """Reads one picture; raises DataError, naming the file, if that fails."""
    example = self._photographs[index // self._times]
    height, width = (side - side % self._multiple for side in example["image"].shape[:2])
    image_id = example["image_id"] * self._times + index % self._times
    return {**example, "image": example["image"][:height, :width], "image_id": image_id}
