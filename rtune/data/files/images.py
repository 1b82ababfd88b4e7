"""Read image files of any common kind as 8-bit RGB, or say in one line why that is impossible."""

import os
from typing import BinaryIO

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import ExifTags, Image

from rtune.data.files.opening import MAX_PIXELS, RefusedError, explain, open_header
from rtune.errors import DataError

_SMALL = 32  # pixels: side of what an image's color is told by

# What a complete file of this format ends with. Other endings are settled by decoding the file.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}

# EXIF orientation -> (swap the axes, then flip up-down, then flip left-right).
_TURNS = {
  2: (False, False, True),
  3: (False, True, True),
  4: (False, True, False),
  5: (True, False, False),
  6: (True, False, True),
  7: (True, True, True),
  8: (True, True, False),
}


def read_image(
  path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w 3"]:
  """Reads one image file as the picture that a viewer shows.

  The EXIF orientation is applied, transparent pixels are put on white, 16-bit values are scaled to
  8 bits, and of an animation the first frame is taken.

  Args:
    path: JPEG, PNG, GIF, BMP, PPM, WebP or TIFF file; AVIF and HEIC where Pillow can read them.
    max_pixels: larger images are refused by their header. Pillow's own limit of 179 million
      pixels (`PIL.Image.MAX_IMAGE_PIXELS`) holds besides.

  Returns:
    RGB values, writable.

  Raises:
    DataError: the file is missing, empty, damaged, too large or not an image.
  """
  try:
    with open(path, "rb") as file, open_header(file, max_pixels) as image:
      turn = _turn(image)
      image.load()
      return _apply_turn(_rgb(image), turn)
  except Exception as error:  # Pillow's readers raise nearly anything on damaged files
    raise DataError(f"{os.fspath(path)!r} {explain(error, path)}") from error


def as_rgb(image: Image.Image | np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
  """An image in memory as `read_image` gives those of files.

  Args:
    image: Pillow's, or an array [H, W], [H, W, 3] or, with transparency, [H, W, 4] of uint8.

  Raises:
    DataError: an array of another shape or dtype, or an image without pixels.
  """
  if isinstance(image, np.ndarray):
    deep = image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in (3, 4))
    if image.dtype != np.uint8 or not deep or not image.size:
      raise DataError(
        f"an array {list(image.shape)} of {image.dtype} is no image; give [height, width, 3] of "
        "uint8, with values from 0 to 255."
      )
    image = Image.fromarray(image)
  try:
    return _apply_turn(_rgb(image), _turn(image))
  except Exception as error:  # as in read_image
    raise DataError(f"the image {explain(error, '')}") from error


def read_raw(
  path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, *, by_color: bool = False
) -> Integer[np.ndarray, "h w *c"]:
  """Reads the numbers of one image file as they stand, as masks need them; see `raw_values`.

  Raises:
    DataError: as `read_image`.
  """
  try:
    with open(path, "rb") as file, open_header(file, max_pixels) as image:
      return raw_values(image, by_color)
  except Exception as error:  # as in read_image
    raise DataError(f"{os.fspath(path)!r} {explain(error, path)}") from error


def raw_values(image: Image.Image, by_color: bool = False) -> Integer[np.ndarray, "h w *c"]:
  """Gray values or indices of a palette [h, w] as the file has them; of others R, G, B [h, w, 3].

  Args:
    image: opened, not yet decoded.
    by_color: of a file with a palette, its colors.
  """
  if image.mode in ("L", "1", "I", "I;16") or (image.mode == "P" and not by_color):
    # Pillow stretches gray of 2 and 4 bits to 0..255, as it is for pictures.
    layout = image.tile[0][3] if image.tile else ""
    step = {"L;2": 85, "L;4": 17}.get(layout, 1) if isinstance(layout, str) else 1
    values = np.asarray(image)
    return values.astype(np.uint8) if values.dtype == bool else values // step
  return np.array(image.convert("RGB"))


def check_image(
  path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS
) -> tuple[int, int] | str:
  """Looks at an image file's header and its last bytes, without decoding it if these are sound.

  Damage between header and end goes unseen here; `read_image` reports it.

  Returns:
    (height, width) in pixels as `read_image` gives them, or what is wrong and how to mend it.
  """
  try:
    with open(path, "rb") as file, open_header(file, max_pixels) as image:
      turn = _turn(image)
      if not _ends_well(file, image.format):
        image.load()
      width, height = image.size
      return (width, height) if turn and turn[0] else (height, width)
  except Exception as error:
    return explain(error, path)


def conversions(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> tuple[str, ...]:
  """What `read_image` does beyond decoding, by the header: "16 bits" made 8, "alpha" made white.

  Of a file that cannot be opened nothing is said; `check_image` does that.
  """
  try:
    with open(path, "rb") as file, open_header(file, max_pixels) as image:
      packed = str(image.tile[0][3]) if image.tile else ""  # "RGB;16B" of a PNG
      deep = image.mode.startswith("I") or ";16" in packed
      found = (("16 bits", deep), ("alpha", _has_alpha(image)))
      return tuple(name for name, there in found if there)
  except Exception:
    return ()


def color_spread(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> float | str:
  """How colored an image is: mean of largest - smallest of R, G, B, 0 to 255, of a small version.

  A gray one has 0, with a JPEG's rounding below 1; photographs in color have 5 to 100. JPEG files
  are decoded at an eighth of their size, so that this takes about a millisecond.

  Returns:
    The number, or what is wrong and how to mend it, as `check_image` does.
  """
  try:
    with open(path, "rb") as file, open_header(file, max_pixels) as image:
      image.draft("RGB", (_SMALL, _SMALL))
      small = Image.fromarray(_rgb(image)).resize((_SMALL, _SMALL), Image.Resampling.BOX)
      pixels = np.asarray(small).astype(np.float32)
  except Exception as error:
    return explain(error, path)
  return float(np.mean(pixels.max(axis=-1) - pixels.min(axis=-1)))


def _ends_well(file: BinaryIO, image_format: str | None) -> bool:
  end = _ENDS.get(image_format or "")
  if end is None:
    return image_format == "WEBP"  # Pillow has checked its length when opening it
  position = file.tell()
  file.seek(-len(end), os.SEEK_END)
  found = file.read()
  file.seek(position)
  return found == end


def _turn(image: Image.Image) -> tuple[bool, bool, bool] | None:
  # Pillow turns TIFF files by itself. Asking a PNG without EXIF for it would decode the file.
  if image.format == "TIFF" or "exif" not in image.info:
    return None
  try:
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
  except Exception:  # a damaged EXIF block is no reason to lose the picture
    return None


def _apply_turn(
  pixels: UInt8[np.ndarray, "h w 3"], turn: tuple[bool, bool, bool] | None
) -> UInt8[np.ndarray, "h2 w2 3"]:
  if turn is None:
    return pixels
  swap, flip_y, flip_x = turn
  pixels = pixels.swapaxes(0, 1) if swap else pixels
  return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
  if image.mode == "F":
    raise RefusedError("holds floating-point values. Convert it to 8 bits per channel")
  if image.mode.startswith("I"):
    return _rgb_from_16_bits(np.asarray(image))
  if _has_alpha(image):
    # What lies under transparent pixels is often garbage; annotators saw a plain background.
    layers = image.convert("RGBA")
    image = Image.new("RGB", image.size, "white")
    image.paste(layers, mask=layers.getchannel("A"))
  return np.array(image.convert("RGB"))


def _has_alpha(image: Image.Image) -> bool:
  return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _rgb_from_16_bits(grey: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
  if grey.min() < 0 or grey.max() > 65535:
    raise RefusedError("holds values beyond 16 bits. Convert it to 8 bits per channel")
  scaled = np.rint(grey / np.float32(257)).astype(np.uint8)  # Pillow's own conversion clips at 255
  return np.repeat(scaled[:, :, None], 3, axis=2)
