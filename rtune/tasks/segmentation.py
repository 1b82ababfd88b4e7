"""Semantic segmentation: a class for each pixel.

What lies outside the image, and pixels that nobody has labeled, are ignored: they are neither drawn
nor imitated nor rewarded.

Dimension key:
  B: batch of images
  S: samples for each image
  H, W: height and width of the canvas in pixels
  C: classes
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, UInt8

from rtune.data import augment
from rtune.data.source import Example, LabelSource, Source
from rtune.errors import UsageError
from rtune.policies.policy import Scored
from rtune.policies.space import Labels
from rtune.predictions.labels import IGNORE, LabelMap
from rtune.tasks.task import Knowledge, Served, View

_READ = (
  "labels[y, x] is the class of each pixel of the canvas; scaled by nearest neighbor they are of "
  "the image"
)


@dataclasses.dataclass(frozen=True)
class Segmentation:
  """The task of label maps."""

  image_size: tuple[int, int] = (512, 512)  # height and width in pixels, of training
  eval_size: tuple[int, int] | None = None  # of evaluation; None: that of training
  classes: tuple[str, ...] = ()  # names; taken from the training data when empty
  category_ids: tuple[int, ...] = ()  # numbers in files; taken from the data when empty
  flip: float = 0.5  # chance of a horizontal flip in training
  scale_min: float = 1.0  # scale jitter in training
  scale_max: float = 1.0  # scale jitter in training; above 1 crops
  color_jitter: float = 0.0  # strength of changes of brightness, contrast and saturation

  def __post_init__(self):
    augment.check_jitter(self.color_jitter)
    for name in ("image_size", "eval_size"):
      size = getattr(self, name)
      if size is not None and (len(size) != 2 or min(size) < 1):
        raise UsageError(f"config.task.args.{name} is {size}; give height and width in pixels.")

  def _bind(self, source: Source) -> "Segmentation":
    # isinstance sees no keys: sources of boxes have the same attributes.
    if not isinstance(source, LabelSource) or "label_map" not in source[0]:
      raise UsageError(
        f"{type(source).__name__} has no classes: semantic segmentation needs a source of label "
        "maps, with `classes` and `category_ids`."
      )
    if self.classes:
      return self
    return dataclasses.replace(
      self, classes=tuple(source.classes), category_ids=tuple(source.category_ids)
    )

  def example(self, raw: Example, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    shape = raw["image"].shape[:2]
    if rng is None:
      size = self.eval_size or self.image_size
      view = augment.whole_view(*shape, size)
    else:
      size, scales = self.image_size, {"scale_min": self.scale_min, "scale_max": self.scale_max}
      view = augment.random_view(*shape, size, rng, flip=self.flip, **scales)
    image = augment.see(raw["image"], view, size)
    if rng is not None:
      image = augment.jitter(image, rng, self.color_jitter)
    return {
      "image": image,
      "labels": augment.see_map(raw["label_map"], view, size, fill=IGNORE),
      "content": augment.content(*shape, view, size),
    }

  def inputs(self, batch) -> dict[str, UInt8[Any, "b h w 3"] | Bool[Any, "b h w"]]:
    return {"image": batch["image"], "ignored": batch["labels"] == IGNORE}

  def space(self) -> Labels:
    return Labels(*self.image_size, len(self.classes))

  def targets(self, frozen, batch, key) -> Int[Any, "b h w"]:
    return jnp.maximum(batch["labels"], 0).astype(jnp.int32)

  def decode(
    self, frozen, actions: Int[Any, "b s h w"], batch, scored: Scored | None = None
  ) -> LabelMap:
    return LabelMap(actions)

  def truth(self, batch) -> LabelMap:
    return LabelMap(batch["labels"].astype(jnp.int32))

  @property
  def view(self) -> View:
    from rtune.data.sources.coco_labels import CocoLabels

    return View(
      record=_record,
      draw=self._draw,
      headline=("mIoU", "mAcc", "aAcc"),
      watched=("mIoU", "aAcc"),
      annotated=_annotated,
      unlabeled=_unlabeled,
      source=CocoLabels,
      metrics=("rtune.metrics.labels:segmentation",),
      served=Served("fit", self.eval_size or self.image_size, _READ, {"classes": self.classes}),
    )

  @property
  def knowledge(self) -> Knowledge:
    known = {"classes": self.classes, "category_ids": self.category_ids}
    return Knowledge(self._bind, lambda names: {k: v for k, v in known.items() if k in names})

  def _draw(self, image: np.ndarray, record) -> np.ndarray:
    from rtune.display.draw_labels import draw_labels

    return draw_labels(image, record["labels"], self.classes)


def _record(prediction: LabelMap, features, raw: Example) -> dict[str, object]:
  """One image's labels in pixels of the original image."""
  labels_HW = augment.map_to_original(np.asarray(prediction.labels), features["content"])
  return {"image_id": raw["image_id"], "labels": labels_HW.astype(np.int16)}


def _annotated(raw: Example) -> dict[str, object]:
  return {"image_id": raw["image_id"], "labels": raw["label_map"]}


def _unlabeled(image: np.ndarray, image_id: int) -> Example:
  # Every pixel has some label, so that none is ignored; which one nobody looks at.
  return {
    "image": image,
    "image_id": image_id,
    "label_map": np.zeros(image.shape[:2], np.int16),
  }
