"""What can be sampled and scored: a record of pure functions, as optax does it.

Dimension key:
  B: batch of images
  S: samples for each image
  L: tokens of a sequence
  V: vocabulary
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int

Params = Any


class Sampled(NamedTuple):
  """Answers drawn for each image, and how likely each part of them was."""

  actions: Int[Array, "b s l"]
  log_prob: Float[Array, "b s l"]


class Scored(NamedTuple):
  """Given answers under the current parameters; `mask` is 0 after the end of an answer.

  `log_prob` and `entropy` (nats, of each position's distribution) are 0 where the mask is. What a
  caller does not use of this is never computed under jit.
  """

  log_prob: Float[Array, "b s l"]
  entropy: Float[Array, "b s l"]
  mask: Float[Array, "b s l"]
  logits: Float[Array, "b s l v"]


class Policy(NamedTuple):
  """A distribution over answers for an image.

  Attributes:
    init: (key, images) -> params.
    sample: (params, images, key, num_samples) -> Sampled. Temperature 1, nothing truncated: what
      is sampled is exactly what `log_prob` describes.
    mode: (params, images) -> actions [B, L], greedy decoding.
    log_prob: (params, images, actions [B, S, L], dropout_key or None) -> Scored, differentiable.
    search: (params, images, beam size) -> actions [B, L], beam search, where a policy has it.
    compiler_options: of `jax.jit`, for programs that sample or decode on this machine.
  """

  init: Callable[..., Params]
  sample: Callable[..., Sampled]
  mode: Callable[..., Int[Array, "b l"]]
  log_prob: Callable[..., Scored]
  search: Callable[..., Int[Array, "b l"]] | None = None
  compiler_options: dict[str, Any] | None = None
