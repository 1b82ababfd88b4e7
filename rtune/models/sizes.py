"""Sizes and numerics of networks, as plain dataclasses: a config holds them, networks read them.

Light on purpose: no jax here, so that a typo in a config is answered before it is imported.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rtune.errors import UsageError

DTYPES = ("auto", "float32", "bfloat16")
VARIANTS = ("", "Ti", "S", "B", "L", "H")
GELUS = ("tanh", "exact")


BACKBONES: Mapping[str, tuple[int, ...]] = {  # and what they have as `patch_size`
  "": (),
  "alexnet": (4, 8, 16),
  "vgg16": (1, 2, 4, 8, 16),
  **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), (4, 8, 16, 32)),
}


@dataclass(frozen=True)
class Encoder:
  """The image encoder: a ViT, or a small one above a convolutional backbone."""

  backbone: str = ""  # "vgg16", "alexnet", "resnet50", ...: its features in place of patches
  variant: str = ""  # "Ti", "S", "B", "L" or "H"; overrides the four sizes below
  patch_size: int = 16  # pixels; the image size must be a multiple of it
  width: int = 768  # token width
  depth: int = 12  # layers
  num_heads: int = 12  # attention heads
  mlp_dim: int = 3072  # hidden width of the MLPs
  conv_stem: bool = False  # stride-2 convolutions instead of one patch projection
  layer_scale: bool = False  # what a branch adds is scaled, as in DINOv2 and DeiT III
  registers: int = 0  # learned tokens beside the patches: class token, registers; not in the result
  gelu: str = "tanh"  # "tanh", big_vision's approximation, or "exact", as PyTorch's ViTs have it
  dropout: float = 0.0  # while imitating only
  drop_path: float = 0.0  # stochastic depth of the last layer, while imitating only


@dataclass(frozen=True)
class Decoder:
  """The autoregressive decoder."""

  width: int = 512  # token width
  depth: int = 6  # layers
  num_heads: int = 8  # attention heads
  mlp_dim: int = 2048  # hidden width of the MLPs
  dropout: float = 0.0  # while imitating only
  drop_path: float = 0.0  # stochastic depth of the last layer, while imitating only


@dataclass(frozen=True)
class Model:
  """Arguments of the token policy (`rtune.policies.tokens:tokens`): its network and its cache."""

  encoder: Encoder = Encoder()  # of images
  decoder: Decoder = Decoder()  # of answers
  dtype: str = "auto"  # of compute: "float32", "bfloat16"; auto: bfloat16 except on CPU
  remat: bool = False  # recompute activations in the backward pass: less memory, more time
  scan_layers: bool = False  # training runs layers as a loop: deep models compile far sooner
  cache_block: int = 64  # the sampler's caches grow by so many tokens: less traffic, more compiling


@dataclass(frozen=True)
class CodeSizes:
  """A code model, which turns dense labels into a few codes and back; defaults are UViM's.

  It is the tokenizer of a task, so it is given as `config.task.args.codes`. Raises UsageError where
  sizes do not fit each other.
  """

  patch_size: int = 16  # pixels of labels and image; the image size must be a multiple of it
  code_length: int = 256  # codes of an image
  width: int = 768  # token width
  encoder_depth: int = 6  # layers from labels to codes
  decoder_depth: int = 12  # layers from codes to labels
  num_heads: int = 12  # attention heads
  mlp_dim: int = 3072  # hidden width of the MLPs
  dict_size: int = 4096  # codewords
  codeword_dim: int = 768  # their width
  momentum: float = 0.995  # share of the dictionary's counts and sums that a step keeps
  min_count: float = 0.1  # a codeword that counts for less is replaced by half of the most used one
  code_dropout: str = "random"  # in training: a random share of the codes is left out; or "none"
  resize: bool = True  # patches to codes by bilinear resizing instead of a learned matrix
  conv_context: bool = False  # the image enters through stride-2 convolutions, not one projection
  dtype: str = "auto"  # of compute: "float32", "bfloat16"; auto: bfloat16 except on CPU
  remat: bool = False  # recompute activations in the backward pass: less memory, more time

  def __post_init__(self):
    check_code_model(self, "config.task.args.codes")


def check_model(model: Model, path: str) -> None:
  """Raises UsageError for the first value of a Model that is out of its range, below `path`."""
  for part in ("encoder", "decoder"):
    sizes = getattr(model, part)
    patch = ("patch_size",) if part == "encoder" else ()
    _check_least_one(sizes, (*patch, "width", "depth", "num_heads", "mlp_dim"), f"{path}.{part}")
    if sizes.width % sizes.num_heads:
      raise UsageError(
        f"{path}.{part}.width={sizes.width} is not a multiple of "
        f"{path}.{part}.num_heads={sizes.num_heads}."
      )
    for name in ("dropout", "drop_path"):
      if not 0 <= getattr(sizes, name) < 1:
        raise UsageError(
          f"{path}.{part}.{name} is {getattr(sizes, name)}; it must be at least 0 and less than 1."
        )
    if model.scan_layers and sizes.drop_path:
      raise UsageError(
        f"{path}.scan_layers runs equal layers, and {path}.{part}.drop_path makes them differ: set "
        "it to 0, or scan_layers to False."
      )
  _check_least_one(model, ("cache_block",), path)
  _check_choice(model, "dtype", DTYPES, path)
  _check_choice(model.encoder, "variant", VARIANTS, f"{path}.encoder")
  _check_choice(model.encoder, "gelu", GELUS, f"{path}.encoder")
  _check_backbone(model.encoder, f"{path}.encoder")
  if model.encoder.registers < 0:
    raise UsageError(
      f"{path}.encoder.registers is {model.encoder.registers}; it must be at least 0."
    )


def _check_backbone(encoder: Encoder, path: str) -> None:
  _check_choice(encoder, "backbone", tuple(BACKBONES), path)
  if not encoder.backbone:
    return
  _check_choice(encoder, "patch_size", BACKBONES[encoder.backbone], path)
  for name in ("conv_stem", "layer_scale", "registers"):
    if getattr(encoder, name):
      raise UsageError(f"{path}.{name} is of ViTs; leave it out beside {path}.backbone.")


def check_code_model(codes: CodeSizes, path: str) -> None:
  """Raises UsageError for the first value of a CodeSizes that is out of its range, below `path`."""
  sizes = ("patch_size", "code_length", "width", "encoder_depth", "decoder_depth", "num_heads")
  _check_least_one(codes, (*sizes, "mlp_dim", "dict_size", "codeword_dim"), path)
  for name in ("momentum", "min_count"):
    if not 0 < getattr(codes, name) < 1:
      raise UsageError(f"{path}.{name} is {getattr(codes, name)}; it must be between 0 and 1.")
  _check_choice(codes, "code_dropout", ("none", "random"), path)
  _check_choice(codes, "dtype", DTYPES, path)
  for part in (codes.num_heads, 4):
    if codes.width % part:
      raise UsageError(f"{path}.width={codes.width} is not a multiple of {part}.")
  if codes.resize and math.isqrt(codes.code_length) ** 2 != codes.code_length:
    raise UsageError(
      f"{path}.code_length={codes.code_length} is not a square number; with resize codes lie on a "
      f"square grid. Take a square number, or set {path}.resize=False."
    )
  if codes.conv_context and codes.patch_size.bit_count() != 1:
    raise UsageError(
      f"{path}.patch_size={codes.patch_size} is not a power of 2, which conv_context halves down."
    )


def _check_least_one(sizes: object, names: tuple[str, ...], path: str) -> None:
  for name in names:
    if getattr(sizes, name) < 1:
      raise UsageError(f"{path}.{name} is {getattr(sizes, name)}; it must be at least 1.")


def _check_choice(sizes: object, name: str, choices: Sequence[object], path: str) -> None:
  if getattr(sizes, name) not in choices:
    raise UsageError(f"{path}.{name} is {getattr(sizes, name)!r}; it must be one of {choices}.")
