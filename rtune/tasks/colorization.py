"""Colorization: a gray photograph and the colors that it may have had, as codes of a code model.

The model is given the gray picture, three times, as UViM is (2205.10337). What it says is the
color alone: a prediction keeps the lightness of the input, and where that is asked for, of a
picture of any size (see `rtune.predictions.lab`).

Dimension key:
  B: batch of images
  S: samples for each image
  I: image height and width in pixels
  L: codes of an image
  N: patches
  P: pixels of a patch
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from rtune.config.build import as_kind
from rtune.data import augment
from rtune.data.source import Example
from rtune.errors import NumericError, UsageError
from rtune.models.codes import CodeModel, code_model
from rtune.models.sizes import CodeSizes
from rtune.policies.policy import Scored
from rtune.policies.space import Tokens
from rtune.predictions import lab
from rtune.predictions.patches import patches, unpatch
from rtune.predictions.pixels import Pixels
from rtune.tasks import coded
from rtune.tasks.task import Served, View

_READ = "rgb is the picture in color, as large as the canvas, values in 0..1"

_KINDS = ("lightness", "luma")


@dataclasses.dataclass(frozen=True)
class Colorization:
  """The colorization task, on any source of images."""

  image_size: int = 512  # side of the square model input in pixels; images are stretched to it
  # Settings of the code model; a config gives them as a mapping.
  codes: CodeSizes | Mapping[str, Any] = dataclasses.field(default_factory=CodeSizes)
  gray: str = "lightness"  # what the gray input keeps: "lightness" of CIE Lab, or "luma" as UViM
  keep_lightness: bool = True  # of the input; otherwise predictions are what the code model says
  flip: float = 0.5  # chance of a horizontal flip in training
  scale_max: float = 1.0  # views for training are zoomed by up to this

  def __post_init__(self):
    if isinstance(self.codes, Mapping):
      codes = as_kind(CodeSizes, self.codes, "config.task.args.codes")
      object.__setattr__(self, "codes", codes)
    if self.gray not in _KINDS:
      raise UsageError(f"config.task.args.gray is {self.gray!r}; it must be one of {_KINDS}.")
    for name in ("image_size", "scale_max"):
      if getattr(self, name) < 1:
        value = getattr(self, name)
        raise UsageError(f"config.task.args.{name} is {value}; it must be at least 1.")

  def example(self, raw: Example, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    height, width = raw["image"].shape[:2]
    if rng is None:
      view = augment.whole_view(height, width, self.image_size, stretch=True)
    else:
      view = augment.random_view(
        *(height, width, self.image_size, rng),
        flip=self.flip,
        scale_max=self.scale_max,
        stretch=True,
      )
    colored = augment.see(raw["image"], view, self.image_size)
    return {"image": lab.gray(colored, self.gray), "color": colored}

  def codes_of(self) -> CodeModel:
    return code_model(self.codes, self.image_size, (("color", 3),))

  def labels(self, batch) -> dict[str, Float[Array, "b n 3 p"]]:
    """sRGB in [-1, 1]."""
    values = batch["color"].astype(jnp.float32) / 127.5 - 1.0
    return {"color": patches(values, self.codes.patch_size)}

  def code_loss(self, logits, batch) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Mean squared error, of values in [-1, 1]."""
    error = jnp.mean((logits["color"] - self.labels(batch)["color"]) ** 2)
    return error, {"PSNR": 10 * jnp.log10(4.0 / jnp.maximum(error, 1e-9))}

  def inputs(self, batch) -> UInt8[Array, "b i i 3"]:
    return batch["image"]

  def space(self) -> Tokens:
    return coded.code_space(self.codes)

  def targets(self, frozen, batch, key) -> Int[Array, "b l"]:
    return coded.code_targets(self.codes_of(), frozen, self.labels(batch), batch["image"])

  def decode(
    self, frozen, actions: Int[Array, "b *s l"], batch, scored: Scored | None = None
  ) -> Pixels:
    values = coded.code_logits(self.codes_of(), frozen, actions, batch["image"])["color"]
    rgb = (jnp.clip(unpatch(values), -1.0, 1.0) + 1.0) / 2
    if not self.keep_lightness:
      return Pixels(rgb)
    images = batch["image"].astype(jnp.float32) / 255
    shared = (1,) * (actions.ndim - 2)  # of all samples of an image
    return Pixels(
      lab.lightness_kept(rgb, images.reshape(images.shape[0], *shared, *images.shape[1:]))
    )

  def truth(self, batch) -> Pixels:
    return Pixels(batch["color"].astype(jnp.float32) / 255)

  @property
  def view(self) -> View:
    from rtune.data.sources.photographs import Photographs

    gray = lab.LUMA if self.gray == "luma" else self.gray
    return View(
      record=_record,
      draw=self._draw,
      headline=("colorfulness", "hasler_susstrunk", "PSNR"),
      watched=("colorfulness", "hasler_susstrunk"),
      annotated=_annotated,
      given=lambda image: lab.gray(image, self.gray),
      source=Photographs,
      metrics=("rtune.metrics.pixels:coloring",),
      served=Served("stretch", (self.image_size,) * 2, _READ, gray=gray),
    )

  def _draw(self, image: np.ndarray, record) -> np.ndarray:
    """The photograph in the colors of the record; what its own lightness is, stays."""
    picture = record["picture"]
    if np.array_equal(picture, image):
      return image
    if self.keep_lightness:
      return lab.recolored(image, picture)
    size = (image.shape[1], image.shape[0])
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def _record(prediction: Pixels, features, raw: Example) -> dict[str, object]:
  """As large as the model's input; `draw` makes it as large as the photograph."""
  rgb = np.asarray(prediction.rgb)
  if not np.isfinite(rgb).all():
    raise NumericError(f"The colors predicted for image {raw['image_id']} are not finite.")
  picture = np.rint(rgb * 255).astype(np.uint8)
  return {"image_id": raw["image_id"], "picture": picture, "original": features["color"]}


def _annotated(raw: Example) -> dict[str, object]:
  return {"image_id": raw["image_id"], "picture": raw["image"]}
