"""Operations, bytes and memory of sampling and training, counted from the sizes of a model.

Multiplying matrices is what is counted, as attention needs it: a causal layer sees half of the
pairs. Norms, softmax, GELU and draws are left out, so that a floor made of these is a floor.

Dimension key: that of models/decoder.py, and
  R: sequences, B x S
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rtune import config as configs
from rtune.models.conv_encoder import ConvEncoder
from rtune.models.encoder_decoder import EncoderDecoder


class Work(NamedTuple):
  """Operations (a multiply-add is two) and bytes that must move to or from memory."""

  flops: float
  bytes: float

  def plus(self, other: "Work") -> "Work":
    return Work(self.flops + other.flops, self.bytes + other.bytes)


class Machine(NamedTuple):
  """What a device can do: operations a second and bytes a second."""

  flops: float
  bandwidth: float


class Floor(NamedTuple):
  """The least seconds that work can take, and what binds: "compute" or "memory"."""

  seconds: float
  binds: str


class Sizes(NamedTuple):
  """A model at work.

  Attributes:
    model: whose sizes count.
    image_size: pixels of a side.
    length: tokens of an answer.
    batch: images.
    samples: answers for each image.
  """

  model: EncoderDecoder
  image_size: int
  length: int
  batch: int
  samples: int

  @property
  def memory_tokens(self) -> int:
    """Patches of an image, or places of its features."""
    if isinstance(self.model.encoder, ConvEncoder):
      return _features(self).shape[1]
    return (self.image_size // self.model.encoder.patch_size) ** 2

  @property
  def encoder_tokens(self) -> int:
    """Tokens of an image within the encoder: patches and registers."""
    return self.memory_tokens + getattr(self.model.encoder, "registers", 0)

  @property
  def itemsize(self) -> int:
    """Bytes of a number in activations, caches and the weights of a product."""
    return jnp.dtype(self.model.decoder.dtype).itemsize


def answers(settings: configs.Imitate | configs.Reward) -> int:
  """For each image in a step of a phase: what is drawn, or else the truth, and mistakes with it."""
  if isinstance(settings, configs.Imitate):
    return 2 if settings.mistakes.fn else 1
  return settings.num_samples


def floor(work: Work, machine: Machine) -> Floor:
  """What `machine` needs for `work` at the least."""
  compute, memory = work.flops / machine.flops, work.bytes / machine.bandwidth
  return Floor(max(compute, memory), "compute" if compute >= memory else "memory")


def encoder_weights(sizes: Sizes) -> int:
  """Numbers in the products that a patch goes through, patch projection included."""
  part = sizes.model.encoder
  if isinstance(part, ConvEncoder):
    return _encoder_layers(sizes) + _features(sizes).shape[-1] * part.width
  return _encoder_layers(sizes) + 3 * part.patch_size**2 * part.width


def memory_weights(sizes: Sizes) -> int:
  """Numbers in the products that make cross-attention's keys and values of a patch."""
  return sizes.model.decoder.depth * 2 * sizes.model.encoder.width * sizes.model.decoder.width


def token_weights(sizes: Sizes) -> int:
  """Numbers in the products that an answer's token goes through."""
  part = sizes.model.decoder
  layer = 6 * part.width**2 + 2 * part.width * part.mlp_dim
  return part.depth * layer + part.width * part.vocab_size


def encoding(sizes: Sizes) -> Work:
  """Images to memory tokens, and those to the keys and values of cross-attention."""
  patches, part = sizes.memory_tokens, sizes.model.encoder
  weights = encoder_weights(sizes) + memory_weights(sizes)
  attention = part.depth * 4 * sizes.encoder_tokens**2 * part.width
  registers = 2 * (sizes.encoder_tokens - patches) * _encoder_layers(sizes)
  flops = sizes.batch * (2 * patches * weights + registers + attention + _backbone(sizes))
  return Work(flops, sizes.itemsize * (weights + _memory_numbers(sizes)))


def decoding(sizes: Sizes) -> Work:
  """`length` steps of the cached sampler.

  A step reads the weights, the keys and values of every image once, and of every sequence what it
  has so far; it writes and reads the logits.
  """
  part, rows, length = sizes.model.decoder, sizes.batch * sizes.samples, sizes.length
  weights = token_weights(sizes)
  cross = part.depth * 4 * sizes.memory_tokens * part.width
  itself = part.depth * 4 * part.width * (length + 1) / 2
  cache = rows * part.depth * 2 * part.width * (length + 1) / 2
  step = sizes.itemsize * (weights + _memory_numbers(sizes) + cache)
  logits = 2 * 4 * rows * part.vocab_size
  return Work(rows * length * (2 * weights + cross + itself), length * (step + logits))


def sampling(sizes: Sizes) -> Work:
  """Encoding and decoding."""
  return encoding(sizes).plus(decoding(sizes))


def forward(sizes: Sizes) -> Work:
  """Teacher forcing: images once, all tokens of all answers."""
  part, tokens = sizes.model.decoder, sizes.batch * sizes.samples * sizes.length
  cross = part.depth * 4 * sizes.memory_tokens * part.width
  itself = part.depth * 4 * part.width * (sizes.length + 1) / 2
  flops = tokens * (2 * token_weights(sizes) + cross + itself)
  read = Work(flops, sizes.itemsize * token_weights(sizes) + 4 * tokens * part.vocab_size)
  return encoding(sizes).plus(read)


def training(sizes: Sizes) -> Work:
  """One update: a forward pass and a backward pass of twice its operations.

  Of bytes the weights' way: read for each pass, their gradient and the optimizer's moments written
  and read, the new ones written, in float32; and the logits' gradient.
  """
  once = forward(sizes)
  weights = encoder_weights(sizes) + memory_weights(sizes) + token_weights(sizes)
  return Work(3 * once.flops, 2 * once.bytes + 7 * 4 * weights)


def _features(sizes: Sizes) -> jax.ShapeDtypeStruct:
  """What the backbone says of an image."""
  return jax.eval_shape(*_backbone_call(sizes))


def _backbone(sizes: Sizes) -> float:
  """Operations of the backbone for an image, as XLA counts them; 0 of a ViT, which has none."""
  if not isinstance(sizes.model.encoder, ConvEncoder):
    return 0.0
  call, *shapes = _backbone_call(sizes)
  return jax.jit(call).lower(*shapes).cost_analysis()["flops"]


def _backbone_call(sizes: Sizes) -> tuple[Any, ...]:
  """A function of a backbone's parameters and an image, and the shapes of both."""
  encoder = sizes.model.encoder
  image = jax.ShapeDtypeStruct((1, sizes.image_size, sizes.image_size, 3), jnp.float32)
  params = jax.eval_shape(encoder.init, jax.random.key(0), image)
  return lambda p, x: encoder.apply(p, x, method="features"), params, image


def _encoder_layers(sizes: Sizes) -> int:
  """Numbers in the products of the encoder's layers."""
  part = sizes.model.encoder
  return part.depth * (4 * part.width**2 + 2 * part.width * part.mlp_dim)


def _memory_numbers(sizes: Sizes) -> int:
  """Numbers in the keys and values of all images."""
  part = sizes.model.decoder
  return sizes.batch * part.depth * 2 * sizes.memory_tokens * part.width
