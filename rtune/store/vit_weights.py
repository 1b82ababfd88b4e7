"""Published ViT weights as parameters of `models.vit`: big_vision's of every age, Hugging Face's.

What names cannot mend: our encoder has no class token, so features of a model that was trained with
one differ a little until it is tuned; and Hugging Face's GELU is exact, ours the tanh approximation
of big_vision (at most 5e-4 apart).
"""

import logging
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rtune.errors import UsageError
from rtune.store import weights

_log = logging.getLogger(__name__)
_PARTS = ("embedding", "pos_embedding", "Transformer")  # what of a big_vision ViT is used here
_ATTENTION = "MultiHeadDotProductAttention_0"
_QKV = (f"{_ATTENTION}/query", f"{_ATTENTION}/key", f"{_ATTENTION}/value")
_HUGGINGFACE_BLOCK = {
  "layernorm_before": "LayerNorm_0",
  "attention.attention.query": _QKV[0],
  "attention.attention.key": _QKV[1],
  "attention.attention.value": _QKV[2],
  "attention.output.dense": f"{_ATTENTION}/out",
  "layernorm_after": "LayerNorm_1",
  "intermediate.dense": "MlpBlock_0/Dense_0",
  "output.dense": "MlpBlock_0/Dense_1",
}
# Submodules were once counted over all kinds; the AugReg files have these names.
_OLD_BLOCK = {
  "LayerNorm_2": "LayerNorm_1",
  "MlpBlock_3": "MlpBlock_0",
  "MultiHeadDotProductAttention_1": _ATTENTION,
}


def load_encoder(
  path: str | os.PathLike[str],
  template: Mapping[str, Any],
  log: weights.Log = _log.info,
) -> weights.Tree:
  """Reads encoder weights of any kind into `params["encoder"]`.

  Args:
    path: .npz or .safetensors of big_vision, .safetensors of a Hugging Face ViT or of rtune.
    template: the encoder's parameters.
    log: told about everything that is left out or resized.

  Raises:
    UsageError: the weights do not fit the template, or the file is not one of these.
    DataError: the file is damaged.
  """
  loaded = weights.load_weights(path)
  if "encoder" in loaded:
    tree = loaded["encoder"]
  elif any("." in name for name in loaded):
    query = weights.flatten(template)[f"Transformer/encoderblock_0/{_QKV[0]}/kernel"]
    tree = vit_from_huggingface(loaded, query.shape[1], log)
  elif "embedding" in loaded and "Transformer" in loaded:
    tree = vit_from_big_vision(loaded, log)
  else:
    raise UsageError(
      f"weights {path} are not a ViT's: it holds {', '.join(list(loaded)[:5])}. Give a ViT of "
      "big_vision (.npz), Hugging Face (.safetensors) or rtune."
    )
  try:
    return weights.merge(template, tree, log=log)
  except UsageError as error:
    raise UsageError(f"encoder weights {path}: {error}") from error


def vit_from_big_vision(loaded: Mapping[str, Any], log: weights.Log = _log.info) -> weights.Tree:
  """The encoder of a big_vision ViT with today's names, one subtree for each block.

  Heads and class token are left out, and with the class token its position.
  """
  _say_left_out([name for name in loaded if name not in _PARTS], log)
  tree = {name: loaded[name] for name in _PARTS if name in loaded}
  transformer = dict(tree["Transformer"])
  for holder in (transformer, transformer.pop("posembed_input", {})):
    if "pos_embedding" in holder:
      tree["pos_embedding"] = holder.pop("pos_embedding")
  if "pos_embedding" in tree:
    tree["pos_embedding"] = _grid_positions(tree["pos_embedding"])
  if "encoderblock" in transformer:
    stacked = weights.flatten(transformer.pop("encoderblock"))
    for layer in range(len(next(iter(stacked.values())))):
      block = {name: leaf[layer] for name, leaf in stacked.items()}
      transformer[f"encoderblock_{layer}"] = weights.nest(block)
  for name, block in transformer.items():
    if name.startswith("encoderblock_") and "MlpBlock_3" in block:
      transformer[name] = {_OLD_BLOCK.get(part, part): leaf for part, leaf in block.items()}
  return {**tree, "Transformer": transformer}


def vit_from_huggingface(
  flat: Mapping[str, np.ndarray],
  num_heads: int,
  log: weights.Log = _log.info,
) -> weights.Tree:
  """The encoder of a Hugging Face ViTModel, or of a model with a head on it.

  Args:
    flat: arrays by their names, such as "vit.encoder.layer.0.layernorm_before.weight".
    num_heads: attention heads, which the arrays do not tell.
    log: told what is left out: class token, pooler, heads.

  Raises:
    UsageError: none of the names is a ViT's, or the width is not a multiple of num_heads.
  """
  leaves, left_out = {}, []
  for name, value in flat.items():
    name = re.sub(r"^(vit|deit)\.", "", name)
    block = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name)
    if block and block[2] in _HUGGINGFACE_BLOCK:
      path = f"Transformer/encoderblock_{block[1]}/{_HUGGINGFACE_BLOCK[block[2]]}"
      leaves.update(_huggingface_leaf(path, block[3], value, num_heads))
    elif name.startswith("layernorm."):
      leaves.update(_huggingface_leaf("Transformer/encoder_norm", name[10:], value, num_heads))
    elif name == "embeddings.patch_embeddings.projection.weight":
      leaves["embedding/kernel"] = value.transpose(2, 3, 1, 0)  # [D, C, P, P] -> [P, P, C, D]
    elif name == "embeddings.patch_embeddings.projection.bias":
      leaves["embedding/bias"] = value
    elif name == "embeddings.position_embeddings":
      leaves["pos_embedding"] = _grid_positions(value)
    else:
      left_out.append(name)
  if not leaves:
    raise UsageError(f"these are not the names of a Hugging Face ViT: {', '.join(left_out[:5])}")
  _say_left_out(left_out, log)
  return weights.nest(leaves)


def _huggingface_leaf(
  path: str, kind: str, value: np.ndarray, num_heads: int
) -> dict[str, np.ndarray]:
  """A layer's weight [out, in] or bias [out] under our name and in our shape."""
  if value.ndim == 1 and kind == "weight":
    return {f"{path}/scale": value}
  if _ATTENTION in path and value.shape[0] % num_heads:
    raise UsageError(f"a width of {value.shape[0]} is not a multiple of {num_heads} heads")
  if path.endswith(_QKV):
    value = value.reshape(num_heads, -1, *value.shape[1:])  # [H, Dh, in] or [H, Dh]
    value = value if kind == "bias" else value.transpose(2, 0, 1)
  elif kind == "weight":
    value = value.T
    if path.endswith(f"{_ATTENTION}/out"):
      value = value.reshape(num_heads, -1, value.shape[1])
  return {f"{path}/{'bias' if kind == 'bias' else 'kernel'}": value}


def _grid_positions(positions_1ND: np.ndarray) -> np.ndarray:
  """Without the class token's position, which comes first where there is one."""
  patches = positions_1ND.shape[1] - 1
  return positions_1ND[:, 1:] if patches and math.isqrt(patches) ** 2 == patches else positions_1ND


def _say_left_out(names: list[str], log: weights.Log) -> None:
  if names:
    log(f"weights left out: {', '.join(names[:20])} ({len(names)} in all)")
