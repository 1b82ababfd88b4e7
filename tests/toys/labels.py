"""A toy whose answers are label maps: a class for each pixel, each drawn by itself.

Pixels that nobody has labeled are void: no class of theirs is drawn, and none counts.

Dimension key:
  B: batch of images
  S: samples for each image
  T: pixels
  K: classes
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from rtune.metrics.metric import Metric
from rtune.policies import heads
from rtune.policies.policy import Policy, Sampled, Scored
from rtune.policies.space import Labels
from rtune.tasks.task import View

VOID = 255


def policy(space: Labels) -> Policy:
  """Logits of a pixel are those of its place, and of its color."""
  size, pixels = (space.height, space.width), space.height * space.width

  def init(key, inputs):
    place = jax.random.normal(key, (pixels, space.classes))
    return {"place": place, "color": {"kernel": jnp.zeros((3, space.classes))}}

  def logits(params, inputs, samples):
    color = inputs["image"].reshape(-1, 1, pixels, 3) / 255
    logits = params["place"][None, None] + color @ params["color"]["kernel"]
    return jnp.broadcast_to(logits, (len(color), samples, pixels, space.classes))

  def counts(inputs):
    return ~inputs["void"].reshape(-1, 1, pixels)

  def sample(params, inputs, key, num_samples):
    logits_BSTK = logits(params, inputs, num_samples)
    labels_BST = jnp.where(counts(inputs), heads.categorical.sample(key, logits_BSTK), 0)
    log_prob_BST = heads.categorical.log_prob(logits_BSTK, labels_BST)
    log_prob_BST = jnp.where(counts(inputs), log_prob_BST, 0)
    return Sampled(labels_BST.reshape(*labels_BST.shape[:2], *size), log_prob_BST)

  def score(params, inputs, actions, key=None):
    labels_BST = actions.reshape(*actions.shape[:2], pixels)
    logits_BSTK = logits(params, inputs, labels_BST.shape[1])
    mask_BST = jnp.broadcast_to(counts(inputs), labels_BST.shape).astype(jnp.float32)
    log_prob_BST = heads.categorical.log_prob(logits_BSTK, labels_BST) * mask_BST
    return Scored(log_prob_BST, mask_BST, logits_BSTK)

  def best(params, inputs, effort=1):
    labels_BST = jnp.where(counts(inputs), heads.categorical.mode(logits(params, inputs, 1)), 0)
    return labels_BST.reshape(-1, *size)

  return Policy(
    init,
    sample,
    score,
    best,
    entropy=lambda scored: heads.categorical.entropy(scored.outputs),
    divergence=lambda scored, reference: heads.categorical.kl(scored.outputs, reference.outputs),
    sequential=False,
  )


class Map(NamedTuple):
  labels: jax.Array


def reward(prediction: Map, truth: Map, *, credit: bool = False):
  """A reward: the share of right pixels; what each pixel earned of it, where that is asked for."""
  same = (prediction.labels == truth.labels).reshape(-1)
  known = jnp.sum(truth.labels != VOID, dtype=jnp.float32)
  share = same.astype(jnp.float32) / jnp.maximum(known, 1)
  return {"reward": share.sum(), "credit": share} if credit else share.sum()


def metric() -> Metric:
  """The share of right pixels, of all pixels that are labeled."""

  def update(state, record, truth):
    known = truth["labels"] != VOID
    return [*state, ((record["labels"] == truth["labels"]).sum(), known.sum())]

  return Metric(list, update, lambda state: {"accuracy": float(np.divide(*np.sum(state, axis=0)))})


class Data:
  """Pictures of colored pixels; a pixel's class is its strongest color."""

  def __len__(self):
    return 32

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, (2, 2, 3), np.uint8)
    labels = np.where(rng.random((2, 2)) < 0.2, VOID, image.argmax(-1)).astype(np.int32)
    return {"image": image, "image_id": index, "labels": labels}


_VIEW = View(headline=("accuracy",), metrics=(f"{__file__}:metric",))


@dataclasses.dataclass(frozen=True)
class Task:
  """Six functions, and a view."""

  height: int = 2
  width: int = 2
  view: View = _VIEW

  def example(self, raw, rng):
    size = self.height, self.width
    image = np.asarray(Image.fromarray(raw["image"]).resize(size[::-1]))
    return {"image": image, "labels": raw.get("labels", np.zeros(size, np.int32))}

  def inputs(self, batch):
    return {"image": batch["image"], "void": batch["labels"] == VOID}

  def space(self):
    return Labels(self.height, self.width, classes=3)

  def targets(self, frozen, batch, key):
    return jnp.where(batch["labels"] == VOID, 0, batch["labels"])

  def decode(self, frozen, actions, batch, scored):
    return Map(actions)

  def truth(self, batch):
    return Map(batch["labels"])
