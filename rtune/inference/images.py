"""Images without annotation as a source: files, arrays, Pillow's images."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from rtune.data.files.folder import image_ids
from rtune.data.files.images import MAX_PIXELS, as_rgb, read_image
from rtune.data.source import Example
from rtune.errors import DataError
from rtune.tasks.task import Task, view

AnyImage = str | os.PathLike[str] | Image.Image | np.ndarray
PROBLEM = "problem"  # of an example: why its image could not be read; "" where it could


class Images:
  """A `Source` of images that nobody has annotated; files give their numbers as ids.

  Args:
    images: files, images of Pillow, or arrays [H, W, 3] of uint8; gray ones as [H, W].
    max_pixels: larger files are refused.
    tell: whether an image that cannot be read is an example that says so under `PROBLEM`.

  Raises:
    DataError: from reading an image that cannot be read, where these do not tell.
  """

  def __init__(
    self,
    task: Task,
    images: Sequence[AnyImage],
    max_pixels: int = MAX_PIXELS,
    tell: bool = False,
  ):
    self._task, self._images, self._max_pixels, self._tell = task, images, max_pixels, tell
    places = range(len(images))
    paths = [
      pathlib.Path(one) if isinstance(one, str | os.PathLike) else pathlib.Path(f"image {place}")
      for place, one in zip(places, images, strict=True)
    ]
    self._ids = image_ids(paths)

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, index: int) -> Example:
    problem = ""
    try:
      image = pixels_of(self._images[index], self._max_pixels)
    except DataError as error:
      if not self._tell:
        raise
      image, problem = np.zeros((1, 1, 3), np.uint8), str(error)
    raw = view(self._task).unlabeled(image, self._ids[index])
    return {**raw, "size": image.shape[:2], PROBLEM: problem}


def pixels_of(image: AnyImage, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """Any image as RGB values [H, W, 3] of uint8; DataError where it is none."""
  if isinstance(image, str | os.PathLike):
    return read_image(image, max_pixels)
  return as_rgb(image)
