"""Label maps on pictures: colored by class, with a legend of the classes that occur.

Dimension key:
  H, W: height and width of an image in pixels
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageDraw

from rtune.display.draw import class_color, readable_scale, shortened
from rtune.display.draw_segments import paint
from rtune.display.fonts import legible, load_font

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def draw_labels(
  image: UInt8[np.ndarray, "h w 3"],
  labels_HW: Integer[np.ndarray, "_ _"],
  classes: Sequence[str] = (),
  *,
  scale: int | None = None,
) -> UInt8[np.ndarray, "h2 w2 3"]:
  """The image, enlarged `scale` times, with its classes in color, above their names.

  Classes are parted by a line. What nobody has labeled stays as it is, only darker.

  Args:
    image: RGB; it stays as it is.
    labels_HW: class of each pixel; negative where nobody says.
    classes: names; a class without one is shown as its number.
    scale: how many pixels each pixel becomes. Default: as many as make the longer side about 400
      pixels, so 1 for photographs.

  Raises:
    ValueError: image and map differ in size.
  """
  if image.shape[:2] != labels_HW.shape:
    raise ValueError(f"image {image.shape[:2]}, map {labels_HW.shape}: they must agree")
  shown = np.unique(labels_HW[labels_HW >= 0]).astype(np.int64)
  segments_HW = np.where(labels_HW >= 0, np.searchsorted(shown, labels_HW) + 1, 0)
  scale = scale or readable_scale(*image.shape[:2])
  picture = paint(image, segments_HW, shown, scale)
  names = [legible(classes, k) for k in shown.tolist()]
  return _with_legend(picture, names, shown.tolist())


def _with_legend(
  picture: UInt8[np.ndarray, "h w 3"], names: Sequence[str], labels: Sequence[int]
) -> UInt8[np.ndarray, "h2 w 3"]:
  """Below the picture, a square of its color before each name, as many in a row as fit."""
  height, width = picture.shape[:2]
  font = load_font(max(14, round(max(height, width) / 40)), "".join(names))
  tall, pad = round(font.size * 1.4), round(font.size / 2)
  square = round(font.size)
  names = [shortened(name, font, max(1, width - 3 * pad - square)) for name in names]
  places, x, row = [], pad, 0
  for name in names:
    wide = square + round(font.getlength(name)) + 2 * pad
    if x > pad and x + wide > width:
      x, row = pad, row + 1
    places.append((x, row))
    x += wide
  below = tall * (row + 1) + pad if names else 0
  canvas = Image.new("RGB", (width, height + below), _WHITE)
  canvas.paste(Image.fromarray(picture), (0, 0))
  brush = ImageDraw.Draw(canvas)
  for name, label, (left, row) in zip(names, labels, places, strict=True):
    middle = height + (pad + tall * (2 * row + 1)) // 2
    top = middle - square // 2
    brush.rectangle((left, top, left + square - 1, top + square - 1), fill=class_color(label))
    brush.text((left + square + pad // 2, middle), name, fill=_BLACK, font=font, anchor="lm")
  return np.array(canvas)
