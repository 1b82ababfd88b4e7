"""Dense layers with ReLU between them, as pure functions.

Dimension key:
  F: features
  K: outputs
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array, Float


class Layers(nn.Module):
  """Features [..., F] -> [..., K]."""

  widths: tuple[int, ...]
  zero: bool = False  # the last layer gives nothing at first

  @nn.compact
  def __call__(self, x: Float[Array, "*n f"]) -> Float[Array, "*n k"]:
    *hidden, last = self.widths
    for number, width in enumerate(hidden):
      init = nn.initializers.he_normal()
      x = nn.relu(nn.Dense(width, kernel_init=init, name=f"hidden_{number}")(x))
    init = nn.initializers.zeros if self.zero else nn.initializers.lecun_normal()
    return nn.Dense(last, kernel_init=init, name="out")(x)


class Mlp(NamedTuple):
  """init: (key, number of features) -> parameters; apply: (parameters, [..., F]) -> [..., K]."""

  init: Callable[..., dict[str, Any]]
  apply: Callable[..., Float[Array, "*n k"]]


def mlp(widths: tuple[int, ...], *, zero: bool = False) -> Mlp:
  """Dense layers of these widths, the last that of the outputs."""
  module = Layers(widths, zero)

  def init(key: Array, features: int) -> dict[str, Any]:
    return module.init(key, jax.numpy.zeros((1, features)))["params"]

  def apply(params: dict[str, Any], x: Float[Array, "*n f"]) -> Float[Array, "*n k"]:
    return module.apply({"params": params}, x)

  return Mlp(init, apply)
