"""Segments on pictures: colored by class, outlined, named.

Dimension key:
  H, W: height and width of an image in pixels
  K: segments
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Integer, UInt8
from PIL import Image, ImageDraw
from scipy import ndimage

from rtune.display.draw import class_color, contrast, readable_scale
from rtune.display.fonts import legible, load_font

_COLOR = 0.55  # share of the class's color in a segment; the rest is the image
_SIDE = 96  # of the coarse masks in which places for names are looked for


def draw_segments(
  image: UInt8[np.ndarray, "h w 3"],
  segments_HW: Integer[np.ndarray, "_ _"],
  labels_K: Int[np.ndarray, " k"],
  classes: Sequence[str] = (),
  *,
  scale: int | None = None,
) -> UInt8[np.ndarray, "h2 w2 3"]:
  """The image, enlarged `scale` times, with its segments in the colors of their classes.

  Neighbors are parted by a line, so that instances of one class can be counted. A name stands in
  the middle of its segment, the largest segments first, where there is room for it. Void stays as
  it is, only darker.

  Args:
    image: RGB; it stays as it is.
    segments_HW: 0 for void, k for the segment of row k - 1.
    labels_K: class of each segment.
    classes: names; a class without one is shown as its number.
    scale: how many pixels each pixel becomes. Default: as many as make the longer side about 400
      pixels, so 1 for photographs.

  Raises:
    ValueError: image and map differ in size, or the map has more segments than there are labels.
  """
  if image.shape[:2] != segments_HW.shape or segments_HW.max(initial=0) > len(labels_K):
    raise ValueError(
      f"image {image.shape[:2]}, map {segments_HW.shape} of {segments_HW.max(initial=0)} segments, "
      f"{len(labels_K)} labels: they must agree"
    )
  scale = scale or readable_scale(*image.shape[:2])
  canvas = Image.fromarray(paint(image, segments_HW, labels_K, scale))
  segments_HW = segments_HW.repeat(scale, 0).repeat(scale, 1)
  _name(canvas, segments_HW, labels_K, classes)
  return np.array(canvas)


def paint(
  image: UInt8[np.ndarray, "h w 3"],
  segments_HW: Integer[np.ndarray, "h w"],
  labels_K: Int[np.ndarray, " k"],
  scale: int,
) -> UInt8[np.ndarray, "h2 w2 3"]:
  """The image, enlarged, with segments in the colors of their classes and lines between them."""
  image, segments_HW = (x.repeat(scale, 0).repeat(scale, 1) for x in (image, segments_HW))
  palette = np.array([(0, 0, 0), *(class_color(int(label)) for label in labels_K)], np.float32)
  picture = image + _COLOR * (palette[segments_HW] - image)
  picture[_borders(segments_HW, max(1, round(max(segments_HW.shape) / 400)))] = 255
  return np.rint(picture).astype(np.uint8)


def _borders(segments_HW: Integer[np.ndarray, "h w"], width: int) -> Bool[np.ndarray, "h w"]:
  """Pixels within `width` of another segment, to the right and below."""
  border_HW = np.zeros(segments_HW.shape, bool)
  for step in range(1, width + 1):
    border_HW[:, :-step] |= segments_HW[:, :-step] != segments_HW[:, step:]
    border_HW[:-step] |= segments_HW[:-step] != segments_HW[step:]
  return border_HW


def _name(
  canvas: Image.Image,
  segments_HW: Integer[np.ndarray, "h w"],
  labels_K: Int[np.ndarray, " k"],
  classes: Sequence[str],
) -> None:
  """Writes names where they do not hide each other."""
  brush, size = ImageDraw.Draw(canvas), max(12, round(max(canvas.size) / 40))
  area = np.bincount(segments_HW.ravel(), minlength=len(labels_K) + 1)[1:]
  pad, taken = round(size / 6), np.zeros(segments_HW.shape, bool)
  for row in np.argsort(-area, kind="stable").tolist():
    label = int(labels_K[row])
    text = legible(classes, label)
    font = load_font(size, text)
    tall, wide = round(font.size * 1.2), round(font.getlength(text)) + 2 * pad
    if 2 * area[row] < tall * wide:  # the name would hide the segment
      continue
    y, x = _middle(segments_HW == row + 1)
    top = min(max(0, round(y - tall / 2)), max(0, canvas.size[1] - tall))
    left = min(max(0, round(x - wide / 2)), max(0, canvas.size[0] - wide))
    if taken[top : top + tall, left : left + wide].any():
      continue
    taken[top : top + tall, left : left + wide] = True
    color = class_color(label)
    brush.rectangle((left, top, left + wide - 1, top + tall - 1), fill=color)
    ink = contrast(color)
    brush.text((left + pad, top + tall / 2), text, fill=ink, font=font, anchor="lm")


def _middle(mask_HW: Bool[np.ndarray, "h w"]) -> tuple[float, float]:
  """A place in a mask that is about as far from its edge as any, on a coarse grid."""
  step = max(1, max(mask_HW.shape) // _SIDE)
  coarse = mask_HW[step // 2 :: step, step // 2 :: step]
  if not coarse.any():
    coarse, step = mask_HW, 1
  # Padded, since the edge of the picture is an edge.
  distance = ndimage.distance_transform_edt(np.pad(coarse, 1))
  places = np.argwhere(distance >= 0.9 * distance.max())
  inner = places[np.argmin(((places - places.mean(axis=0)) ** 2).sum(axis=1))]
  y, x = (inner - 0.5) * step
  return float(y), float(x)
