"""Images of one domain in the colors of another, by what their pixels are on average.

Dimension key:
  H, W: height and width of an image in pixels
  N: pixels
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from rtune.data.cached import source_name
from rtune.data.reader import Reader
from rtune.data.source import Example, Source
from rtune.data.unreadable import Unreadable
from rtune.errors import DataError

_IMAGES = 200  # that colors are taken of, spread over a source
_LEAST = 1e-3  # variance of a direction in which nothing varies, such as color in gray images


class Colors(NamedTuple):
  """Mean and covariance of the pixels of many images, in 8-bit values."""

  mean: Float[np.ndarray, "3"]
  covariance: Float[np.ndarray, "3 3"]


class Recolor(NamedTuple):
  """A linear map of colors."""

  matrix: Float[np.ndarray, "3 3"]
  offset: Float[np.ndarray, "3"]

  def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    pixels = image.astype(np.float32) @ self.matrix.T.astype(np.float32)
    return np.rint(np.clip(pixels + self.offset.astype(np.float32), 0, 255)).astype(np.uint8)


def colors_of(
  source: Source, images: int = _IMAGES, unreadable: Unreadable | None = None
) -> Colors:
  """Of so many images of a source, evenly spaced; each counts the same, whatever its size.

  Those that cannot be read are left out where `unreadable` takes them.
  """
  places = np.unique(np.linspace(0, len(source) - 1, min(images, len(source))).astype(int))
  reader = Reader(source, lambda raw, rng: raw, unreadable)
  count, total, products = 0, np.zeros(3), np.zeros((3, 3))
  for place in places:
    found = reader.read(int(place))
    if found is None:
      continue
    pixels_N3 = found.raw["image"].reshape(-1, 3).astype(np.float64)
    count += 1
    total += pixels_N3.mean(axis=0)
    products += pixels_N3.T @ pixels_N3 / len(pixels_N3)
  if not count:
    raise DataError(
      f"{source_name(source)}: none of the images that its colors are taken of is read."
    )
  mean = total / count
  return Colors(mean, products / count - np.outer(mean, mean))


def transport(colors: Colors, wanted: Colors) -> Recolor:
  """The map that gives colors the wanted mean and covariance and moves them least.

  It is the optimal transport between two normal distributions (Pitie and Kokaram, "The linear
  Monge-Kantorovitch linear colour mapping for example-based colour transfer", CVMP 2007).
  """
  root, inverse = (_power(colors.covariance, power) for power in (0.5, -0.5))
  matrix = inverse @ _power(root @ wanted.covariance @ root, 0.5) @ inverse
  return Recolor(matrix, wanted.mean - matrix @ colors.mean)


class Recolored:
  """A source whose images get the colors of another one; what else it knows stays."""

  def __init__(self, source: Source, wanted: Colors, unreadable: Unreadable | None = None):
    own = colors_of(source, unreadable=unreadable)
    self._source, self._recolor = source, transport(own, wanted)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Example:
    raw = self._source[index]
    return {**raw, "image": self._recolor(raw["image"])}


def _power(matrix: Float[np.ndarray, "3 3"], power: float) -> Float[np.ndarray, "3 3"]:
  values, vectors = np.linalg.eigh(matrix)
  return (vectors * np.maximum(values, _LEAST) ** power) @ vectors.T
