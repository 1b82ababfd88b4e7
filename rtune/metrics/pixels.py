"""How colorful pictures are and how far from the photographs that they were made of.

Dimension key:
  H, W: height and width of a picture in pixels
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from rtune.errors import DataError
from rtune.metrics.metric import Metric

Picture = UInt8[np.ndarray, "h w 3"]
_SAME = 100.0  # dB of a picture that is its original
_VIVID = 10.0  # a^2 + b^2 of CIE Lab that a vivid pixel exceeds
_HUES = 7
# X, Y, Z of linear sRGB, and those of white (D65, 2 degrees).
_XYZ_OF_RGB = np.array(
  [
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
  ]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_NAMES = (
  *("colorfulness", "hasler_susstrunk", "PSNR", "vivid", "hue_entropy", "saturation"),
  "lightness_error",
)


class Entry(NamedTuple):
  """What counts of one image."""

  image_id: int
  values: dict[str, float]


def coloring() -> Metric:
  """Means over images of what colors are worth, and of what they cost.

  The state is a list of entries, one an image. A prediction is {image_id, picture, original}, uint8
  RGB [H, W, 3] of one size, where `original` is the photograph in its true colors; a truth is
  {image_id}.

  `compute` gives
    colorfulness: what the reward of that name is worth with its defaults, counted independently of
      it; and its factors vivid, hue_entropy.
    hasler_susstrunk: another measure of it, made to agree with people. What raises the reward alone
      has found a gap in it.
    saturation: of HSV, 0 to 1.
    PSNR: to the original, in dB; 100 for equal ones. Falls where colors are right for another one.
    lightness_error: mean difference in L (0..100) from the original.
  `results` has of each image what needs no original.

  Raises:
    DataError: from `update` for a truth of another image or another size, from `compute` for an
      image that was scored twice, or for none.
  """

  def update(
    state: list[Entry], prediction: Mapping[str, Any], truth: Mapping[str, Any]
  ) -> list[Entry]:
    state.append(_record(prediction, truth))
    return state

  def results(state: list[Entry]) -> list[dict[str, Any]]:
    names = ("colorfulness", "hasler_susstrunk", "saturation")
    return [
      {"image_id": record.image_id, **{name: record.values[name] for name in names}}
      for record in state
    ]

  return Metric(list, update, _means, None, results)


def colorfulness(picture: Picture) -> dict[str, float]:
  """Share of vivid pixels times entropy of their hue in nats, and both factors.

  A pixel is vivid if a^2 + b^2 of CIE Lab exceeds 10. Hue is the angle of (a, b) on the whole
  circle, in seven equal bins, the first from 180 degrees on. Where nothing is vivid all are 0.
  """
  _, a, b = _lab(picture)
  vivid = a * a + b * b > _VIVID
  # The opposite direction's angle, from 0 to a whole turn, is how far the hue is past 180 degrees.
  past = np.arctan2(-b[vivid], -a[vivid]) % math.tau
  count, _ = np.histogram(past, _HUES, (0, math.tau))
  share = count[count > 0] / max(count.sum(), 1)
  parts = {"vivid": float(vivid.mean()), "hue_entropy": float(np.sum(share * np.log(1 / share)))}
  return {"colorfulness": parts["vivid"] * parts["hue_entropy"], **parts}


def lightness_error(picture: Picture, original: Picture) -> float:
  """Mean absolute difference in L of CIE Lab (0..100)."""
  return float(np.mean(np.abs(_lightness(picture) - _lightness(original))))


def hasler_susstrunk(picture: Picture) -> float:
  """Colorfulness of Hasler and Suesstrunk ("Measuring colourfulness in natural images", 2003).

  Spread and distance from gray of red - green and yellow - blue, of sRGB values in 0..255. By their
  subjects: 15 is slightly colorful, 33 moderately, 59 quite, 82 highly, 109 extremely.
  """
  red, green, blue = np.moveaxis(picture.astype(np.float64), -1, 0)
  opponents = red - green, (red + green) / 2 - blue
  spread = math.hypot(*(float(values.std()) for values in opponents))
  return spread + 0.3 * math.hypot(*(float(values.mean()) for values in opponents))


def psnr(picture: Picture, original: Picture) -> float:
  """Peak signal-to-noise ratio in dB; 100 at most, which equal pictures have."""
  error = np.mean((picture.astype(np.float64) - original) ** 2)
  return min(_SAME, 10 * math.log10(255**2 / error)) if error > 0 else _SAME


def saturation(picture: Picture) -> float:
  """Mean saturation of HSV: 1 - least / largest channel, 0 where all are 0."""
  # Written out: numpy's own max of a last axis of three takes twenty times as long.
  red, green, blue = np.moveaxis(picture, -1, 0)
  largest = np.maximum(np.maximum(red, green), blue)
  spread = largest - np.minimum(np.minimum(red, green), blue)
  return float(np.mean(spread / np.maximum(largest, 1.0)))


def _intensities() -> Float[np.ndarray, "256"]:
  """Linear intensities of the 8-bit values of sRGB."""
  values = np.arange(256) / 255
  return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


_INTENSITY = _intensities()


def _lab(picture: Picture) -> tuple[Float[np.ndarray, "h w"], ...]:
  """L, a and b of CIE Lab."""
  linear = _INTENSITY[picture]
  x, y, z = (_root(linear, axis) for axis in range(3))
  return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _lightness(picture: Picture) -> Float[np.ndarray, "h w"]:
  """L of CIE Lab alone, in a third of the time."""
  return 116 * _root(_INTENSITY[picture], 1) - 16


def _root(linear: Float[np.ndarray, "h w 3"], axis: int) -> Float[np.ndarray, "h w"]:
  """CIE's cube root of X, Y or Z, relative to white; straight near black."""
  relative = linear @ _XYZ_OF_RGB[axis] / _WHITE[axis]
  return np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)


def _record(prediction: Mapping[str, Any], truth: Mapping[str, Any]) -> Entry:
  image_id = int(truth["image_id"])
  if int(prediction["image_id"]) != image_id:
    raise DataError(
      f"color metric: the prediction is of image {prediction['image_id']}, the truth of {image_id}"
    )
  picture, original = (np.asarray(prediction[name]) for name in ("picture", "original"))
  if picture.shape != original.shape:
    raise DataError(
      f"color metric: image {image_id} is {picture.shape}, its original {original.shape}"
    )
  values = colorfulness(picture)
  values["lightness_error"] = lightness_error(picture, original)
  values["hasler_susstrunk"] = hasler_susstrunk(picture)
  values["saturation"] = saturation(picture)
  values["PSNR"] = psnr(picture, original)
  return Entry(image_id, values)


def _means(state: Sequence[Entry]) -> dict[str, float]:
  ids = [record.image_id for record in state]
  if len(set(ids)) != len(ids):
    twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
    raise DataError(f"color metric: image {twice} was scored more than once")
  if not state:
    raise DataError("color metric: there are no images to score")
  return {name: float(np.mean([record.values[name] for record in state])) for name in _NAMES}
