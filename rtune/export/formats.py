"""A program in the formats that others run: StableHLO by jax.export, ONNX by jax2onnx."""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rtune.errors import UsageError
from rtune.export.program import IMAGE, Program

PLATFORMS = ("cpu", "cuda", "tpu")
FILES = {"stablehlo": "model.stablehlo", "onnx": "model.onnx"}
_resize = jax.image.resize  # before jax2onnx replaces it
_TRIED = (1, 3)  # batches that an ONNX file must answer alike
_CLOSE = 1e-4  # of the largest number of an answer
_TIES = 0.01  # share of an answer that may differ: rounding decides what is all but equal


def stablehlo(program: Program) -> bytes:
  """For `jax.export.deserialize(...).call(image)`, on any of `PLATFORMS`, with any batch size.

  Raises:
    UsageError: what jax serializes with is not installed.
  """
  if importlib.util.find_spec("flatbuffers") is None:
    raise UsageError("jax needs flatbuffers to write StableHLO: pip install 'rtune[export]'.")
  exported = jax.export.export(program.call, platforms=PLATFORMS)(_images(program))
  return bytes(exported.serialize())


def onnx(program: Program) -> bytes:
  """For onnxruntime, with any batch size; what it answers there has been compared.

  Raises:
    UsageError: the extra is not installed, jax2onnx cannot translate the program, or what it makes
      of it answers differently.
  """
  try:
    import jax2onnx
    import onnxruntime
  except ImportError as error:
    raise UsageError("--format onnx needs jax2onnx: pip install 'rtune[onnx]'.") from error
  names = {"input_names": [IMAGE], "output_names": list(program.outputs)}
  try:
    made = jax2onnx.to_onnx(_with_own_resize(program.call), [_images(program)], **names)
    written = made.SerializeToString()
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    check_answers(program, lambda images: session.run(list(program.outputs), {IMAGE: images}))
  except Exception as error:  # both raise errors of many kinds
    first = str(error).strip().partition("\n")[0][:300]
    raise UsageError(
      f"jax2onnx cannot write this model as ONNX ({type(error).__name__}: {first}). "
      "--format stablehlo takes every model."
    ) from error
  return written


def _with_own_resize(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
  """While jax2onnx traces, its jax.image.resize takes no symbolic batch; that of jax does."""

  def traced(image):
    theirs, jax.image.resize = jax.image.resize, _resize
    try:
      return call(image)
    finally:
      jax.image.resize = theirs

  return traced


def check_answers(program: Program, run: Callable[[np.ndarray], list[np.ndarray]]) -> None:
  """ValueError where a file answers noise otherwise than the program that it was made of."""
  rng, one = np.random.default_rng(0), program.image
  for number in _TRIED:
    noise = rng.random((number, *one.shape), np.float32)
    images = noise if one.dtype == np.float32 else (256 * noise).astype(one.dtype)
    wanted = program.call(images)
    for (name, spec), found in zip(program.outputs.items(), run(images), strict=True):
      own = np.asarray(wanted[name])
      if found.shape != (number, *spec.shape):
        raise ValueError(f"{name} of {number} images has the shape {found.shape}")
      allowed = _CLOSE * max(1.0, float(np.abs(own).max())) if own.dtype.kind == "f" else 0
      differ = np.mean(~np.isclose(found, own, 0, allowed))
      if differ > _TIES:
        raise ValueError(f"{name} of the file differs from the model's in {differ:.0%} of it")


def _images(program: Program) -> jax.ShapeDtypeStruct:
  """A batch of any size."""
  one = program.image
  shape = jax.export.symbolic_shape("batch, ...", like=(1, *one.shape))
  return jax.ShapeDtypeStruct(shape, one.dtype)
