"""What the compiler is told about programs that it would otherwise not compile well."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

_WIDE = 256  # of a decoder, from which on its weights are too much to be packed for each token


def jit_once(function: Callable[..., Any], shardings: Any = None) -> Callable[..., Any]:
  """For what runs once, as drawing weights does: most of its time is the compiler's.

  On CPUs a third of it is left. For GPUs weights of a ViT-B took 93 s of two cores to compile: each
  draw is written out, and many draws are one kernel of ten thousand operations. jaxlib's own kernel
  draws the same numbers; they take 8 s.
  """
  options = {"xla_backend_optimization_level": 0} if _on_cpu() else None
  compiled = jax.jit(function, out_shardings=shardings, compiler_options=options)

  def once(*args: Any) -> Any:
    with _drawing_kernel():
      return compiled(*args)

  return once


@contextlib.contextmanager
def _drawing_kernel() -> Iterator[None]:
  """Random numbers of programs for GPUs come from a kernel of jaxlib; it fuses with nothing."""
  before = jax.config.jax_threefry_gpu_kernel_lowering
  jax.config.update("jax_threefry_gpu_kernel_lowering", True)
  try:
    yield
  finally:
    jax.config.update("jax_threefry_gpu_kernel_lowering", before)


def of_decoding(width: int, dtype: jnp.dtype) -> dict[str, Any] | None:
  """Options for programs that decode token by token with a decoder of this width.

  XLA gives products to YNNPACK, which packs the weights anew for each of a few tokens. With Eigen
  a decoder of width 384 is 1.2 times as fast in float32, one of width 64 takes 1.1 times as long.
  In bfloat16 YNNPACK is the faster one: it has the instructions of CPUs that have some.
  """
  packs = _on_cpu() and width >= _WIDE and dtype == jnp.float32
  return {"xla_cpu_experimental_ynn_fusion_type": ""} if packs else None


def _on_cpu() -> bool:
  return jax.default_backend() == "cpu"
