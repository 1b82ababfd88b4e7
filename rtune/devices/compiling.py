"""What the compiler is told about programs that it would otherwise not compile well on CPUs."""

from collections.abc import Callable
from typing import Any

import jax

_WIDE = 256  # of a decoder, from which on its weights are too much to be packed for each token


def jit_once(function: Callable[..., Any], shardings: Any = None) -> Callable[..., Any]:
  """For what runs once, as drawing weights does: a third of the time, most of it the compiler's."""
  options = {"xla_backend_optimization_level": 0} if _on_cpu() else None
  return jax.jit(function, out_shardings=shardings, compiler_options=options)


def of_decoding(width: int) -> dict[str, Any] | None:
  """Options for programs that decode token by token with a decoder of this width.

  XLA gives products to YNNPACK, which packs the weights anew for each of a few tokens. With Eigen
  a decoder of width 384 is 1.2 times as fast, one of width 64 takes 1.1 times as long.
  """
  wide = _on_cpu() and width >= _WIDE
  return {"xla_cpu_experimental_ynn_fusion_type": ""} if wide else None


def _on_cpu() -> bool:
  return jax.default_backend() == "cpu"
