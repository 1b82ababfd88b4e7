"""How much memory a step takes on one device, by a formula; see docs/memory.md.

Dimension key: that of counts.py, and
  P: parameters
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from rtune.models import attention
from rtune.plan import counts
from rtune.plan.counts import Sizes

_MOMENTS = {"adam": 8.0, "adafactor": 2.0, "sgd": 2.0}  # bytes a parameter


class Memory(NamedTuple):
  """Bytes on one device.

  Attributes:
    state: parameters and the optimizer's moments.
    gradients: of all parameters, whole whatever is sharded; two of them while accumulating.
    kept: activations that wait for the backward pass.
    live: the largest of what a layer, or the loss, needs while its turn comes.
  """

  state: float
  gradients: float
  kept: float
  live: float

  @property
  def total(self) -> float:
    return sum(self)


def takes_kernel(sizes: Sizes, layer: Callable[[jnp.dtype, int], bool] = attention.takes) -> bool:
  """Whether one kernel of attention takes all layers of a model.

  Args:
    layer: whether it takes one, by its type and the width of its heads.
  """
  parts = sizes.model.encoder, sizes.model.decoder
  return all(layer(part.dtype, part.width // part.num_heads) for part in parts)


def of_program(compiled: Any) -> int:
  """Bytes that the compiler says a program holds: arguments, results and temporaries at once."""
  stats = compiled.memory_analysis()
  total = stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes
  return total + stats.generated_code_size_in_bytes - stats.alias_size_in_bytes


def sampling_memory(sizes: Sizes) -> int:
  """Bytes of drawing answers: parameters in both types, keys and values of images and tokens."""
  part = sizes.model.decoder
  caches = 2 * part.depth * part.width * sizes.itemsize
  tokens = sizes.memory_tokens + sizes.samples * sizes.length
  return parameters(sizes) * (4 + sizes.itemsize) + caches * sizes.batch * tokens


def parameters(sizes: Sizes) -> int:
  """Numbers in all products of a model."""
  weights = counts.encoder_weights(sizes) + counts.memory_weights(sizes)
  return weights + counts.token_weights(sizes)


def update_memory(
  sizes: Sizes,
  optimizer: str,
  *,
  remat: bool,
  kernel: bool,
  accumulate: int = 1,
  shards: int = 1,
) -> Memory:
  """Bytes of one update.

  Args:
    sizes: of the batch of one device, before it is split for accumulation.
    optimizer: the name in the config.
    remat: recompute layers in the backward pass.
    kernel: attention is one kernel, whose scores are never in memory.
    accumulate: parts of the batch, one after the other.
    shards: devices that parameters and moments are spread over.
  """
  weights = parameters(sizes)
  part = sizes._replace(batch=max(sizes.batch // accumulate, 1))
  encoder, decoder = _encoder_layer(part, kernel), _decoder_layer(part, kernel)
  depths = part.model.encoder.depth, part.model.decoder.depth
  # The logits, their softmax and their gradient, in float32.
  tokens = part.batch * part.samples * part.length
  loss = 3 * 4 * tokens * part.model.decoder.vocab_size
  if remat:
    kept = depths[0] * encoder.input + depths[1] * decoder.input
    live = max(encoder.inside, decoder.inside, loss)
  else:
    kept = depths[0] * encoder.saved + depths[1] * decoder.saved
    live = max(encoder.inside - encoder.saved, decoder.inside - decoder.saved, loss)
  gradients = 4 * weights * (2 if accumulate > 1 else 1)
  return Memory(weights * (4 + _MOMENTS[optimizer]) / shards, gradients, kept, live)


class _Layer(NamedTuple):
  """Bytes: its input, what it saves for its backward pass, the most that it holds at once."""

  input: float
  saved: float
  inside: float


def _encoder_layer(sizes: Sizes, kernel: bool) -> _Layer:
  part, tokens = sizes.model.encoder, sizes.batch * sizes.encoder_tokens
  wide, item = tokens * part.width, sizes.itemsize
  scores = 0 if kernel else sizes.batch * part.num_heads * sizes.encoder_tokens**2
  # Inputs and results of both norms, query, key, value, answer; the MLP before and after GELU.
  saved = item * (8 * wide + 2 * tokens * part.mlp_dim) + item * scores
  return _Layer(item * wide, saved, saved + 2 * item * scores + item * tokens * part.mlp_dim)


def _decoder_layer(sizes: Sizes, kernel: bool) -> _Layer:
  part, tokens = sizes.model.decoder, sizes.batch * sizes.samples * sizes.length
  wide, item = tokens * part.width, sizes.itemsize
  itself = 0 if kernel else sizes.batch * sizes.samples * part.num_heads * sizes.length**2
  cross = 0 if kernel else tokens * part.num_heads * sizes.memory_tokens
  memory = 2 * sizes.batch * sizes.memory_tokens * part.width
  # Scores are float32 until softmax; its result is kept in the type of compute as well.
  scores = (4 + (item if item < 4 else 0)) * (itself + cross)
  saved = item * (12 * wide + 2 * tokens * part.mlp_dim + memory) + scores
  larger = max(itself, cross)
  return _Layer(item * wide, saved, saved + 2 * 4 * larger + item * tokens * part.mlp_dim)
