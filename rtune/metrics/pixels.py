"""How colorful pictures are and how far from the photographs that they were made of.

Dimension key:
  H, W: height and width of a picture in pixels
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from rtune.errors import DataError
from rtune.metrics.metric import Metric
from rtune.predictions import lab
from rtune.predictions.pixels import Pixels
from rtune.rewards.pixels import colorfulness

Picture = UInt8[np.ndarray, "h w 3"]
_SAME = 100.0  # dB of a picture that is its original
_NAMES = (
  *("colorfulness", "hasler_susstrunk", "PSNR", "vivid", "hue_entropy", "saturation"),
  "lightness_error",
)


class Record(NamedTuple):
  """What counts of one image."""

  image_id: int
  values: dict[str, float]


def coloring() -> Metric:
  """Means over images of what colors are worth, and of what they cost.

  The state is a list of Records, one an image. A prediction is {image_id, picture, original}, uint8
  RGB [H, W, 3] of one size, where `original` is the photograph in its true colors; a truth is
  {image_id}.

  `compute` gives
    colorfulness: the reward of that name, with its defaults; and its factors vivid, hue_entropy.
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
    state: list[Record], prediction: Mapping[str, Any], truth: Mapping[str, Any]
  ) -> list[Record]:
    state.append(_record(prediction, truth))
    return state

  def results(state: list[Record]) -> list[dict[str, Any]]:
    names = ("colorfulness", "hasler_susstrunk", "saturation")
    return [
      {"image_id": record.image_id, **{name: record.values[name] for name in names}}
      for record in state
    ]

  return Metric(list, update, _means, None, results)


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
  largest = picture.max(axis=-1).astype(np.float64)
  spread = largest - picture.min(axis=-1)
  return float(np.mean(spread / np.maximum(largest, 1)))


@functools.cache
def _judge():
  """Compiled once for each size."""

  def judge(picture: UInt8[Array, "h w 3"], original: UInt8[Array, "h w 3"]) -> dict[str, Array]:
    shown, true = (image.astype(jnp.float32) / 255 for image in (picture, original))
    parts = colorfulness(Pixels(shown), Pixels(true))
    error = jnp.mean(jnp.abs(lab.lightness(shown) - lab.lightness(true)))
    return {
      "colorfulness": parts["reward"],
      "vivid": parts["vivid"],
      "hue_entropy": parts["hue_entropy"],
      "lightness_error": error,
    }

  return jax.jit(judge)


def _record(prediction: Mapping[str, Any], truth: Mapping[str, Any]) -> Record:
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
  values = {name: float(value) for name, value in _judge()(picture, original).items()}
  values["hasler_susstrunk"] = hasler_susstrunk(picture)
  values["saturation"] = saturation(picture)
  values["PSNR"] = psnr(picture, original)
  return Record(image_id, values)


def _means(state: Sequence[Record]) -> dict[str, float]:
  ids = [record.image_id for record in state]
  if len(set(ids)) != len(ids):
    twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
    raise DataError(f"color metric: image {twice} was scored more than once")
  if not state:
    raise DataError("color metric: there are no images to score")
  return {name: float(np.mean([record.values[name] for record in state])) for name in _NAMES}
