"""What pictures to restore must be, looked at before training; what is wrong goes into a report."""

from collections.abc import Sequence

from rtune.data.files import images, validate
from rtune.data.files.threads import in_threads

# What `images.conversions` finds -> kind and mend of a warning.
_CONVERTED = {
  "16 bits": ("images with 16 bits a channel", "Read as 8 bits; make 8-bit copies to choose how"),
  "alpha": ("images with an alpha channel", "Put on white; save them opaque"),
}

Size = tuple[int, int] | None  # (height, width) in pixels; None: the file cannot be read


def warn_of_conversions(paths: Sequence[str], max_pixels: int, report: validate.Report) -> None:
  """Warnings for files that are more than 8-bit gray or color."""
  found = in_threads(lambda path: images.conversions(path, max_pixels), paths)
  for path, names in zip(paths, found, strict=True):
    for name in names:
      report.warn(*_CONVERTED[name], repr(path))


def check_sides(
  paths: Sequence[str], sizes: Sequence[Size], least: int, report: validate.Report
) -> None:
  """Errors for images with a side below `least`; a warning for a set of one image."""
  for path, size in zip(paths, sizes, strict=True):
    if size and min(size) < least:
      kind = f"images smaller than a patch of {least} x {least} pixels"
      mend = "Leave them out, or take smaller patches"
      report.error(kind, mend, f"{path!r} is {size[1]} x {size[0]}")
  if len(paths) == 1:
    report.warn("sets of one image", "It will be learned by heart; add more", repr(paths[0]))


def warn_of_trimming(
  paths: Sequence[str], sizes: Sequence[Size], multiple: int, report: validate.Report
) -> None:
  """Warnings for images whose sides are no multiple of a scale."""
  for path, size in zip(paths, sizes, strict=True):
    if size and (size[0] % multiple or size[1] % multiple):
      kind = f"images with a side that is no multiple of {multiple}"
      mend = "Cut at the right and below; crop them to choose what is cut"
      report.warn(kind, mend, f"{path!r} is {size[1]} x {size[0]}")
