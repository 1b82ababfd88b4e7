"""A program in the formats that others run: StableHLO by jax.export, ONNX by jax2onnx."""

import jax

from rtune.errors import UsageError
from rtune.export.program import IMAGE, Program

PLATFORMS = ("cpu", "cuda", "tpu")
FILES = {"stablehlo": "model.stablehlo", "onnx": "model.onnx"}


def stablehlo(program: Program) -> bytes:
  """For `jax.export.deserialize(...).call(image)`, on any of `PLATFORMS`, with any batch size."""
  exported = jax.export.export(program.call, platforms=PLATFORMS)(_images(program))
  return bytes(exported.serialize())


def onnx(program: Program) -> bytes:
  """For onnxruntime, with any batch size.

  Raises:
    UsageError: the extra is not installed, or the program has what ONNX cannot say.
  """
  try:
    import jax2onnx
  except ImportError as error:
    raise UsageError("--format onnx needs jax2onnx: pip install 'rtune[onnx]'.") from error
  names = {"input_names": [IMAGE], "output_names": list(program.outputs)}
  try:
    made = jax2onnx.to_onnx(program.call, [_images(program)], **names)
  except (NotImplementedError, ValueError, TypeError, KeyError, RuntimeError) as error:
    first = str(error).strip().partition("\n")[0][:300]
    raise UsageError(
      f"jax2onnx cannot write this model as ONNX ({type(error).__name__}: {first}). "
      "--format stablehlo takes every model."
    ) from error
  return made.SerializeToString()


def _images(program: Program) -> jax.ShapeDtypeStruct:
  """A batch of any size."""
  one = program.image
  shape = jax.export.symbolic_shape("batch, ...", like=(1, *one.shape))
  return jax.ShapeDtypeStruct(shape, one.dtype)
