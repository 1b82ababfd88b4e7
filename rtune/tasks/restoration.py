"""Restoration: a degraded picture -> the clean one, as large or several times larger.

A source gives pairs, or clean pictures alone; then the task corrupts them: anew in training, always
in the same way in evaluation.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  H, W: height and width of the degraded picture on its canvas
  Y, X: those of the clean one, `scale` times as large
  C: channels
"""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from rtune.data import patching
from rtune.data.chain import Chain, chain
from rtune.data.source import Example, PairSource, Source
from rtune.data.sources.clean import CleanPictures
from rtune.data.sources.pairs import Pairs
from rtune.errors import UsageError
from rtune.policies.policy import Scored
from rtune.policies.space import Image
from rtune.predictions.images import LUMA, Original, Passes, Picture, as_bytes
from rtune.tasks.task import Knowledge, Served, View

_READ = (
  "image is the restored picture, values in 0..1, which may lie a little beyond; a picture smaller "
  "than the canvas lies at its upper left, and so does the restored one"
)

_MULTIPLE = 16  # sides of canvases are multiples of it, as networks that halve pictures want it
_WHITE = np.float32(255)
_UNKNOWN = "unknown"  # in an example: there is no clean picture; what stands there is black
_BY_PASS = tuple(f"{name}_pass{number}" for name in ("PSNR", "SSIM", "UQI") for number in (1, 2, 4))

Steps = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Restoration:
  """The task of restored pictures."""

  size: int = 48  # side of the patches of training in pixels, of the degraded picture
  channels: int = 3  # 1: pictures are gray
  scale: int = 1  # of super-resolution
  turned: bool = True  # patches are rotated and mirrored at random
  # The model is told the level of the noise that the task adds. Of pairs, and of pictures that
  # nobody has a clean one of, it is told 0: nobody knows it.
  tells_sigma: bool = False
  # What is done to clean pictures (rtune/data/corrupt.py), one after the other.
  corruptions: Steps = dataclasses.field(default=(), hash=False)
  # Chains of evaluation, one for each picture in turn; (): that of training.
  eval_corruptions: Sequence[Steps] = dataclasses.field(default=(), hash=False)

  def __post_init__(self):
    if self.channels not in (1, 3):
      raise UsageError(f"config.task.args.channels is {self.channels}; it must be 1 or 3.")
    for name, least in (("size", 8), ("scale", 1)):
      if getattr(self, name) < least:
        raise UsageError(
          f"config.task.args.{name} is {getattr(self, name)}; it must be {least} or more."
        )
    for made in (self._chain, *self._eval_chains):
      if made.scale not in (1, self.scale):
        raise UsageError(
          f"config.task.args.corruptions make pictures {made.scale} times smaller, but "
          f"config.task.args.scale is {self.scale}; make both the same."
        )

  @functools.cached_property
  def _chain(self) -> Chain:
    return chain(self.corruptions, "task.args.corruptions")

  @functools.cached_property
  def _eval_chains(self) -> tuple[Chain, ...]:
    path = "task.args.eval_corruptions"
    return tuple(chain(steps, f"{path}[{i}]") for i, steps in enumerate(self.eval_corruptions))

  def _bind(self, source: Source) -> "Restoration":
    paired = isinstance(source, PairSource)
    if paired and source.scale != self.scale:
      raise UsageError(
        f"config.task.args.scale is {self.scale}, but the pairs of {type(source).__name__} have a "
        f"scale of {source.scale}; make both the same."
      )
    if not paired and self._chain.scale != self.scale:
      raise UsageError(
        "config.task.args.corruptions make no picture smaller, and there are no pairs: add "
        f"rtune.data.corrupt:bicubic with a scale of {self.scale}."
      )
    return self

  def example(self, raw: Example, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    clean, degraded = raw.get("clean"), raw["image"]
    if clean is None:
      clean, degraded = degraded, None
    if rng is not None:
      degraded, clean = self._patches(degraded, clean, rng)
    clean, level = self._floats(clean), 0.0
    if degraded is None:
      image, level = self._corrupted(clean, raw["image_id"], rng)
    else:
      image = self._floats(degraded)
    extent = image.shape[:2]
    unit = 1 if rng is not None else _MULTIPLE
    height, width = (-(-side // unit) * unit for side in extent)
    return {
      "image": patching.on_canvas(image, height, width),
      "clean": patching.on_canvas(clean, self.scale * height, self.scale * width),
      "sigma": np.float32(level),
      "extent": np.array(extent, np.int32),
    }

  def _patches(self, degraded, clean, rng):
    """The same patch of both; of the clean one alone where there is no other."""
    height, width = (side // self.scale for side in clean.shape[:2])
    patch = patching.draw(height, width, self.size, rng, turned=self.turned)
    if degraded is not None:
      degraded = patching.cut(degraded, patch, self.size)
    return degraded, patching.cut(clean, patch, self.size, self.scale)

  def _corrupted(self, clean, image_id: int, rng) -> tuple[np.ndarray, float]:
    if rng is not None:
      return self._chain.apply(clean, rng)
    chains = self._eval_chains or (self._chain,)
    # Pictures have numbers of any size; the same picture is always spoiled in the same way.
    return chains[image_id % len(chains)].apply(clean, np.random.default_rng((1, image_id)))

  def _floats(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w c"]:
    values = image.astype(np.float32) / _WHITE
    return values if self.channels == 3 else (values @ np.array(LUMA, np.float32))[..., None]

  def inputs(self, batch) -> dict[str, Float[Array, " b *hwc"]]:
    sigma = batch["sigma"]
    return {"image": batch["image"], "sigma": sigma if self.tells_sigma else 0 * sigma}

  def space(self) -> Image:
    side = self.scale * self.size
    return Image(side, side, self.channels)

  def targets(self, frozen, batch, key) -> Float[Array, "b y x c"]:
    return batch["clean"]

  def decode(self, frozen, actions, batch, scored: Scored | None = None) -> Picture | Passes:
    """The picture among the actions: by itself, or what was rendered from what was sampled."""
    if isinstance(actions, Mapping) and "passes" in actions:
      return Passes(*(actions.get(name) for name in Passes._fields))
    return Picture(actions["image"] if isinstance(actions, Mapping) else actions)

  def truth(self, batch) -> Original:
    return Original(batch["clean"], batch["image"])

  @property
  def view(self) -> View:
    return View(
      record=self._record,
      draw=_draw,
      headline=("PSNR", "SSIM", *_BY_PASS),
      watched=("PSNR", "SSIM"),
      lower=("GMSD", "LPIPS"),
      annotated=_annotated,
      unlabeled=self._unlabeled,
      source=self._open,
      own_size=True,
      served=Served("none", (0, 0), _READ, gray=LUMA if self.channels == 1 else ()),
      metrics=("rtune.metrics.pictures:restoring",),
    )

  @property
  def knowledge(self) -> Knowledge:
    return Knowledge(self._bind)

  def _record(self, prediction: Picture | Passes, features, raw: Example) -> dict[str, object]:
    height, width = (int(side) for side in features["extent"])
    size = slice(0, self.scale * height), slice(0, self.scale * width)
    record = {
      "image_id": raw["image_id"],
      "picture": np.asarray(prediction.image)[size],
      "original": None if _UNKNOWN in raw else np.asarray(features["clean"])[size],
      "given": np.asarray(features["image"])[:height, :width],
    }
    if isinstance(prediction, Passes):
      record["passes"] = np.asarray(prediction.passes)[:, *size]
      record["numbers"] = np.asarray(prediction.numbers)
    level = 255 * float(features["sigma"])
    return record | ({"sigma": level} if level else {})

  def _unlabeled(self, image: np.ndarray, image_id: int) -> Example:
    height, width = image.shape[:2]
    blank = np.zeros((self.scale * height, self.scale * width, 3), np.uint8)
    return {"image": image, "image_id": image_id, "clean": blank, _UNKNOWN: True}

  def _open(self, annotations: str, images: str) -> Source:
    """Clean pictures, each with every chain of evaluation, or pairs.

    Args:
      annotations: clean pictures, as of `CleanPictures`.
      images: where `annotations` is a folder, that of the degraded ones, of the same names; else as
        of `CleanPictures`.
    """
    if images and os.path.isdir(os.path.expanduser(annotations)):
      return Pairs(degraded=images, clean=annotations, scale=self.scale)
    times = max(1, len(self.eval_corruptions))
    return CleanPictures(annotations, images, multiple=self.scale, times=times)


def _draw(image: np.ndarray, record: Mapping[str, Any]) -> np.ndarray:
  from rtune.display.draw_pictures import draw_pictures

  del image
  if "passes" in record and record["original"] is not None:
    from rtune.display.draw_passes import draw_passes

    shown = (as_bytes(record[name]) for name in ("given", "passes", "original"))
    return draw_passes(*shown, record["numbers"])
  shown = (record[name] for name in ("given", "picture", "original"))
  return draw_pictures(*(None if one is None else as_bytes(one) for one in shown))


def _annotated(raw: Example) -> dict[str, object]:
  picture = raw.get("clean", raw["image"])
  return {"image_id": raw["image_id"], "given": None, "picture": picture, "original": None}
