"""A toy whose answers are images: a normal number for each channel of each pixel.

Dimension key:
  B: batch of images
  S: samples for each image
  H, W: height and width
  C: channels
  T: pixels
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image as Picture

from rtune.metrics.metric import Metric
from rtune.policies import heads
from rtune.policies.policy import Policy, Sampled, Scored
from rtune.policies.space import Image


def policy(space: Image, *, scale: float = 0.3) -> Policy:
  """Mean and scale of each number are learned; the gray that is given moves the mean."""
  shape = space.height, space.width, space.channels

  def init(key, inputs):
    log_scale = jnp.full(shape, jnp.log(scale))
    return {"mean": jax.random.normal(key, shape), "gain": jnp.ones(shape), "log_scale": log_scale}

  def normal(params, inputs, samples):
    gray = inputs["image"][:, None, ..., None] / 255
    mean = params["mean"][None, None] + params["gain"][None, None] * gray
    mean = jnp.broadcast_to(mean, (len(mean), samples, *shape))
    return heads.Normal(mean, jnp.broadcast_to(jnp.exp(params["log_scale"]), mean.shape))

  def by_pixel(values):
    return values.sum(-1).reshape(*values.shape[:2], -1)

  def sample(params, inputs, key, num_samples):
    at = normal(params, inputs, num_samples)
    values = heads.normal.sample(key, at)
    return Sampled(values, by_pixel(heads.normal.log_prob(at, values)))

  def score(params, inputs, actions, key=None):
    at = normal(params, inputs, actions.shape[1])
    log_prob_BST = by_pixel(heads.normal.log_prob(at, actions))
    return Scored(log_prob_BST, jnp.ones_like(log_prob_BST), at)

  def entropy(scored):
    return by_pixel(heads.normal.entropy(scored.outputs))

  def divergence(scored, reference):
    return by_pixel(heads.normal.kl(scored.outputs, reference.outputs))

  def best(params, inputs, effort=1):
    return heads.normal.mode(normal(params, inputs, 1))[:, 0]

  return Policy(init, sample, score, best, entropy, divergence, sequential=False)


class Pixels(NamedTuple):
  pixels: jax.Array


def reward(prediction: Pixels, truth: Pixels):
  """A reward: minus the mean squared error."""
  return -jnp.mean((prediction.pixels - truth.pixels) ** 2)


def metric() -> Metric:
  """The root of the mean squared error."""

  def update(state, record, truth):
    return [*state, np.mean((record["pixels"] - truth["tinted"]) ** 2)]

  return Metric(list, update, lambda state: {"error": float(np.sqrt(np.mean(state)))})


class Data:
  """Gray pictures, and the two colors that each pixel shall have, with some noise."""

  def __len__(self):
    return 32

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    gray = rng.integers(0, 256, (2, 3, 1), np.uint8)
    tinted = np.float32(gray / 255) * [1, -1] + rng.normal(0, 0.1, (2, 3, 2))
    return {"image": gray.repeat(3, -1), "image_id": index, "tinted": tinted.astype(np.float32)}


@dataclasses.dataclass(frozen=True)
class Task:
  """Six functions."""

  height: int = 2
  width: int = 3

  def example(self, raw, rng):
    gray = Picture.fromarray(raw["image"]).convert("L").resize((self.width, self.height))
    tinted = raw.get("tinted", np.zeros((self.height, self.width, 2), np.float32))
    return {"image": np.asarray(gray), "tinted": tinted}

  def inputs(self, batch):
    return {"image": batch["image"]}

  def space(self):
    return Image(self.height, self.width, channels=2)

  def targets(self, frozen, batch, key):
    return batch["tinted"]

  def decode(self, frozen, actions, batch, scored):
    return Pixels(actions)

  def truth(self, batch):
    return Pixels(batch["tinted"])
