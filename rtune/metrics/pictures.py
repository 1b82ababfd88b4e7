"""How near restored pictures are to their originals, averaged over images: streaming.

What can be measured:
  PSNR: in dB, of pictures as files hold them: clipped and rounded to 8 bits; 100 for equal ones.
  PSNR_float: of the picture as it is, neither clipped nor rounded.
  SSIM: see `picture_measures.ssim`; this and what follows are of 8-bit pictures.
  MS_SSIM: of pictures with sides of 161 pixels or more.
  GMSD: lower is better.
  UQI: in blocks of 8 x 8 pixels.
  LR_PSNR: between what was given and the picture scaled down to it; needs no original.
  LPIPS: lower is better. Needs the extra `lpips`.

Dimension key:
  H, W: height and width of a picture in pixels
  Y, X: those of what the model was given
  C: channels, 1 or 3
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rtune.data import resize
from rtune.data.files.lpips_weights import load_lpips
from rtune.errors import DataError, UsageError
from rtune.metrics import perceptual, picture_measures
from rtune.metrics.metric import Metric
from rtune.predictions.images import as_bytes, studio_luma

MEASURES = ("PSNR", "PSNR_float", "SSIM", "MS_SSIM", "GMSD", "UQI", "LR_PSNR", "LPIPS")
_USUAL = ("PSNR", "PSNR_float", "SSIM", "GMSD", "UQI")
_MOST_LEVELS = 12  # more noise levels than that were drawn from a range

Values = Float[np.ndarray, "h w c"]


class Entry(NamedTuple):
  """What counts of one image; `level` is the standard deviation of its noise in 0..255, or None."""

  image_id: int
  level: float | None
  values: dict[str, float]


class Settings(NamedTuple):
  """How pictures are measured; see `restoring`."""

  measures: tuple[str, ...]
  luma: bool
  border: int
  window: str
  sample_covariance: bool | None
  kind: str
  net: str
  weights: str


def restoring(
  *,
  measures: Sequence[str] = _USUAL,
  luma: bool = False,
  border: int = 0,
  window: str = "gaussian",
  sample_covariance: bool | None = None,
  kind: str = "matlab",
  net: str = "alex",
  weights: str = "",
) -> Metric:
  """Means over images of PSNR, SSIM and what else is asked for; each also for each noise level.

  The state is a list of entries, one an image. A prediction is {image_id, picture [H, W, C],
  original [H, W, C]}, where pictures are uint8, or floats in 0..1 (and beyond, in a restored one).
  It may have `sigma`, the standard deviation of its noise in values of 0..255: where images share
  two to twelve levels there are PSNR_sigma25 and the like. LR_PSNR needs `given` [Y, X, C]. A
  truth is {image_id}. Of a picture whose `original` is None nothing is measured that needs one;
  `results` and `files` serve predictions.

  Args:
    measures: names of what this module can measure.
    luma: measure all but LR_PSNR and LPIPS on Y (`rtune.predictions.images.studio_luma`), as papers
      on super-resolution do.
    border: pixels at each side that are cut off before, likewise; those papers take the scale.
    window: of SSIM, "gaussian" or "uniform"; `sample_covariance` likewise.
    kind: how LR_PSNR scales down, "matlab" or "pillow".
    net: of LPIPS, "alex" or "vgg"; `weights`: its .safetensors file, or "" (as `perceptual.lpips`).

  Raises:
    UsageError: an unknown measure or setting, or the weights of LPIPS are missing.
    DataError: from `update` for a truth of another image, another size, or a picture that is too
      small; from `compute` for an image that was scored twice, or for none.
  """
  _check_settings(measures, border, window, kind, net, weights)
  settings = Settings(tuple(measures), luma, border, window, sample_covariance, kind, net, weights)

  def update(
    state: list[Entry], prediction: Mapping[str, Any], truth: Mapping[str, Any]
  ) -> list[Entry]:
    state.append(_entry(prediction, truth, settings))
    return state

  def compute(state: list[Entry]) -> dict[str, float]:
    _check_state(state)
    found = _means(state)
    for level, values in by_level(state).items():
      found |= {f"{name}_sigma{level:g}": value for name, value in values.items()}
    return found

  return Metric(list, update, compute, None, _results, _files)


def by_level(state: Sequence[Entry]) -> dict[float, dict[str, float]]:
  """The means of each noise level, from low to high.

  {} for one level, or where levels were drawn from a range: as many as images, or more than twelve.
  """
  levels = sorted({entry.level for entry in state if entry.level is not None})
  if not 1 < len(levels) <= _MOST_LEVELS or len(levels) == len(state):
    return {}
  return {level: _means([one for one in state if one.level == level]) for level in levels}


def _check_settings(
  measures: Sequence[str], border: int, window: str, kind: str, net: str, weights: str
) -> None:
  for name in measures:
    if name not in MEASURES:
      raise UsageError(f"restoring: measures has {name!r}; choose from {', '.join(MEASURES)}.")
  if not measures or border < 0:
    raise UsageError("restoring: measures must name one or more, border must not be below 0.")
  for setting, value, choices in (
    ("window", window, ("gaussian", "uniform")),
    ("kind", kind, ("matlab", "pillow")),
    ("net", net, tuple(perceptual.SMALLEST)),
  ):
    if value not in choices:
      raise UsageError(f"restoring: {setting} is {value!r}; it must be one of {choices}.")
  if "LPIPS" in measures:
    load_lpips(net, weights)  # that its weights are missing must not come to light after training


def _entry(prediction: Mapping[str, Any], truth: Mapping[str, Any], settings: Settings) -> Entry:
  image_id = int(truth["image_id"])
  if int(prediction["image_id"]) != image_id:
    raise DataError(
      f"picture metric: the prediction is of image {prediction['image_id']}, the truth of"
      f" {image_id}"
    )
  picture, sigma = np.asarray(prediction["picture"]), prediction.get("sigma")
  level = None if sigma is None else round(float(sigma), 2)
  if not np.isfinite(picture).all():
    raise DataError(f"picture metric: image {image_id} has values that are no numbers")
  if prediction["original"] is None:
    return Entry(image_id, level, {})
  original = np.asarray(prediction["original"])
  if picture.shape != original.shape:
    raise DataError(
      f"picture metric: image {image_id} is {picture.shape}, its original {original.shape}"
    )
  values = {}
  pair = tuple(_compared(image, True, settings) for image in (picture, original))
  for name in settings.measures:
    if name == "PSNR_float":
      floats = (_compared(image, False, settings) for image in (picture, original))
      values[name] = picture_measures.psnr(*floats)
    elif name == "LR_PSNR":
      values[name] = _consistency(picture, prediction.get("given"), image_id, settings.kind)
    elif name == "LPIPS":
      _check_size(image_id, name, picture, perceptual.SMALLEST[settings.net])
      eight_bits = (as_bytes(image) / np.float32(255) for image in (picture, original))
      values[name] = perceptual.lpips(*eight_bits, net=settings.net, weights=settings.weights)
    else:
      _check_size(image_id, name, pair[0], picture_measures.SMALLEST.get(name, 1))
      values[name] = _measure(name, settings)(*pair)
  return Entry(image_id, level, values)


def _compared(image: np.ndarray, eight_bits: bool, settings: Settings) -> Values:
  """What is measured of a picture: float64 in 0..255."""
  if eight_bits:
    image = as_bytes(image)
  # Whole numbers stay whole.
  values = image.astype(np.float64) * (1.0 if image.dtype == np.uint8 else 255.0)
  if settings.luma:
    values = 255 * studio_luma(values / 255)[..., None]
  rows, columns = (slice(settings.border, side - settings.border) for side in values.shape[:2])
  return values[rows, columns]


def _measure(name: str, settings: Settings) -> Callable[[Values, Values], float]:
  return {
    "PSNR": picture_measures.psnr,
    "SSIM": functools.partial(
      picture_measures.ssim,
      window=settings.window,
      sample_covariance=settings.sample_covariance,
    ),
    "MS_SSIM": picture_measures.ms_ssim,
    "GMSD": picture_measures.gmsd,
    "UQI": picture_measures.uqi,
  }[name]


def _check_size(image_id: int, name: str, values: np.ndarray, least: int) -> None:
  height, width = values.shape[:2]
  if min(height, width) < least:
    raise DataError(
      f"picture metric: of image {image_id} {height} x {width} pixels count, {name} needs {least} x"
      f" {least}; leave {name} out of the metric's `measures`"
    )


def _consistency(picture: np.ndarray, given: Any, image_id: int, kind: str) -> float:
  if given is None:
    raise DataError(
      f"picture metric: LR_PSNR needs what image {image_id} was made of, as `given`; leave it out"
      " of the metric's `measures`"
    )
  low = as_bytes(given).astype(np.float64)
  high = as_bytes(picture).astype(np.float32)
  if low.shape[0] >= high.shape[0] or high.shape[0] % low.shape[0]:
    raise DataError(
      f"picture metric: image {image_id} is {high.shape} and was made of one of {low.shape}, which"
      " must be several times smaller for LR_PSNR"
    )
  made = resize.bicubic(high, *low.shape[:2], kind, rounded=True)
  return picture_measures.psnr(made.astype(np.float64), low)


def _check_state(state: Sequence[Entry]) -> None:
  ids = [entry.image_id for entry in state]
  if len(set(ids)) != len(ids):
    twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
    raise DataError(f"picture metric: image {twice} was scored more than once")
  if not state:
    raise DataError("picture metric: there are no images to score")


def _means(state: Sequence[Entry]) -> dict[str, float]:
  names = state[0].values
  return {name: float(np.mean([entry.values[name] for entry in state])) for name in names}


def _files(prediction: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The picture as a file of 8 bits, called by the number of its image."""
  picture = as_bytes(prediction["picture"])
  return {f"{prediction['image_id']}.png": picture[..., 0] if picture.shape[-1] == 1 else picture}


def _results(state: Sequence[Entry]) -> list[dict[str, Any]]:
  found = []
  for entry in state:
    level = {} if entry.level is None else {"sigma": entry.level}
    found.append({"image_id": entry.image_id, **level, **entry.values})
  return found
