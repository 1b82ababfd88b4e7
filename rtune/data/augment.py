"""Images with boxes onto the model's square canvas: resize with padding, flip, jitter, crop.

Edges are continuous: pixel k covers [k, k + 1], so a box around a whole H x W image is
(0, 0, H, W). Content always starts at the canvas's upper left corner; the rest is gray.

Dimension key:
  H, W: size of the given image
  S: size of the canvas
  N: boxes, (y0, x0, y1, x1)
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image

GRAY = 128


def fit(
  image: UInt8[np.ndarray, "h w 3"], boxes: Float[np.ndarray, "n 4"], size: int
) -> tuple[UInt8[np.ndarray, "s s 3"], Float32[np.ndarray, "n 4"], Float32[np.ndarray, "4"]]:
  """Scales the image, keeping its aspect, until its longer side fills the canvas.

  Args:
    image: RGB.
    boxes: in pixels of `image`.
    size: side of the canvas in pixels.

  Returns:
    The canvas (the image itself, not a copy, if it has that size already); the boxes as fractions
    of the canvas; and (content height, content width as fractions of the canvas, H, W), from which
    `to_original` leads back.
  """
  height, width = image.shape[:2]
  canvas, zoom = image, np.ones(2)
  new = _scaled(height, width, float(size))
  if (height, width) != (size, size):
    canvas = _paste(_resize(image, new, (0, 0, height, width)), size)
    zoom = np.divide(new, (height, width))
  content = np.array([new[0] / size, new[1] / size, height, width], np.float32)
  return canvas, (_stretch(boxes, zoom) / size).astype(np.float32), content


def to_original(
  boxes_N4: Float[np.ndarray, "n 4"], content_4: Float[np.ndarray, "4"]
) -> Float32[np.ndarray, "n 4"]:
  """Boxes as fractions of the canvas of `fit` -> pixels of the original image, clipped to it."""
  content = content_4.astype(np.float64)
  pixels = _stretch(boxes_N4, content[2:] / content[:2])
  return _clip(pixels, (int(content[2]), int(content[3]))).astype(np.float32)


def train_view(
  image: UInt8[np.ndarray, "h w 3"],
  boxes: Float[np.ndarray, "n 4"],
  size: int,
  rng: np.random.Generator,
  *,
  flip: float = 0.5,
  scale_min: float = 1.0,
  scale_max: float = 1.0,
  min_visible: float = 0.25,
) -> tuple[UInt8[np.ndarray, "s s 3"], Float32[np.ndarray, "n 4"], Bool[np.ndarray, "n"]]:
  """A random view for training: as `fit`, but mirrored, zoomed and cropped at random.

  Large-scale jitter as in pix2seq and detectron2: the longer side is scaled to a uniform multiple
  of the canvas; what is larger than the canvas is cropped at a uniform place, what is smaller is
  padded.

  Args:
    image: RGB.
    boxes: in pixels of `image`.
    size: side of the canvas in pixels.
    rng: the only source of chance; always as many draws are taken from it.
    flip: probability of mirroring left and right.
    scale_min, scale_max: range of the longer side, in canvas sides.
    min_visible: boxes of which a smaller part of the area is left by the crop are not kept.

  Returns:
    The canvas (no copy where nothing is done); all boxes, clipped, as fractions of the canvas; and
    which of them to keep.
  """
  mirrored = rng.random() < flip
  scale = rng.uniform(scale_min, scale_max)
  place = rng.random(2)
  if scale == 1 and image.shape[0] == image.shape[1] == size:
    canvas, whole, view = image, boxes, (size, size)
  else:
    canvas, whole, view = _zoom(image, boxes, size, scale, place)
  if mirrored:
    canvas, whole = _mirror(canvas, whole, view[1])
  cut = _clip(whole, view)
  fractions = (cut / size).astype(np.float32)
  # Rounding may put an edge a hair outside; that does not make a whole box a part.
  keep = _area(cut) >= (min_visible - 1e-6) * _area(whole)
  return canvas, fractions, keep & (fractions[:, 2:] > fractions[:, :2]).all(axis=1)


def _zoom(
  image: UInt8[np.ndarray, "h w 3"],
  boxes: Float[np.ndarray, "n 4"],
  size: int,
  scale: float,
  place: Float[np.ndarray, "2"],
) -> tuple[UInt8[np.ndarray, "s s 3"], Float[np.ndarray, "n 4"], tuple[int, int]]:
  """Canvas, boxes in its pixels (not clipped), and height and width of the content."""
  height, width = image.shape[:2]
  new_y, new_x = _scaled(height, width, scale * size)
  view = min(new_y, size), min(new_x, size)
  top, left = int(place[0] * (new_y - view[0] + 1)), int(place[1] * (new_x - view[1] + 1))
  zoom_y, zoom_x = new_y / height, new_x / width
  # Only the part that stays is resized, from its place in the original.
  source = (
    top / zoom_y,
    left / zoom_x,
    min((top + view[0]) / zoom_y, height),
    min((left + view[1]) / zoom_x, width),
  )
  moved = _stretch(boxes, np.array([zoom_y, zoom_x])) - np.array([top, left, top, left])
  return _paste(_resize(image, view, source), size), moved, view


def _scaled(height: int, width: int, longer: float) -> tuple[int, int]:
  factor = longer / max(height, width)
  return max(1, round(height * factor)), max(1, round(width * factor))


def _resize(
  image: UInt8[np.ndarray, "h w 3"],
  new: tuple[int, int],
  source: tuple[float | int, float | int, float | int, float | int],
) -> UInt8[np.ndarray, "h2 w2 3"]:
  y0, x0, y1, x1 = source
  picture = Image.fromarray(image).resize(
    (new[1], new[0]), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1)
  )
  return np.asarray(picture)


def _paste(content: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "s s 3"]:
  canvas = np.full((size, size, 3), GRAY, np.uint8)
  canvas[: content.shape[0], : content.shape[1]] = content
  return canvas


def _mirror(
  canvas: UInt8[np.ndarray, "s s 3"], boxes: Float[np.ndarray, "n 4"], width: int
) -> tuple[UInt8[np.ndarray, "s s 3"], Float[np.ndarray, "n 4"]]:
  turned = canvas.copy()
  turned[:, :width] = canvas[:, :width][:, ::-1]
  y0, x0, y1, x1 = boxes.T
  return turned, np.stack([y0, width - x1, y1, width - x0], axis=1)


def _stretch(
  boxes: Float[np.ndarray, "n 4"], factors: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "n 4"]:
  return boxes * np.concatenate([factors, factors])


def _clip(boxes: Float[np.ndarray, "n 4"], limits: tuple[int, int]) -> Float[np.ndarray, "n 4"]:
  return np.clip(boxes, 0, np.array([*limits, *limits], np.float64))


def _area(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n"]:
  return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
