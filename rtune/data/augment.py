"""Images, boxes, maps onto the model's canvas: resize with padding, flip, jitter, crop.

Edges are continuous: pixel k covers [k, k + 1], so a box around a whole H x W image is
(0, 0, H, W). Content always starts at the canvas's upper left corner; the rest is gray. A canvas is
square, `size` its side; views of images and maps also fit (height, width).

Dimension key:
  H, W: size of the given image
  S: side of a square canvas
  Y, X: height and width of a canvas
  N: boxes, (y0, x0, y1, x1)
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, UInt8
from PIL import Image

from rtune.errors import UsageError

GRAY = 128
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of BT.601

Size = int | tuple[int, int]  # of a canvas: the side of a square, or height and width


class View(NamedTuple):
  """What of an image is on the canvas, and how: (height, width) in pixels of the canvas.

  Attributes:
    scaled: of the whole image.
    corner: first row and column of it that is on the canvas.
    shown: of the part that is on the canvas.
    mirrored: whether that part is mirrored, left and right.
  """

  scaled: tuple[int, int]
  corner: tuple[int, int]
  shown: tuple[int, int]
  mirrored: bool


def whole_view(height: int, width: int, size: Size, *, stretch: bool = False) -> View:
  """All of an image of this size; `stretch` fills the canvas, whatever becomes of the aspect."""
  scaled = _scaled(height, width, _canvas(size), 1.0, stretch)
  return View(scaled, (0, 0), scaled, False)


def random_view(
  height: int,
  width: int,
  size: Size,
  rng: np.random.Generator,
  *,
  flip: float = 0.5,
  scale_min: float = 1.0,
  scale_max: float = 1.0,
  stretch: bool = False,
) -> View:
  """A view for training as `train_view` draws it, with as many draws from `rng`.

  A scale of 1 is the largest at which all of the image is on the canvas.
  """
  mirrored = bool(rng.random() < flip)
  scale = rng.uniform(scale_min, scale_max)
  place = rng.random(2)
  canvas = _canvas(size)
  new_y, new_x = _scaled(height, width, canvas, scale, stretch)
  shown = min(new_y, canvas[0]), min(new_x, canvas[1])
  corner = int(place[0] * (new_y - shown[0] + 1)), int(place[1] * (new_x - shown[1] + 1))
  return View((new_y, new_x), corner, shown, mirrored)


def see(image: UInt8[np.ndarray, "h w 3"], view: View, size: Size) -> UInt8[np.ndarray, "y x 3"]:
  """The canvas with this view of an image, bilinear; the image itself where nothing is done."""
  canvas = image
  if not image.shape[:2] == view.scaled == _canvas(size):
    # Only the part that stays is resized, from its place in the original.
    shown = _resize(image, view.shown, _source(image.shape[:2], view))
    canvas = np.full((*_canvas(size), 3), GRAY, np.uint8)
    canvas[: view.shown[0], : view.shown[1]] = shown
  return _mirrored(canvas, view.shown[1]) if view.mirrored else canvas


def check_jitter(strength: float) -> None:
  """UsageError for a strength that `jitter` cannot have."""
  if not 0 <= strength < 1:
    raise UsageError(
      f"config.task.args.color_jitter is {strength}; it must be at least 0 and less than 1."
    )


def jitter(
  image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator, strength: float
) -> UInt8[np.ndarray, "h w 3"]:
  """Brightness, contrast and saturation, each times a uniform factor of 1 +- strength.

  In this order, as torchvision's ColorJitter has them; the hue stays. Nothing is drawn, and the
  image is the same, where the strength is 0.
  """
  if not strength:
    return image
  brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
  pixels = np.clip(image * np.float32(brightness), 0, 255)
  mean = np.float32((pixels @ _LUMA).mean())
  pixels = np.clip(mean + (pixels - mean) * np.float32(contrast), 0, 255)
  gray = (pixels @ _LUMA)[..., None]
  return np.rint(np.clip(gray + (pixels - gray) * np.float32(saturation), 0, 255)).astype(np.uint8)


def see_map(
  map_HW: Integer[np.ndarray, "h w"], view: View, size: Size, *, fill: int = 0
) -> Integer[np.ndarray, "y x"]:
  """As `see`, of a map of labels: the nearest pixel's, and `fill` where the image is not."""
  y0, x0, y1, x1 = _source(map_HW.shape, view)
  rows, columns = _nearest(y0, y1, view.shown[0]), _nearest(x0, x1, view.shown[1])
  canvas = np.full(_canvas(size), fill, map_HW.dtype)
  canvas[: view.shown[0], : view.shown[1]] = map_HW[rows[:, None], columns]
  return _mirrored(canvas, view.shown[1]) if view.mirrored else canvas


def map_to_original(
  map_YX: Integer[np.ndarray, "y x"], content_4: Float[np.ndarray, "4"]
) -> Integer[np.ndarray, "h w"]:
  """A map of labels on the canvas -> pixels of the original image, each the nearest one's."""
  shown = np.rint(content_4[:2].astype(np.float64) * map_YX.shape)
  height, width = int(content_4[2]), int(content_4[3])
  rows, columns = _nearest(0.0, float(shown[0]), height), _nearest(0.0, float(shown[1]), width)
  return map_YX[rows[:, None], columns]


def content(height: int, width: int, view: View, size: Size) -> Float32[np.ndarray, "4"]:
  """What leads back from the canvas of a whole view: see `fit`."""
  canvas = _canvas(size)
  shares = view.shown[0] / canvas[0], view.shown[1] / canvas[1]
  return np.array([*shares, height, width], np.float32)


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
  view = whole_view(height, width, size)
  zoom = np.divide(view.scaled, (height, width))
  fractions = (_stretch(boxes, zoom) / size).astype(np.float32)
  return see(image, view, size), fractions, content(height, width, view, size)


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
) -> tuple[UInt8[np.ndarray, "s s 3"], Float32[np.ndarray, "n 4"], Bool[np.ndarray, " n"]]:
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
  height, width = image.shape[:2]
  view = random_view(height, width, size, rng, flip=flip, scale_min=scale_min, scale_max=scale_max)
  zoom = np.divide(view.scaled, (height, width))
  whole = _stretch(boxes, zoom) - np.array([*view.corner, *view.corner])
  if view.mirrored:
    y0, x0, y1, x1 = whole.T
    whole = np.stack([y0, view.shown[1] - x1, y1, view.shown[1] - x0], axis=1)
  cut = _clip(whole, view.shown)
  fractions = (cut / size).astype(np.float32)
  # Rounding may put an edge a hair outside; that does not make a whole box a part.
  keep = _area(cut) >= (min_visible - 1e-6) * _area(whole)
  return see(image, view, size), fractions, keep & (fractions[:, 2:] > fractions[:, :2]).all(axis=1)


def _source(image: tuple[int, ...], view: View) -> tuple[float, float, float, float]:
  """The part of an image of this size that a view shows, (y0, x0, y1, x1) in its pixels."""
  sides = zip(image, view.scaled, view.corner, view.shown, strict=True)
  (top, bottom), (left, right) = (_span(*side) for side in sides)
  return top, left, bottom, right


def _span(length: int, scaled: int, first: int, shown: int) -> tuple[float, float]:
  """Where a side's part that is shown begins and ends, in pixels of the original."""
  # The end of all is the end, whatever rounding says.
  end = length if first + shown == scaled else (first + shown) * length / scaled
  return first * length / scaled, float(end)


def _nearest(start: float, end: float, count: int) -> Integer[np.ndarray, " n"]:
  """The pixels below the centers of `count` equal pieces of a stretch."""
  return (start + (np.arange(count) + 0.5) * ((end - start) / count)).astype(np.int64)


def _canvas(size: Size) -> tuple[int, int]:
  return (size, size) if isinstance(size, int) else size


def _scaled(
  height: int, width: int, canvas: tuple[int, int], scale: float, stretch: bool
) -> tuple[int, int]:
  """A whole image `scale` times as large as it would fit the canvas, or be stretched to it."""
  longest = scale * canvas[0], scale * canvas[1]
  if stretch:
    return max(1, round(longest[0])), max(1, round(longest[1]))
  factor = min(longest[0] / height, longest[1] / width)
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


def _mirrored(canvas: np.ndarray, width: int) -> np.ndarray:
  turned = canvas.copy()
  turned[:, :width] = canvas[:, :width][:, ::-1]
  return turned


def _stretch(
  boxes: Float[np.ndarray, "n 4"], factors: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "n 4"]:
  return boxes * np.concatenate([factors, factors])


def _clip(boxes: Float[np.ndarray, "n 4"], limits: tuple[int, int]) -> Float[np.ndarray, "n 4"]:
  return np.clip(boxes, 0, np.array([*limits, *limits], np.float64))


def _area(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
  return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
