"""Writes an exported model and what one must know of it."""

import json
import os
import pathlib

import jax

from rtune.disk import write_whole
from rtune.errors import UsageError
from rtune.export import formats
from rtune.export.program import program_of, sidecar_of
from rtune.inference.model import load
from rtune.tasks.task import view

SIDECAR = "model.json"


def write(
  workdir: str | os.PathLike[str],
  out: pathlib.Path,
  *,
  form: str = "stablehlo",
  phase: str = "",
  weights: str = "last",
  size: tuple[int, int] | None = None,
  trust: bool = False,
) -> pathlib.Path:
  """Writes `model.stablehlo` or `model.onnx`, and model.json; returns the path of the first.

  Args:
    out: folder to write to, which is there.
    form: "stablehlo" or "onnx".
    phase, weights, trust: as of `rtune.load`.
    size: height and width of images, where the task takes them as they are.

  Raises:
    UsageError: this model or size cannot be exported, or jax does not compute on a CPU: programs
      that are traced for another device may hold kernels of that device alone.
  """
  if jax.default_backend() != "cpu":
    raise UsageError("a model is exported on the CPU; set JAX_PLATFORMS=cpu.")
  model = load(workdir, phase, weights=weights, trust=trust)
  program = program_of(model, size)
  make = {"stablehlo": formats.stablehlo, "onnx": formats.onnx}[form]
  path = out / formats.FILES[form]
  write_whole(path, make(program))
  record = {"format": form, **sidecar_of(model, program, view(model.run.task).served)}
  write_whole(out / SIDECAR, json.dumps(record, indent=2) + "\n")
  return path
