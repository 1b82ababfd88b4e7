"""What it saves to keep the features of a frozen backbone: the same steps with them and without.

Images are noise and weights are random: neither changes how long a step takes.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float16

from rtune.benchmark.loop import Loop, assembled, make_loop, on_devices, train_batches
from rtune.benchmark.row import Row
from rtune.benchmark.timing import interleaved
from rtune.config.load import load_config
from rtune.display.clock import Clock
from rtune.training.setup import prepare
from rtune.training.update import FEATURES, Batch, Metrics

_CONFIG = "configs/detection_recall.py"
# Its :coco_json on the backbone of the extra `backbones`, without files.
_BOXES, _FROZEN = "rtune.benchmark.noise:Boxes", "(('encoder/backbone/.*', 0.0),)"
SETTINGS: Mapping[str, str] = {
  "data.train.fn": _BOXES,
  "data.train.args": "{'size': 160}",
  "data.val.fn": _BOXES,
  "data.val.args": "{'size': 160}",
  "task.args.image_size": "160",
  "model.encoder.backbone": "vgg16",
  "model.encoder.patch_size": "16",
  "model.encoder.conv_stem": "False",
  "model.encoder.width": "128",
  "model.encoder.depth": "1",
  "model.encoder.mlp_dim": "256",
  "mle.optim.lr_multipliers": _FROZEN,
  "reward.optim.lr_multipliers": _FROZEN,
}


def feature_rows(repeats: int) -> list[Row]:
  """Steps of imitation and of tuning, each with kept features and with the backbone in turns."""
  loop = make_loop(prepare(load_config(_CONFIG, list(SETTINGS.items()))))
  rows = []
  for phase, title in (("mle", "imitation"), ("reward", "reward")):
    timed = interleaved(steppers(loop, phase), repeats)
    faster = f"{timed.ratio('computed', 'kept'):.1f} x as fast as with the backbone in each step"
    size = getattr(loop.setup.config, phase).batch_size
    for name, note in (("computed", ""), ("kept", faster)):
      row = f"{title} step, features of VGG16 at 160 px {name}"
      rows.append(Row("features", row, timed.median(name), size, "image", note=note))
  return rows


def steppers(loop: Loop, phase: str) -> dict[str, Callable[[], Metrics]]:
  """Calls that take a step each, on the same batch, and tell its metrics."""
  with train_batches(loop.setup, getattr(loop.setup.config, phase).batch_size) as batches:
    batch = on_devices(loop, next(batches))
  kept = batch | {FEATURES: _features(loop, batch)}
  return {"computed": _stepper(loop, phase, batch), "kept": _stepper(loop, phase, kept)}


def _stepper(loop: Loop, phase: str, batch: Batch) -> Callable[[], Metrics]:
  state, programs = assembled(loop, phase, Clock())

  def step() -> Metrics:
    nonlocal state
    state, metrics = programs.step(state, batch)
    return metrics

  return step


def _features(loop: Loop, batch: Batch) -> Float16[Array, "b n c"]:
  """As a run keeps them: in half precision."""
  setup = loop.setup

  @jax.jit
  def features(params, batch):
    return setup.policy.backbone.features(params, setup.task.inputs(batch)).astype(jnp.float16)

  return features(loop.params, batch)
