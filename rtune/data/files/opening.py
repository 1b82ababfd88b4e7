"""Opens image files as far as their header, and explains what is wrong with those that fail."""

import functools
import importlib.util
import os
import stat
import warnings
from typing import BinaryIO

from PIL import Image, features

from rtune.data.files import signatures

MAX_PIXELS = 50_000_000

# A closed list: some of Pillow's other readers start programs (EPS) or need a whole file to say no.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")
_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".tif", ".bmp")


class RefusedError(Exception):
  """A file that is refused before Pillow decodes it; the message is the full explanation."""


@functools.cache
def formats() -> tuple[str, ...]:
  """What is read, by Pillow's names: AVIF where Pillow has it, HEIC where pillow-heif is there."""
  found = _FORMATS
  if "avif" in features.modules and features.check_module("avif"):
    found += ("AVIF",)
  if importlib.util.find_spec("pillow_heif"):
    importlib.import_module("pillow_heif").register_heif_opener()
    found += ("HEIF",)
  return found


def open_header(file: BinaryIO, max_pixels: int) -> Image.Image:
  """Opens an image without decoding it; RefusedError where that would be useless or too much."""
  status = os.fstat(file.fileno())
  if not stat.S_ISREG(status.st_mode):
    raise RefusedError("is not a file. Name an image file")
  if status.st_size == 0:
    raise RefusedError("is empty (0 bytes). Copy it again or leave it out")
  _silence_size_warning()
  try:
    image = Image.open(file, formats=formats())
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise RefusedError(f"is refused by Pillow: {error} Scale it down or leave it out") from error
  except Image.UnidentifiedImageError as error:
    file.seek(0)
    kinds = "JPEG, PNG, GIF, BMP, PPM, WEBP or TIFF"
    unknown = f"is not an image, or damaged from its start. Give it as {kinds}"
    raise RefusedError(signatures.kind_of(file.read(signatures.HEAD)) or unknown) from error
  width, height = image.size
  if width * height > max_pixels:
    raise RefusedError(
      f"has {width} x {height} pixels, more than max_pixels = {max_pixels:,}."
      " Scale it down, leave it out or raise max_pixels"
    )
  return image


@functools.cache
def _silence_size_warning() -> None:
  # The limit above decides; Pillow would print its own opinion beside it. Set once, because
  # warnings.catch_warnings is not safe in threads.
  warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def explain(error: Exception, path: str | os.PathLike[str]) -> str:
  """What to say of a file after its name, with a mend."""
  if isinstance(error, RefusedError):
    return str(error)
  if isinstance(error, FileNotFoundError):
    other = _beside(os.fspath(path))
    hint = f", but {other!r} does" if other else ""
    return f"does not exist{hint}. Correct the name or the image folder"
  if isinstance(error, OSError) and error.errno is not None:
    return f"cannot be opened ({error.strerror}). Make it a readable image file"
  return f"cannot be decoded ({error}). Copy it again or leave it out"


def _beside(path: str) -> str:
  """A file of the same name but for its ending, if there is one."""
  stem = os.path.splitext(path)[0]
  others = (stem + ending for ending in _ENDINGS)
  return next((os.path.basename(other) for other in others if os.path.isfile(other)), "")
