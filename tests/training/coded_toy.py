"""The smallest task with a code model: where the bright square of a picture is.

A config names it by its path, as a user's own task.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rtune import config as configs
from rtune.metrics.metric import Metric
from rtune.models.codes import code_model
from rtune.predictions.patches import patches, unpatch
from rtune.tasks import coded
from rtune.tasks.task import View

SIZE = 16


class Squares:
  """Pictures of a bright square on noise."""

  def __init__(self, size: int = 64, seed: int = 0):
    self._size, self._seed = size, seed

  def __len__(self):
    return self._size

  def __getitem__(self, index):
    rng = np.random.default_rng((self._seed, index))
    image = rng.integers(0, 128, (SIZE, SIZE, 3)).astype(np.uint8)
    top, left = rng.integers(0, SIZE - 8, 2)
    mask = np.zeros((SIZE, SIZE), np.int32)
    mask[top : top + 8, left : left + 8] = 1
    return {"image": image + np.uint8(127) * mask[..., None].astype(np.uint8), "image_id": index,
            "mask": mask}  # fmt: skip


class Mask(NamedTuple):
  mask: jax.Array


def agreement(prediction, truth, *, weight: float = 1.0):
  """Share of equal pixels: a reward."""
  return weight * jnp.mean(prediction.mask == truth.mask)


def accuracy() -> Metric:
  def update(state, record, truth):
    return [*state, float(np.mean(record["mask"] == truth["mask"]))]

  return Metric(list, update, lambda state: {"accuracy": float(np.mean(state))})


@dataclasses.dataclass(frozen=True)
class Find:
  """The task: the six functions of every task, and three of those with a code model."""

  codes: configs.CodeSizes | Mapping[str, Any]

  view = View(
    draw=lambda image, record: np.where(record["mask"][..., None] == 1, np.uint8(255), image),
    headline=("accuracy",),
    unlabeled=lambda image, image_id: {
      "image": image, "image_id": image_id, "mask": np.zeros((SIZE, SIZE), np.int32)
    },
    metrics=(f"{__file__}:accuracy",),
  )  # fmt: skip

  def __post_init__(self):
    codes = configs.as_kind(configs.CodeSizes, self.codes, "config.task.args.codes")
    object.__setattr__(self, "codes", codes)

  def example(self, raw, rng):
    return {"image": raw["image"], "mask": raw["mask"]}

  def inputs(self, batch):
    return batch["image"]

  def space(self):
    return coded.code_space(self.codes)

  def targets(self, frozen, batch, key):
    return coded.code_targets(self.codes_of(), frozen, self.labels(batch), batch["image"])

  def decode(self, frozen, actions, batch, scored):
    logits = coded.code_logits(self.codes_of(), frozen, actions, batch["image"])
    return Mask(jnp.argmax(unpatch(logits["mask"]), axis=-1))

  def truth(self, batch):
    return Mask(batch["mask"])

  def codes_of(self):
    return code_model(self.codes, SIZE, (("mask", 2),))

  def labels(self, batch):
    return {"mask": patches(jax.nn.one_hot(batch["mask"], 2), self.codes.patch_size)}

  def code_loss(self, logits, batch):
    nll = -jnp.sum(jax.nn.log_softmax(logits["mask"], -2) * self.labels(batch)["mask"], axis=-2)
    return jnp.mean(nll), {"loss_mask": jnp.mean(nll)}


def toy_config(**changes) -> configs.Config:
  """A run of three phases in seconds; `changes` as mle__steps=5."""
  config = configs.default()
  sizes = {"width": 16, "num_heads": 2, "mlp_dim": 32}
  code = {"patch_size": 4, "code_length": 4, "encoder_depth": 1, "decoder_depth": 1}
  code |= {"dict_size": 16, "codeword_dim": 8, **sizes}
  config.task.fn, config.task.args = f"{__file__}:Find", {"codes": code}
  config.data.train.fn = config.data.val.fn = f"{__file__}:Squares"
  config.data.val.args = {"size": 12, "seed": 1}
  config.model.encoder.update(patch_size=4, depth=1, **sizes)
  config.model.decoder.update(depth=1, **sizes)
  config.data.update(threads=1, prefetch=1, eval_batch_size=8)
  config.phases = ("codes", "mle", "reward")
  for phase in ("codes", "mle", "control", "reward"):
    config[phase].update(steps=4, batch_size=8)
    config[phase].optim.update(name="adam", lr=3e-3)
  config.reward.update(fn=f"{__file__}:agreement", num_samples=3)
  config.reward.optim.update(lr=1e-4)
  config.update(log_every=1, tensorboard=False)
  for name, value in changes.items():
    *parents, last = name.split("__")
    node = config
    for parent in parents:
      node = node[parent]
    node[last] = value
  return configs.parse(config)
