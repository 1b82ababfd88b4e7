"""Object detection as a sequence of tokens, in the layout of the paper's released reward.

Six tokens a box: y0, x0, y1, x1, class, confidence. Tokens 0, 1, 2 are confidences (0 = nothing
here), then come the coordinate levels, then the classes. A token 0 where a box would begin ends the
sequence. Order of objects is random: no order is right.

Dimension key:
  B: batch
  S: samples for each image
  L: tokens, 6 for each slot
  N: box slots of the sequence
  V: vocabulary
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from rtune.data import augment
from rtune.data.source import BoxCounts, DetectionSource, Example, Partial, Source
from rtune.display import console
from rtune.errors import UsageError
from rtune.policies.policy import Scored
from rtune.policies.space import Ending, Tokens
from rtune.policies.tokens import alive
from rtune.predictions.boxes import Boxes
from rtune.tasks.task import Knowledge, Served, View

FIELDS = 6  # tokens of a box
CLASS = 4  # which of them is its class
CONFIDENCES = 3  # tokens 0 (nothing), 1 (a box that is off) and 2 (a box that fits)
_READ = (
  "boxes[i] = (y0, x0, y1, x1) as fractions of the canvas, of class labels[i] with scores[i] where "
  "present[i]; times the canvas and over the zoom of the resize they are pixels of the image, "
  "to be clipped to it"
)
ENDING = Ending(token=0, stride=FIELDS)


@dataclasses.dataclass(frozen=True)
class Detection:
  """The detection task."""

  image_size: int = 640  # side of the square model input in pixels
  max_boxes: int = 100  # slots of a sequence
  levels: int = 1001  # values of a coordinate
  classes: tuple[str, ...] = ()  # names; taken from the training data when empty
  category_ids: tuple[int, ...] = ()  # ids in results files; taken from the data when empty
  flip: float = 0.5  # chance of a horizontal flip in training
  scale_min: float = 1.0  # scale jitter in training
  scale_max: float = 1.0  # scale jitter in training; above 1 crops
  color_jitter: float = 0.0  # strength of changes of brightness, contrast and saturation
  min_visible: float = 0.3  # cropped objects with less than this share of their area are dropped
  tune_confidence: bool = True  # whether REINFORCE acts on confidence tokens, as the paper's does
  score_by: str = "confidence"  # a box's score: expected IoU, or "class": its class's probability
  clip_tokens: bool = False  # as the released code: illegal tokens become the nearest legal ones

  def __post_init__(self):
    augment.check_jitter(self.color_jitter)
    for name, least in (("image_size", 1), ("max_boxes", 1), ("levels", 2)):
      if getattr(self, name) < least:
        value = getattr(self, name)
        raise UsageError(f"config.task.args.{name} is {value}; it must be at least {least}.")
    if self.score_by not in ("confidence", "class"):
      raise UsageError(f"task.args.score_by is {self.score_by!r}; write 'confidence' or 'class'.")

  @property
  def length(self) -> int:
    return FIELDS * self.max_boxes

  @property
  def first_class(self) -> int:
    return CONFIDENCES + self.levels

  @property
  def vocab_size(self) -> int:
    return self.first_class + len(self.classes)

  def _bind(self, source: Source) -> "Detection":
    if not isinstance(source, DetectionSource):
      raise UsageError(
        f"{type(source).__name__} has no boxes: detection needs a source with `classes` and "
        "`category_ids`."
      )
    if isinstance(source, Partial) and self.scale_max > 1:
      raise UsageError(
        f"{type(source).__name__} says of whole images what is on them, and views for training are "
        f"cut: set config.task.args.scale_max=1 (it is {self.scale_max})."
      )
    counts = source.box_counts() if isinstance(source, BoxCounts) else np.zeros(0, int)
    if (counts > self.max_boxes).any():
      console.warn_once(
        "max_boxes",
        f"{(counts > self.max_boxes).sum()} images have more than task.args.max_boxes="
        f"{self.max_boxes} boxes (most: {counts.max()}); of these a random {self.max_boxes} are "
        "imitated. Evaluation counts all.",
      )
    if self.classes:
      return self
    return dataclasses.replace(self, classes=source.classes, category_ids=source.category_ids)

  def example(self, raw: Example, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    wanted = ~raw["crowd"]
    boxes, labels = raw["boxes"][wanted], raw["labels"][wanted]
    if rng is None:
      image, boxes, content = augment.fit(raw["image"], boxes, self.image_size)
    else:
      image, boxes, keep = augment.train_view(
        raw["image"],
        boxes,
        self.image_size,
        rng,
        flip=self.flip,
        scale_min=self.scale_min,
        scale_max=self.scale_max,
        min_visible=self.min_visible,
      )
      image = augment.jitter(image, rng, self.color_jitter)
      boxes, labels = boxes[keep], labels[keep]
      if len(labels) > self.max_boxes:  # a random subset: which ones is nobody's preference
        subset = rng.choice(len(labels), self.max_boxes, replace=False)
        boxes, labels = boxes[subset], labels[subset]
      content = np.array([1, 1, self.image_size, self.image_size], np.float32)
    slots = np.zeros((self.max_boxes, 4), np.float32)
    names = np.full(self.max_boxes, -1, np.int32)
    count = min(len(labels), self.max_boxes)
    slots[:count], names[:count] = boxes[:count], labels[:count]
    return {"image": image, "boxes": slots, "labels": names, "content": content}

  def inputs(self, batch) -> UInt8[Array, "b i i 3"]:
    return batch["image"]

  def space(self) -> Tokens:
    weights = () if self.tune_confidence else ((1.0,) * (FIELDS - 1) + (0.0,)) * self.max_boxes
    return Tokens(self.length, self.vocab_size, ENDING, weights)

  def targets(self, frozen, batch, key) -> Int[Array, "b l"]:
    """Tokens of the annotated boxes, in an order drawn anew each time."""
    present_BN = batch["labels"] >= 0
    rank_BN = jnp.where(present_BN, jax.random.uniform(key, present_BN.shape), jnp.inf)
    order_BN = jnp.argsort(rank_BN, axis=1)
    boxes = jnp.take_along_axis(batch["boxes"], order_BN[..., None], axis=1)
    labels = jnp.take_along_axis(batch["labels"], order_BN, axis=1)
    return self.tokens(boxes, labels)

  def tokens(self, boxes: Float[Array, "*b n 4"], labels: Int[Array, "*b n"]) -> Int[Array, "*b l"]:
    """Boxes with labels (-1 = empty slot) as tokens; a box is at least one level wide and high."""
    level = jnp.round(boxes * (self.levels - 1)).astype(jnp.int32)
    low = jnp.clip(level[..., :2], 0, self.levels - 2)
    high = jnp.clip(jnp.maximum(level[..., 2:], low + 1), 1, self.levels - 1)
    fields = [
      jnp.concatenate([low, high], axis=-1) + CONFIDENCES,
      labels[..., None] + self.first_class,
      jnp.full_like(labels[..., None], CONFIDENCES - 1),
    ]
    tokens = jnp.where(labels[..., None] >= 0, jnp.concatenate(fields, axis=-1), 0)
    return tokens.reshape(*labels.shape[:-1], -1)

  def decode(
    self, frozen, actions: Int[Array, "*b l"], batch, scored: Scored | None = None
  ) -> Boxes:
    """Total: any tokens decode; whatever is malformed is not a box.

    Scores are the policy's opinion where `scored` is given: the expected IoU, which is the share of
    confidence 2 among 1 and 2, or the probability of the class (as Pix2Seq ranks; fair to a model
    that was never taught confidences). Otherwise the confidence token says it.
    """
    fields = actions.reshape(*actions.shape[:-1], -1, FIELDS)
    level, label, confidence = fields[..., :4] - CONFIDENCES, fields[..., CLASS], fields[..., -1]
    label = label - self.first_class
    if self.clip_tokens:
      present = confidence > 0
    else:
      in_range = jnp.all((level >= 0) & (level < self.levels), axis=-1)
      real_class = (label >= 0) & (label < len(self.classes))
      upright = jnp.all(level[..., 2:] > level[..., :2], axis=-1)
      confident = (confidence > 0) & (confidence < CONFIDENCES)
      before_end = alive(actions, ENDING)[..., ::FIELDS] > 0
      present = in_range & real_class & upright & confident & before_end
    boxes = jnp.clip(level, 0, self.levels - 1) / (self.levels - 1)
    label = jnp.clip(label, 0, len(self.classes) - 1)
    if scored is None:
      scores = jnp.clip(confidence, 0, CONFIDENCES - 1) / (CONFIDENCES - 1)
    elif self.score_by == "class":
      scores = jnp.exp(scored.log_prob[..., CLASS::FIELDS])
    else:
      logits = scored.outputs[..., FIELDS - 1 :: FIELDS, 1:CONFIDENCES]
      scores = jax.nn.softmax(logits, axis=-1)[..., 1]
    return Boxes(boxes, label, present, jnp.where(present, scores, 0.0))

  def truth(self, batch) -> Boxes:
    present = batch["labels"] >= 0
    labels, scores = jnp.maximum(batch["labels"], 0), present.astype(jnp.float32)
    return Boxes(batch["boxes"], labels, present, scores)

  @property
  def view(self) -> View:
    from rtune.data.sources.coco import CocoDetection

    return View(
      record=self._record,
      draw=self._draw,
      headline=("AR", "AP", "AP50", "boxes", "score_iou"),
      watched=("AR", "AP"),
      annotated=self._annotated,
      unlabeled=_unlabeled,
      source=CocoDetection,
      metrics=("rtune.metrics.boxes:coco_boxes",),
      served=Served("fit", (self.image_size,) * 2, _READ, {"classes": self.classes}),
      content=_content,
    )

  @property
  def knowledge(self) -> Knowledge:
    known = {"classes": self.classes, "category_ids": self.category_ids}
    return Knowledge(self._bind, lambda names: {k: v for k, v in known.items() if k in names})

  def _record(self, prediction: Boxes, features, raw: Example) -> dict[str, object]:
    """One image's boxes in pixels of the original image."""
    present = np.asarray(prediction.present)
    boxes = augment.to_original(np.asarray(prediction.boxes)[present], features["content"])
    return {
      "image_id": raw["image_id"],
      "boxes": boxes,
      "labels": np.asarray(prediction.labels)[present],
      "scores": np.asarray(prediction.scores)[present],
    }

  @staticmethod
  def _annotated(raw: Example) -> dict[str, object]:
    wanted = ~raw["crowd"]
    return {
      "image_id": raw["image_id"],
      "boxes": raw["boxes"][wanted],
      "labels": raw["labels"][wanted],
    }

  def _draw(self, image: np.ndarray, record) -> np.ndarray:
    from rtune.display.draw import draw_boxes

    return draw_boxes(image, record["boxes"], record["labels"], record.get("scores"), self.classes)


def _content(prediction: Boxes) -> tuple[np.ndarray, ...]:
  """The boxes that are drawn; malformed ones are tokens too, and differ without a trace."""
  boxes, labels, present, _ = (np.asarray(x) for x in prediction)
  return boxes[present], labels[present]


def _unlabeled(image: np.ndarray, image_id: int) -> Example:
  none = np.zeros(0, np.float32)
  return {
    "image": image,
    "image_id": image_id,
    "boxes": none.reshape(0, 4),
    "labels": none.astype(np.int32),
    "crowd": none.astype(bool),
    "area": none,
  }
