"""What tasks with dense answers share: a code model turns their labels into tokens and back.

The code model is their tokenizer. Phase `codes` trains it; then its variables are the `frozen` of
the Task's functions. Token = code + 1, for token 0 opens a sequence; all have the same length.

Dimension key:
  B: batch of images
  S: samples for each image
  I: image height and width in pixels
  L: codes of an image
  N: patches
  C: channels of one kind of label
  P: pixels of a patch
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from rtune.models.codes import CodeModel
from rtune.models.sizes import CodeSizes
from rtune.policies.space import Tokens
from rtune.tasks.task import Features, Task


@runtime_checkable
class CodedTask(Task, Protocol):
  """A task whose answers are codes of a code model; `codes` in its fields holds the settings."""

  codes: CodeSizes

  def codes_of(self) -> CodeModel:
    """The code model, without its parameters."""
    ...

  def labels(self, batch: Features) -> Mapping[str, Any]:
    """The truth as the code model takes it: {name: [B, N, C, P]} float. jit."""
    ...

  def code_loss(self, logits: Mapping[str, Any], batch: Features) -> tuple[Any, Mapping[str, Any]]:
    """Loss of reconstructed labels {name: [B, N, C, P]}: a scalar, and parts to log. jit."""
    ...


def code_space(codes: CodeSizes) -> Tokens:
  """The codes of an image: all of them, always."""
  return Tokens(codes.code_length, codes.dict_size + 1)


def code_targets(
  model: CodeModel, frozen: Any, labels: Mapping[str, Any], images: UInt8[Array, "b i i 3"]
) -> Int[Array, "b l"]:
  """What imitation imitates: the tokens of the true labels."""
  return model.encode(frozen, labels, images) + 1


def code_logits(
  model: CodeModel, frozen: Any, actions: Int[Array, "b *s l"], images: UInt8[Array, "b i i 3"]
) -> dict[str, Float[Array, "b *s n c p"]]:
  """What tokens stand for. Total: token 0, which has no code, is read as that of the first."""
  return model.decode(frozen, jnp.maximum(actions - 1, 0), images)
