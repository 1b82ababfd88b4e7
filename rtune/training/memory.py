"""Out of memory: what was asked for, and which settings ask for less."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from rtune import config as configs
from rtune.errors import OutOfMemory
from rtune.models import attention
from rtune.models.encoder_decoder import build
from rtune.plan import counts, memory
from rtune.policies.space import Tokens
from rtune.tasks.task import Task, view
from rtune.training.phases import phase_of
from rtune.training.setup import Setup

_LONGEST = 200
_NOW = "now"


@contextlib.contextmanager
def told(setup: Setup) -> Iterator[None]:
  """Within it an allocation that fails is one line, with the settings that take less."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text and "Out of memory" not in text:
      raise
    said = " ".join(text.split())[:_LONGEST]
    raise OutOfMemory(
      f"out of memory: {said}. {_advice(setup)}; python -m rtune.plan with the same --config says "
      "what each step needs. The last checkpoint is kept."
    ) from error


def _advice(setup: Setup) -> str:
  """The largest step and what takes less, with the plan's estimates where there are any."""
  name = _largest(setup.config)
  settings = getattr(setup.config, name)
  samples = f", num_samples {settings.num_samples}" if hasattr(settings, "num_samples") else ""
  step = (
    f"Largest step: {name} with batch_size {settings.batch_size}{samples}, accumulate "
    f"{settings.accumulate}"
  )
  try:
    estimates = _estimates(setup, name)
  except Exception:  # what is said of one failure must not end in another
    estimates = {}
  if not estimates:
    return (
      f"{step}. Raise accumulate, lower batch_size, num_samples or data.eval_batch_size, or set "
      "config.model.remat"
    )
  need = {key: f"{size / 2**30:.3g} GiB" for key, size in estimates.items()}
  less = ", ".join(f"{key}: {need[key]}" for key in need if estimates[key] < estimates[_NOW])
  return (
    f"{step}; by the plan's formula it takes {need[_NOW]} on a device. Less take {less}; "
    "evaluations take less with a lower data.eval_batch_size"
  )


def _largest(config: configs.Config) -> str:
  """The phase that holds most answers at once."""

  def held(name: str) -> int:
    phase = getattr(config, name)
    return phase.batch_size * getattr(phase, "num_samples", 1) // phase.accumulate

  return max(config.phases, key=held)


def _estimates(setup: Setup, name: str) -> dict[str, float]:
  """Bytes of a step on a device, as it is and with other settings; {} for what is not counted."""
  config, task, devices = setup.config, setup.task, setup.mesh.size
  settings, space = getattr(config, name), task.space()
  counted = config.policy.fn == configs.Config().policy.fn and phase_of(name).learns.answers
  if not counted or not isinstance(space, Tokens):
    return {}
  share, samples = settings.batch_size // devices, counts.answers(settings)
  model = build(config.model, space.vocab_size, space.length)

  def need(**changes: Any) -> float:
    sizes = counts.Sizes(
      model,
      _image_size(task),
      space.length,
      changes.get("share", share),
      changes.get("samples", samples),
    )
    update = memory.update_memory(
      sizes,
      settings.optim.name,
      remat=changes.get("remat", config.model.remat),
      kernel=memory.takes_kernel(sizes, attention.has_kernel),
      accumulate=changes.get("accumulate", settings.accumulate),
      shards=devices if changes.get("shard", config.shard_parameters) else 1,
    ).total
    return max(update, memory.sampling_memory(sizes)) if name == "reward" else update

  parts = 2 * settings.accumulate
  found = {_NOW: need()}
  if share % parts == 0:
    found[f"{name}.accumulate={parts}"] = need(accumulate=parts)
    found[f"{name}.batch_size={settings.batch_size // 2}"] = need(share=share // 2)
  if samples >= 4:
    found[f"{name}.num_samples={samples // 2}"] = need(samples=samples // 2)
  if jax.default_backend() != "cpu":  # its compiler undoes that, see docs/memory.md
    found["model.remat=true"] = need(remat=True)
  if devices > 1:
    found["shard_parameters=true"] = need(shard=True)
  return found


def _image_size(task: Task) -> int:
  """Pixels of a side of what the policy sees; nothing is put on a device."""
  blank = view(task).unlabeled(np.zeros((64, 64, 3), np.uint8), 0)
  features = {name: np.asarray(value)[None] for name, value in task.example(blank, None).items()}
  return jax.eval_shape(task.inputs, features).shape[1]
