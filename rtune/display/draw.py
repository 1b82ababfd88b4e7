"""Boxes on pictures, text below them, and pictures beside each other: for the report and predict.

Dimension key:
  H, W: height and width of an image in pixels
  N: boxes
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from rtune.display.fonts import legible, load_font

Color = tuple[int, int, int]
Corners = list[int]  # y0, x0, y1, x1 in pixels of the canvas

# Okabe and Ito's colors ("Color Universal Design", 2008), told apart with any color vision.
_HUES: tuple[Color, ...] = (
  (230, 159, 0),  # orange
  (86, 180, 233),  # sky blue
  (0, 158, 115),  # bluish green
  (240, 228, 66),  # yellow
  (0, 114, 178),  # blue
  (213, 94, 0),  # vermilion
  (204, 121, 167),  # reddish purple
)
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_READABLE_SIDE = 384


def class_color(label: int) -> Color:
  """The RGB color of a class: seven hues, then their light and their dark tones, then again."""
  tone = label // len(_HUES) % 3
  other, share = ((_BLACK, 0.0), (_WHITE, 0.55), (_BLACK, 0.45))[tone]
  hue = _HUES[label % len(_HUES)]
  return tuple(round(c * (1 - share) + o * share) for c, o in zip(hue, other, strict=True))


def draw_boxes(
  image: UInt8[np.ndarray, "h w 3"],
  boxes_N4: Float[np.ndarray, "n 4"],
  labels_N: Int[np.ndarray, " n"],
  scores_N: Float[np.ndarray, " n"] | None = None,
  classes: Sequence[str] = (),
  *,
  scale: int | None = None,
) -> UInt8[np.ndarray, "h2 w2 3"]:
  """The image, enlarged `scale` times, with its boxes, their class names and their scores.

  Args:
    image: RGB; it stays as it is.
    boxes_N4: (y0, x0, y1, x1) in pixels of `image`. Boxes that are not finite, or that are empty
      inside the image, are left out, as predictions may hold anything.
    labels_N: class of each box; negative ones are empty slots and are left out.
    scores_N: shown after the name; where there is no room for every name, the highest get it.
    classes: names; a class without one is shown as its number.
    scale: how many pixels each pixel becomes, without smoothing. Default: as many as make the
      longer side about 400 pixels, so 1 for photographs.

  Raises:
    ValueError: there are not as many labels, or scores, as boxes.
  """
  if len(labels_N) != len(boxes_N4) or (scores_N is not None and len(scores_N) != len(boxes_N4)):
    raise ValueError(
      f"{len(boxes_N4)} boxes, {len(labels_N)} labels, "
      f"{'no' if scores_N is None else len(scores_N)} scores: the numbers must agree"
    )
  height, width = image.shape[:2]
  scale = scale or readable_scale(height, width)
  canvas = Image.fromarray(image.repeat(scale, 0).repeat(scale, 1))
  brush = ImageDraw.Draw(canvas)
  limits = np.array([height, width, height, width])
  corners_N4 = np.rint(np.clip(np.nan_to_num(boxes_N4, nan=-1.0), 0, limits) * scale).astype(int)
  has_area_N = (corners_N4[:, :2] < corners_N4[:, 2:]).all(1) & np.isfinite(boxes_N4).all(1)
  order = np.arange(len(boxes_N4)) if scores_N is None else np.argsort(-scores_N, kind="stable")
  best_first = [int(i) for i in order if has_area_N[i] and labels_N[i] >= 0]
  for i in reversed(best_first):
    _outline(brush, corners_N4[i].tolist(), class_color(int(labels_N[i])), canvas.size)
  taken: list[Corners] = []
  for i in best_first:
    label = int(labels_N[i])
    name = legible(classes, label)
    text = name if scores_N is None else f"{name} {scores_N[i]:.2f}"
    _tag(brush, corners_N4[i].tolist(), text, class_color(label), canvas.size, taken)
  return np.array(canvas)


def draw_text(
  image: UInt8[np.ndarray, "h w 3"], lines: Sequence[str]
) -> UInt8[np.ndarray, "h2 w2 3"]:
  """The image, small ones enlarged as by `draw_boxes`, above its lines in black on white.

  Long lines are broken at spaces; one without is cut. What cannot be printed is left out.
  """
  scale = readable_scale(*image.shape[:2])
  picture = image.repeat(scale, 0).repeat(scale, 1)
  height, width = picture.shape[:2]
  font = load_font(max(14, round(max(height, width) / 28)), "".join(lines))
  pad = round(font.size / 2)
  rows = [row for line in lines for row in _broken(line, font, width - 2 * pad)]
  tall = round(font.size * 1.3)
  below = tall * len(rows) + 2 * pad if rows else 0
  canvas = Image.new("RGB", (width, height + below), _WHITE)
  canvas.paste(Image.fromarray(picture), (0, 0))
  brush = ImageDraw.Draw(canvas)
  for place, row in enumerate(rows):
    brush.text((pad, height + pad + tall * (place + 0.5)), row, fill=_BLACK, font=font, anchor="lm")
  return np.array(canvas)


def side_by_side(
  images: Sequence[UInt8[np.ndarray, "_ _ 3"]], captions: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
  """Images in a row on white, tops aligned, each below its caption; nothing is resized.

  Raises:
    ValueError: no image, or another number of captions than of images.
  """
  if not images or len(images) != len(captions):
    raise ValueError(f"{len(images)} images and {len(captions)} captions: one for each, at least 1")
  height = max(image.shape[0] for image in images)
  longest = max(max(image.shape[:2]) for image in images)
  font = load_font(max(12, round(longest / 28)), "".join(captions))
  gap = round(font.size / 2)
  top = round(font.size * 1.6)
  width = sum(image.shape[1] for image in images) + gap * (len(images) + 1)
  canvas = Image.new("RGB", (width, top + height + gap), _WHITE)
  brush = ImageDraw.Draw(canvas)
  x = gap
  for image, caption in zip(images, captions, strict=True):
    text = shortened(caption, font, image.shape[1])
    brush.text((x, top / 2), text, fill=_BLACK, font=font, anchor="lm")
    canvas.paste(Image.fromarray(image), (x, top))
    x += image.shape[1] + gap
  return np.array(canvas)


def readable_scale(height: int, width: int) -> int:
  """How many times an image of this size is enlarged where nobody says."""
  return max(1, math.ceil(_READABLE_SIDE / max(height, width, 1)))


def _broken(line: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
  """The line in rows of at most `width` pixels."""
  rows: list[str] = []
  for word in "".join(c if c.isprintable() else " " for c in line).split():
    longer = f"{rows[-1]} {word}" if rows else word
    if rows and font.getlength(longer) <= width:
      rows[-1] = longer
    else:
      rows.append(shortened(word, font, width))
  return rows


def _outline(
  brush: ImageDraw.ImageDraw, corners: Corners, color: Color, size: tuple[int, int]
) -> None:
  """A colored frame inside the box, in a thin line that parts it from any picture."""
  y0, x0, y1, x1 = corners
  # Pillow's corners are the last pixels inside. A small box stays a frame, not a blot.
  bottom, right = y1 - 1, x1 - 1
  stroke = min(max(3, round(max(size) / 320)), 1 + min(y1 - y0, x1 - x0) // 6)
  brush.rectangle((x0 - 1, y0 - 1, right + 1, bottom + 1), outline=contrast(color), width=1)
  brush.rectangle((x0, y0, right, bottom), outline=color, width=stroke)


def _tag(
  brush: ImageDraw.ImageDraw,
  corners: Corners,
  text: str,
  color: Color,
  size: tuple[int, int],
  taken: list[Corners],
) -> None:
  """The text on its color at the first free place above, below or, where it is large, inside a box.

  Where all are `taken` there is none: names on top of each other are read by nobody, and the frame
  still has the class's color. Adds its place to `taken`.
  """
  y0, x0, y1, _ = corners
  font = load_font(max(12, round(max(size) / 72)), text)
  pad = round(font.size / 6)
  tall, wide = round(font.size * 1.2), math.ceil(font.getlength(text)) + 2 * pad
  left = max(0, min(x0 - 1, size[0] - wide))
  tops = [y0 - 1 - tall, y1 + 1, *([y0] if y1 - y0 >= 2 * tall else [])]
  for top in tops:
    place = [top, left, top + tall, left + wide]
    if top >= 0 and place[2] <= size[1] and not any(_overlap(place, other) for other in taken):
      taken.append(place)
      brush.rectangle((left, top, left + wide - 1, top + tall - 1), fill=color)
      ink = contrast(color)
      brush.text((left + pad, top + tall / 2), text, fill=ink, font=font, anchor="lm")
      return


def _overlap(one: Corners, other: Corners) -> bool:
  return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def contrast(color: Color) -> Color:
  """Black or white, whichever is easier to read on the color (WCAG 2 relative luminance)."""
  luminance = np.dot(np.power(np.array(color) / 255, 2.2), (0.2126, 0.7152, 0.0722))
  return _BLACK if luminance > 0.18 else _WHITE


def shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
  """The text in one line of at most `width` pixels, with an ellipsis where it is cut."""
  text = " ".join(text.split())
  if font.getlength(text) <= width:
    return text
  while text and font.getlength(text + "...") > width:
    text = text[:-1]
  return text.rstrip() + "..."
