"""ViTs of PyTorch as parameters of `models.vit`; rtune/store/torch_names.py has their names."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rtune.errors import UsageError
from rtune.models.vit import VARIANTS
from rtune.store import torch_names
from rtune.store.torch_names import (
  ATTENTION,
  BLOCK,
  FUSED,
  IN_BLOCK,
  KINDS,
  NORMS,
  PATCHES,
  PLACED,
  POSITIONS,
  QKV,
  TOKENS,
)
from rtune.store.unreadable import shown


class Converted(NamedTuple):
  """An encoder from PyTorch.

  Attributes:
    leaves: its parameters by our names.
    left_out: names of arrays that it has no use for: heads, poolers, other towers.
    what: such a model is called.
    gelu: "exact" or "tanh".
    said: what else a user should know.
  """

  leaves: dict[str, np.ndarray]
  left_out: list[str]
  what: str
  gelu: str
  said: list[str]


def convert(
  flat: Mapping[str, np.ndarray], width: int, num_heads: int, config: Mapping[str, Any]
) -> Converted:
  """The image encoder among arrays of PyTorch.

  Args:
    flat: arrays by their names, such as "vit.encoder.layer.0.layernorm_before.weight".
    width, num_heads: of the model that they are for. The arrays do not tell their heads; where the
      config does not either, a ViT as wide has as many.
    config: of transformers or timm, beside the weights; may be {}.

  Raises:
    UsageError: there is no ViT, more than one, or one with parts that `models.vit` lacks.
  """
  tower = torch_names.tower(flat)
  own = {name.removeprefix(tower): value for name, value in flat.items() if name.startswith(tower)}
  left_out = [name for name in flat if not name.startswith(tower)]
  own = {n.replace("self_attention.in_proj_", "self_attention.in_proj."): own[n] for n in own}
  try:
    return _converted(own, left_out, width, num_heads, config)
  except UsageError as error:
    raise UsageError(f"{torch_names.what(own)}: {error}") from error


def _converted(
  own: Mapping[str, np.ndarray],
  left_out: list[str],
  width: int,
  num_heads: int,
  config: Mapping[str, Any],
) -> Converted:
  """`convert` for the arrays of the encoder alone."""
  torch_names.refuse_foreign(own, config)
  leaves = _patch_leaves(own) | _token_leaves(own)
  said: list[str] = []
  told = (torch_names.said(config, key, int) for key in ("num_attention_heads", "num_heads"))
  heads = next((heads for heads in told if heads and heads > 0), 0)
  if not heads:
    heads = _likely_heads(leaves["embedding/kernel"].shape[-1], width, num_heads)
    said.append(f"no config.json beside them tells their heads; {heads} are taken")
  biases = (name.replace("weight", "bias") for name in PATCHES)
  used = {*PATCHES, *biases, *POSITIONS, *TOKENS}
  for name, value in own.items():
    norm, _, kind = name.rpartition(".")
    if block := BLOCK.fullmatch(name):
      leaves |= _block_leaves(block, value, heads, name)
    elif norm in NORMS:
      leaves[f"Transformer/encoder_norm/{'bias' if kind == 'bias' else 'scale'}"] = value
    elif name not in used:
      left_out.append(name)
  said += _fill_biases(leaves)
  return Converted(leaves, left_out, torch_names.what(own), _gelu(own, config), said)


def _patch_leaves(own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The patch projection [D, C, P, P] -> [P, P, C, D]; SigLIP 2 has it as [D, P * P * C]."""
  name = next(name for name in PATCHES if name in own)
  kernel = own[name]
  if kernel.ndim == 2:
    side = math.isqrt(kernel.shape[1] // 3)
    if side * side * 3 != kernel.shape[1]:
      raise UsageError(f"its patches of {kernel.shape[1]} numbers are not squares of three colors.")
    kernel = kernel.T.reshape(side, side, 3, -1)
  elif kernel.ndim == 4:
    kernel = kernel.transpose(2, 3, 1, 0)
  bias = own.get(name.replace("weight", "bias"), np.zeros(kernel.shape[-1], kernel.dtype))
  return {"embedding/kernel": kernel, "embedding/bias": bias}


def _token_leaves(own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Positions of patches, and the tokens beside them, each with its own position."""
  name = next((name for name in POSITIONS if name in own), "")
  if not name:
    raise UsageError("it has no position embeddings; this encoder learns one for each patch.")
  positions = _rows(own, name)
  tokens = [_rows(own, name, positions.shape[-1]) for name in TOKENS if name in own]
  placed = sum(own[name].size // positions.shape[-1] for name in PLACED if name in own)
  count = sum(token.shape[1] for token in tokens)
  # timm's newer models place patches only; others the class token too, few of them registers.
  counts = (placed, 0, count)
  first = next((n for n in counts if _is_square(positions.shape[1] - n)), placed)
  leaves = {"pos_embedding": positions[:, first:]}
  if tokens:
    registers = np.concatenate(tokens, axis=1).astype(np.float32)  # sums of halves would be rounded
    registers[:, :first] += positions[:, :first].astype(np.float32)
    leaves["Transformer/registers"] = registers
  return leaves


def _rows(own: Mapping[str, np.ndarray], name: str, width: int = 0) -> np.ndarray:
  """Vectors of tokens, in whatever axes, as [1, N, D]."""
  value = own[name]
  if value.ndim not in (1, 2, 3) or not value.size or value.shape[-1] != (width or value.shape[-1]):
    raise UsageError(f"{shown(name)} is of shape {list(value.shape)}, not [1, N, {width or 'D'}].")
  return value.reshape(1, -1, value.shape[-1])


def _is_square(count: int) -> bool:
  return count > 0 and math.isqrt(count) ** 2 == count


def _block_leaves(
  block: re.Match[str], value: np.ndarray, num_heads: int, name: str
) -> dict[str, np.ndarray]:
  """An array of a block under our names and in our shape; the fused projection is three."""
  part, kind = IN_BLOCK[block[2]], KINDS[block[3]]
  path = f"Transformer/encoderblock_{block[1]}"
  if part == FUSED:
    if not value.ndim or value.shape[0] % 3:
      raise UsageError(f"{shown(name)} of shape {list(value.shape)} is not queries, keys, values.")
    thirds = zip(QKV, np.split(value, 3), strict=True)
    return {f"{path}/{its}/{kind}": _shaped(its, kind, third, num_heads) for its, third in thirds}
  if part.startswith("LayerNorm") and kind == "kernel":
    kind = "scale"
  return {f"{path}/{part}/{kind}": _shaped(part, kind, value, num_heads)}


def _shaped(part: str, kind: str, value: np.ndarray, num_heads: int) -> np.ndarray:
  """A weight [out, in] or bias [out] as big_vision has it: [in, out], heads on their own axis."""
  if kind == "scale" or value.ndim != (2 if kind == "kernel" else 1):
    return value
  in_heads = part in QKV or (part.startswith(ATTENTION) and kind == "kernel")
  width = value.shape[1] if part not in QKV and kind == "kernel" else value.shape[0]
  if in_heads and width % num_heads:
    raise UsageError(f"a width of {width} is not a multiple of {num_heads} heads")
  if kind == "bias":
    return value.reshape(num_heads, -1) if part in QKV else value
  if part in QKV:
    return value.T.reshape(value.shape[1], num_heads, -1)
  return value.T.reshape(num_heads, -1, value.shape[0]) if in_heads else value.T


def _fill_biases(leaves: dict[str, np.ndarray]) -> list[str]:
  """Zeros for biases of queries, keys and values that the model does without in all its blocks."""
  without = []
  for part in QKV:
    kernels = [name for name in leaves if name.endswith(f"{part}/kernel")]
    biases = {name.replace("kernel", "bias"): leaves[name] for name in kernels}
    if kernels and not any(name in leaves for name in biases):
      leaves |= {name: np.zeros(leaf.shape[1:], leaf.dtype) for name, leaf in biases.items()}
      without.append(part.rpartition("/")[2])
  return [f"without biases of {', '.join(without)}: zeros stand for them"] if without else []


def _likely_heads(own_width: int, width: int, num_heads: int) -> int:
  """The model's heads for weights as wide; else those of the variant that is, or 64 wide each."""
  variants = {its[0]: its[3] for its in VARIANTS.values()}
  likely = num_heads if own_width == width else variants.get(own_width, own_width // 64 or 1)
  return likely if own_width % likely == 0 or own_width == width else 1


def _gelu(own: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> str:
  """PyTorch's models have the exact GELU, SigLIP and what comes from JAX its approximation."""
  act = torch_names.said(config, "hidden_act", str) or ""
  siglip = "embeddings.patch_embedding.weight" in own or any("attn_pool." in name for name in own)
  approximate = "tanh" in act or "new" in act if act else siglip
  return "tanh" if approximate else "exact"
