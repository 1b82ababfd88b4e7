"""Object detection by place: each place of a grid says whether an object's center is in it.

The other answer to the same question as `tasks.detection`, which writes boxes as a sequence. All
places are decided at once, so that few images and steps teach it, and each of them has its own
credit in tuning; what a sequence says of one box given the others, tuning has to teach here: not to
draw an object twice.

Dimension key:
  B: batch
  S: samples for each image
  N: boxes of an image
  T: places, row by row
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rtune.errors import UsageError
from rtune.policies.policy import Scored
from rtune.policies.space import Places
from rtune.predictions.boxes import Boxes
from rtune.tasks.detection import Detection

_LARGEST = 8.0  # logarithm of a side, in places, that is still told apart from larger ones


@dataclasses.dataclass(frozen=True)
class PlacedDetection(Detection):
  """Detection as a set of places; what it does not use of `Detection` are its tokens."""

  place: int = 16  # side of a place in pixels, config.model.encoder.patch_size

  def __post_init__(self):
    super().__post_init__()
    if self.place < 1 or self.image_size % self.place:
      raise UsageError(
        f"config.task.args.place is {self.place}; config.task.args.image_size={self.image_size} "
        "must be a multiple of it."
      )

  @property
  def side(self) -> int:
    """Places in a row, and rows."""
    return self.image_size // self.place

  def space(self) -> Places:
    return Places(self.side, self.side, len(self.classes))

  def targets(self, frozen, batch, key) -> dict[str, Array]:
    """Each object at the place of its center; of several at one the smallest."""
    boxes_BN4, labels_BN = batch["boxes"], batch["labels"]
    height, width = (boxes_BN4[..., k + 2] - boxes_BN4[..., k] for k in (0, 1))
    center = 0.5 * (boxes_BN4[..., :2] + boxes_BN4[..., 2:]) * self.side
    place = jnp.clip(jnp.floor(center), 0, self.side - 1).astype(jnp.int32)
    index_BN = place[..., 0] * self.side + place[..., 1]
    here_BTN = index_BN[:, None] == jnp.arange(self.side**2)[None, :, None]
    here_BTN &= (labels_BN >= 0)[:, None]
    area_BTN = jnp.where(here_BTN, (height * width)[:, None], jnp.inf)
    chosen_BT = jnp.argmin(area_BTN, axis=-1)
    sizes = jnp.log(jnp.maximum(jnp.stack([height, width], axis=-1) * self.side, 1e-3))
    offset = center - place.astype(center.dtype) - 0.5
    numbers_BN4 = jnp.concatenate([offset, sizes], axis=-1)
    return {
      "present": jnp.any(here_BTN, axis=-1),
      "label": jnp.maximum(jnp.take_along_axis(labels_BN, chosen_BT, axis=1), 0),
      "box": jnp.take_along_axis(numbers_BN4, chosen_BT[..., None], axis=1),
    }

  def decode(self, frozen, actions, batch, scored: Scored | None = None) -> Boxes:
    """A slot for each place. Scores are the policy's where `scored` is given, else 1."""
    present, label, numbers = actions["present"], actions["label"], actions["box"]
    place = jnp.stack(jnp.divmod(jnp.arange(self.side**2), self.side), axis=-1)
    middle = (place.astype(jnp.float32) + 0.5).reshape(*[1] * (numbers.ndim - 2), -1, 2)
    half = 0.5 * jnp.exp(jnp.minimum(numbers[..., 2:], _LARGEST))
    center = middle + numbers[..., :2]
    corners = jnp.concatenate([center - half, center + half], axis=-1)
    boxes = jnp.clip(corners / self.side, 0.0, 1.0)
    scores = jnp.ones(present.shape, jnp.float32)
    if scored is not None:
      outputs = scored.outputs
      of_label = jax.nn.softmax(outputs["label"])
      taken = jnp.take_along_axis(
        jnp.broadcast_to(of_label, (*label.shape, of_label.shape[-1])), label[..., None], axis=-1
      )
      scores = jax.nn.sigmoid(outputs["present"]) * taken[..., 0]
    return Boxes(boxes, label, present, jnp.where(present, scores, 0.0))
