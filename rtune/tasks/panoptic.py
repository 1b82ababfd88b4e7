"""Panoptic segmentation through learned codes, in the layout of UViM (2205.10337).

The code model has two heads for each pixel: semantics (channel 0 is void, then the classes) and
instances (channel 0 is void, then segments in an order that follows from where they are). A segment
is the pixels of one instance, and its class is what the semantics of all of them say together.

Dimension key:
  B: batch
  S: samples for each image
  I: image height and width in pixels
  L: codes of an image
  M: slots of segments, of which 0 is void
  N: patches
  C: semantic channels: void and the classes
  P: pixels of a patch
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from rtune.config.build import as_kind
from rtune.data import augment
from rtune.data.source import Example, SegmentCounts, SegmentSource, Source
from rtune.display import console
from rtune.errors import UsageError
from rtune.models.codes import CodeModel, code_model
from rtune.models.sizes import CodeSizes
from rtune.policies.policy import Scored
from rtune.policies.space import Tokens
from rtune.predictions.patches import patches
from rtune.predictions.segments import (
  AnnotatedSegments,
  Segments,
  canonical,
  merge_stuff,
  numbered,
  segments_of,
)
from rtune.tasks import coded
from rtune.tasks.task import Knowledge, Served, View

_READ = (
  "ids[y, x] is the segment of each pixel of the canvas; segment i is of class labels[i] where "
  "present[i], else its pixels are void"
)


@dataclasses.dataclass(frozen=True)
class Panoptic:
  """The panoptic task."""

  image_size: int = 512  # side of the square model input in pixels
  max_segments: int = 100  # slots for the segments of an image; one of them is void
  codes: CodeSizes | Mapping[str, Any] = dataclasses.field(default_factory=CodeSizes)
  classes: tuple[str, ...] = ()  # names; taken from the training data when empty
  category_ids: tuple[int, ...] = ()  # ids in results files; taken from the data when empty
  things: tuple[bool, ...] = ()  # classes with instances; taken from the data when empty
  flip: float = 0.5  # chance of a horizontal flip in training
  scale_min: float = 1.0  # scale jitter in training
  scale_max: float = 1.0  # scale jitter in training; above 1 crops
  color_jitter: float = 0.0  # strength of changes of brightness, contrast and saturation
  stretch: bool = False  # images fill the square, as UViM's do, instead of keeping their aspect
  min_fraction: float = 0.0  # predicted segments with no more than this share of the pixels go

  def __post_init__(self):
    augment.check_jitter(self.color_jitter)
    if isinstance(self.codes, Mapping):
      codes = as_kind(CodeSizes, self.codes, "config.task.args.codes")
      object.__setattr__(self, "codes", codes)
    for name, least, most in (
      ("image_size", 1, 2**16),
      ("max_segments", 2, 2**16),
      ("min_fraction", 0, 1),
    ):
      value = getattr(self, name)
      if not least <= value <= most:
        raise UsageError(
          f"config.task.args.{name} is {value}; it must lie between {least} and {most}."
        )

  def _bind(self, source: Source) -> "Panoptic":
    if not isinstance(source, SegmentSource):
      raise UsageError(
        f"{type(source).__name__} has no segments: panoptic segmentation needs a source with "
        "`classes`, `category_ids` and `things`."
      )
    counts = source.segment_counts() if isinstance(source, SegmentCounts) else np.zeros(0, int)
    if (counts >= self.max_segments).any():
      self._warn_of_more(f"{(counts >= self.max_segments).sum()} images have", int(counts.max()))
    if self.classes:
      return self
    return dataclasses.replace(
      self, classes=source.classes, category_ids=source.category_ids, things=source.things
    )

  def _warn_of_more(self, who: str, most: int) -> None:
    console.warn_once(
      "max_segments",
      f"{who} more than {self.max_segments - 1} segments (most: {most}), all that "
      f"task.args.max_segments={self.max_segments} has slots for beside void; the largest are "
      "imitated and rewarded, the others are void there. Evaluation counts all.",
    )

  def example(self, raw: Example, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    size, shape = self.image_size, raw["image"].shape[:2]
    if rng is None:
      view = augment.whole_view(*shape, size, stretch=self.stretch)
    else:
      scales = {"scale_min": self.scale_min, "scale_max": self.scale_max}
      view = augment.random_view(*shape, size, rng, flip=self.flip, stretch=self.stretch, **scales)
    image = augment.see(raw["image"], view, size)
    if rng is not None:
      image = augment.jitter(image, rng, self.color_jitter)
    segments = augment.see_map(raw["segments"], view, size)
    slots_II, rows, more = canonical(segments, self.max_segments)
    if more:
      self._warn_of_more("There are images with", len(rows) + more)
    labels, crowd = np.full(self.max_segments, -1, np.int32), np.zeros(self.max_segments, bool)
    labels[1 : 1 + len(rows)], crowd[1 : 1 + len(rows)] = raw["labels"][rows], raw["crowd"][rows]
    return {
      "image": image,
      "segments": slots_II,
      "labels": labels,
      "crowd": crowd,
      "content": augment.content(*shape, view, size),
    }

  def codes_of(self) -> CodeModel:
    channels = (("semantics", len(self.classes) + 1), ("instances", self.max_segments))
    return code_model(self.codes, self.image_size, channels)

  def labels(self, batch) -> dict[str, Float[Array, "b n c p"]]:
    """One-hot over the channels of each head."""
    counts = {"semantics": len(self.classes) + 1, "instances": self.max_segments}
    channels = self._channels(batch)
    return {name: jax.nn.one_hot(channels[name], counts[name], axis=-2) for name in counts}

  def _channels(self, batch) -> dict[str, Int[Array, "b n p"]]:
    """The channel of each head that is right at each pixel, in patches."""
    slots_BII = batch["segments"].astype(jnp.int32)
    semantic_BM = batch["labels"] + 1
    semantic_BII = jax.vmap(lambda own_M, slots_II: own_M[slots_II])(semantic_BM, slots_BII)
    maps = {"semantics": semantic_BII, "instances": slots_BII}
    size = self.codes.patch_size
    return {
      name: patches(value[..., None].astype(jnp.float32), size)[..., 0, :].astype(jnp.int32)
      for name, value in maps.items()
    }

  def code_loss(self, logits, batch) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Cross-entropy of each pixel, averaged, in nats; the sum over both heads."""
    losses = {}
    for name, channel_BNP in self._channels(batch).items():
      right_BNP = jnp.take_along_axis(logits[name], channel_BNP[:, :, None], axis=2)[:, :, 0]
      total_BNP = jax.nn.logsumexp(logits[name], axis=2)
      losses[f"loss_{name}"] = jnp.mean(total_BNP - right_BNP)
    return sum(losses.values()), losses

  def inputs(self, batch) -> UInt8[Array, "b i i 3"]:
    return batch["image"]

  def space(self) -> Tokens:
    return coded.code_space(self.codes)

  def targets(self, frozen, batch, key) -> Int[Array, "b l"]:
    return coded.code_targets(self.codes_of(), frozen, self.labels(batch), batch["image"])

  def decode(
    self, frozen, actions: Int[Array, "b *s l"], batch, scored: Scored | None = None
  ) -> Segments:
    """Total: any codes are some segments."""
    logits = coded.code_logits(self.codes_of(), frozen, actions, batch["image"])
    found = segments_of(logits["semantics"], logits["instances"], self.min_fraction)
    return merge_stuff(found, jnp.asarray(self.things))

  def truth(self, batch) -> AnnotatedSegments:
    labels = batch["labels"]
    slots = batch["segments"].astype(jnp.int32)
    return AnnotatedSegments(slots, jnp.maximum(labels, 0), labels >= 0, batch["crowd"])

  @property
  def view(self) -> View:
    from rtune.data.sources.coco_panoptic import CocoPanoptic

    return View(
      record=self._record,
      draw=self._draw,
      headline=("PQ", "SQ", "RQ", "PQ_things", "PQ_stuff"),
      watched=("PQ", "PQ_things", "PQ_stuff"),
      annotated=_annotated,
      unlabeled=_unlabeled,
      source=CocoPanoptic,
      metrics=("rtune.metrics.segments:panoptic",),
      served=self._served(),
    )

  @property
  def knowledge(self) -> Knowledge:
    known = {name: getattr(self, name) for name in ("classes", "category_ids", "things")}
    return Knowledge(self._bind, lambda names: {k: v for k, v in known.items() if k in names})

  def _record(self, prediction: Segments, features, raw: Example) -> dict[str, object]:
    """One image's segments in pixels of the original image."""
    slots_HW = augment.map_to_original(np.asarray(prediction.ids), features["content"])
    count = np.bincount(slots_HW.ravel(), minlength=self.max_segments)
    rows = ((count > 0) & np.asarray(prediction.present)).nonzero()[0]
    labels = np.asarray(prediction.labels)[rows]
    return {"image_id": raw["image_id"], "segments": numbered(slots_HW, rows), "labels": labels}

  def _served(self) -> Served:
    resize, size = "stretch" if self.stretch else "fit", (self.image_size,) * 2
    return Served(resize, size, _READ, {"classes": self.classes})

  def _draw(self, image: np.ndarray, record) -> np.ndarray:
    from rtune.display.draw_segments import draw_segments

    return draw_segments(image, record["segments"], record["labels"], self.classes)


def _unlabeled(image: np.ndarray, image_id: int) -> Example:
  return {
    "image": image,
    "image_id": image_id,
    "segments": np.zeros(image.shape[:2], np.uint8),
    "labels": np.zeros(0, np.int32),
    "crowd": np.zeros(0, bool),
  }


def _annotated(raw: Example) -> dict[str, object]:
  return {name: raw[name] for name in ("image_id", "segments", "labels")}
