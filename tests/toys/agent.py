"""A toy whose answers are the steps of an agent: each moves it, and it sees where it has come to.

Dimension key:
  B: batch of images
  S: samples for each image
  T: steps
  K: numbers of a step, and of a place
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rtune.metrics.metric import Metric
from rtune.policies import heads
from rtune.policies.policy import Policy, Sampled, Scored
from rtune.policies.space import Steps
from rtune.tasks.task import View


def policy(space: Steps, *, scale: float = 0.3) -> Policy:
  """The mean of a step is linear in the place: gain * place + bias."""

  def init(key, start_BK):
    gain = 0.3 * jax.random.normal(key, (space.size,))
    return {"gain": gain, "bias": 0 * gain, "log_scale": 0 * gain + jnp.log(scale)}

  def normal(params, place):
    every = {name: jnp.broadcast_to(value, place.shape) for name, value in params.items()}
    return heads.Normal(every["gain"] * place + every["bias"], jnp.exp(every["log_scale"]))

  def walk(params, start_BK, choose, num_samples):
    place_BSK = jnp.repeat(start_BK[:, None], num_samples, axis=1)
    actions, log_probs = [], []
    for step in range(space.steps):
      at = normal(params, place_BSK)
      actions.append(choose(step, at))
      log_probs.append(heads.normal.log_prob(at, actions[-1]).sum(-1))
      place_BSK += actions[-1]
    return Sampled(jnp.stack(actions, 2), jnp.stack(log_probs, 2))

  def sample(params, start_BK, key, num_samples):
    def choose(step, at):
      return heads.normal.sample(jax.random.fold_in(key, step), at)

    return walk(params, start_BK, choose, num_samples)

  def score(params, start_BK, actions_BSTK, key=None):
    moved_BSTK = jnp.cumsum(actions_BSTK, axis=2) - actions_BSTK
    at = normal(params, start_BK[:, None, None] + moved_BSTK)
    log_prob_BST = heads.normal.log_prob(at, actions_BSTK).sum(-1)
    return Scored(log_prob_BST, jnp.ones_like(log_prob_BST), at)

  def best(params, start_BK, effort=1):
    return walk(params, start_BK, lambda step, at: heads.normal.mode(at), 1).actions[:, 0]

  def entropy(scored):
    return heads.normal.entropy(scored.outputs).sum(-1)

  def divergence(scored, reference):
    return heads.normal.kl(scored.outputs, reference.outputs).sum(-1)

  return Policy(init, sample, score, best, entropy, divergence)


class Walk(NamedTuple):
  steps: jax.Array
  end: jax.Array


def reward(prediction: Walk, truth: Walk, *, price: float = 0.1):
  """A reward: how near to the goal it ends, minus the price of long steps."""
  cost = jnp.sum(prediction.steps**2)
  return {"reward": -jnp.sum((prediction.end - truth.end) ** 2) - price * cost, "cost": cost}


def metric() -> Metric:
  """How far from the goal it ends."""

  def update(state, record, truth):
    return [*state, np.linalg.norm(record["end"] - truth["goal"])]

  def compute(state):
    return {"distance": float(np.mean(state))}

  return Metric(list, update, compute, results=lambda state: [{"distances": len(state)}])


class Data:
  """Red and green of a picture say where the agent starts; the goal is close to (0.5, 0.5)."""

  def __len__(self):
    return 32

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    image = np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (4, 4, 3))
    goal = rng.normal(0.5, 0.1, 2).astype(np.float32)
    return {"image": image, "image_id": index, "goal": goal}


def _unlabeled(image, image_id):
  return {"image": image, "image_id": image_id, "goal": np.zeros(2, np.float32)}


_VIEW = View(headline=("distance",), lower=("distance",), unlabeled=_unlabeled)


@dataclasses.dataclass(frozen=True)
class Task:
  """Six functions, and a view."""

  steps: int = 3
  view: View = _VIEW

  def example(self, raw, rng):
    start = raw["image"][..., :2].mean((0, 1)) / 255
    return {"start": start.astype(np.float32), "goal": raw["goal"]}

  def inputs(self, batch):
    return batch["start"]

  def space(self):
    return Steps(self.steps, size=2)

  def targets(self, frozen, batch, key):
    move_BK = (batch["goal"] - batch["start"]) / self.steps
    return jnp.repeat(move_BK[:, None], self.steps, axis=1)

  def decode(self, frozen, actions, batch, scored):
    return Walk(actions, batch["start"][:, None] + actions.sum(2))

  def truth(self, batch):
    return Walk(self.targets({}, batch, None), batch["goal"])
