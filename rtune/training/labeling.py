"""A model's own labels for images that it has not been trained on.

Dimension key:
  B: batch of images
  H, W: height and width in pixels
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int16, UInt8, UInt16

from rtune.data import augment
from rtune.data.source import Example, Source
from rtune.data.unreadable import Unreadable
from rtune.devices import sharding
from rtune.display.progress import Progress
from rtune.predictions import certainty
from rtune.predictions.labels import IGNORE
from rtune.tasks.task import Task, view
from rtune.training.evaluation import batches
from rtune.training.setup import Setup

_FINE = 4096  # steps of a nat that entropies are rounded to, to be resized like labels


class Labeled(NamedTuple):
  """What a model says of an image, in pixels of the original.

  Attributes:
    index: its place in the source.
    labels: likeliest classes.
    levels: how sure of them the model is, see `certainty`.
    entropy: of each pixel, in nats.
    truth: what somebody has labeled; None where nobody has.
  """

  index: int
  labels: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]
  levels: UInt16[np.ndarray, "h w"]
  entropy: Float[np.ndarray, "h w"]
  truth: Int16[np.ndarray, "h w"] | None


class Unlabeled:
  """A source's images as if nobody had annotated them; what is known of them is their truth."""

  def __init__(self, source: Source, task: Task):
    self._source, self._unlabeled = source, view(task).unlabeled

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Example:
    raw = self._source[index]
    return {**self._unlabeled(raw["image"], raw["image_id"]), "truth": raw.get("label_map")}


def label(
  setup: Setup, params: Any, source: Source, title: str, unreadable: Unreadable | None = None
) -> Iterator[Labeled]:
  """Labels images one by one, in their order; of several processes each labels its own.

  Images that cannot be read have no label where `unreadable` takes them.
  """
  task, policy = setup.task, setup.policy
  params = sharding.gather(params, setup.mesh)

  @jax.jit
  def look(frozen, params, batch):
    inputs = task.inputs(batch)
    actions_B1HW = policy.best(params, inputs)[:, None]
    scored = policy.score(params, inputs, actions_B1HW)
    labels_BHW = task.decode(frozen, actions_B1HW, batch, None).labels[:, 0]
    by_pixel = (jnp.exp(scored.log_prob), policy.entropy(scored))
    return labels_BHW, *(x.reshape(labels_BHW.shape) for x in by_pixel)

  with Progress(len(source), title, "image", images_per_unit=1) as progress:
    given = setup.config.data, task, setup.mesh, Unlabeled(source, task), 0, unreadable
    for batch, inputs in batches(*given):
      found = jax.tree.map(sharding.local_rows, look(setup.frozen, params, inputs))
      for row, truth in enumerate(batch.truths):
        content = batch.features["content"][row]
        yield _of_original(int(batch.indices[row]), [x[row] for x in found], content, truth)
      progress.update(min(len(source), int(batch.indices[-1]) + 1))


def _of_original(index: int, found, content, raw: Example) -> Labeled:
  labels, probability, entropy = found
  kind = np.uint8 if labels.max() < 2**8 else np.uint16
  fine = np.rint(entropy * _FINE).astype(np.int32)
  levels = certainty.levels_of(probability)
  maps = (augment.map_to_original(x, content) for x in (labels.astype(kind), levels, fine))
  labels, levels, fine = maps
  truth = raw["truth"]
  known = truth is not None and bool((truth != IGNORE).any())
  return Labeled(index, labels, levels, fine / _FINE, truth if known else None)
