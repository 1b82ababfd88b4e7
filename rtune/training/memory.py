"""Out of memory: what was asked for, and which settings ask for less."""

import contextlib
from collections.abc import Iterator

import jax

from rtune import config as configs
from rtune.errors import OutOfMemory

_LONGEST = 200


@contextlib.contextmanager
def told(config: configs.Config) -> Iterator[None]:
  """Within it an allocation that fails is one line, with the settings that take less."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text and "Out of memory" not in text:
      raise
    said = " ".join(text.split())[:_LONGEST]
    raise OutOfMemory(
      f"out of memory: {said}. Largest step: {_largest(config)}. Raise accumulate, lower "
      "batch_size, num_samples or data.eval_batch_size, or set config.model.remat; python -m "
      "rtune.plan with the same --config says what each step needs. The last checkpoint is kept."
    ) from error


def _largest(config: configs.Config) -> str:
  """The phase that holds most answers at once."""

  def held(name: str) -> int:
    phase = getattr(config, name)
    return phase.batch_size * getattr(phase, "num_samples", 1) // phase.accumulate

  name = max(config.phases, key=held)
  phase = getattr(config, name)
  samples = f", num_samples {phase.num_samples}" if hasattr(phase, "num_samples") else ""
  return f"{name} with batch_size {phase.batch_size}{samples}, accumulate {phase.accumulate}"
