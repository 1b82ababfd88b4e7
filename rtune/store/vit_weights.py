"""Published ViT weights as parameters of `models.vit`: big_vision's of every age, and PyTorch's.

A class token is one of the encoder's registers, with its position; an encoder without them leaves
it out, and its features differ a little until it is tuned. PyTorch's GELU is exact, big_vision's
the tanh approximation (at most 5e-4 apart); the encoder's `gelu` chooses.
"""

import logging
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from rtune.errors import DataError, UsageError
from rtune.store import fitting, pixel_scale, torch_vit, weight_files, weights
from rtune.store.unreadable import shown

_log = logging.getLogger(__name__)
_PARTS = ("embedding", "pos_embedding", "cls", "Transformer")  # of a big_vision ViT
_ATTENTION = "MultiHeadDotProductAttention_0"
_QUERY = f"Transformer/encoderblock_0/{_ATTENTION}/query/kernel"
_REGISTERS = "Transformer/registers"
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
  *,
  gelu: str = "",
  sizes_at: str = "config.model",
) -> weights.Tree:
  """Reads encoder weights of any kind into `params["encoder"]`.

  Args:
    path: .npz or .safetensors of big_vision, .safetensors of PyTorch's ViTs or of rtune, an index
      of shards, or the folder of a model. A config.json beside them tells their heads, a
      preprocessor_config.json their pixels.
    template: the encoder's parameters, or their shapes.
    log: told about everything that is left out, resized, or not told by the file.
    gelu: of the encoder, which shapes do not tell; "" where nobody does.
    sizes_at: where the config has the encoder's sizes, without ".encoder".

  Raises:
    UsageError: the weights do not fit the template, or the file is not one of these.
    DataError: the file is damaged.
  """
  if _QUERY not in weights.flatten(template):
    raise UsageError("config.encoder_init is for ViTs, and this encoder is none; leave it out.")
  path = pathlib.Path(path).expanduser()
  path = weight_files.in_folder(path) or path
  loaded = weights.load_weights(path)
  try:
    found, what, made_with = _as_vit(loaded, path, template, log)
    differs = made_with if gelu and made_with != gelu else ""
    leaves = _fit_registers(weights.flatten(found), template, f"{sizes_at}.encoder", log)
    try:
      tree = weights.merge(template, leaves, log=log)
    except UsageError as error:
      expected = {f"encoder/{name}": leaf for name, leaf in weights.flatten(template).items()}
      loaded = {f"encoder/{name}": leaf for name, leaf in leaves.items()}
      fit = fitting.knobs(expected, loaded, sizes_at, differs)
      raise UsageError(f"{what}: {error}{fit}") from error
  except (UsageError, DataError) as error:
    raise type(error)(f"encoder weights {path}: {error}") from error
  if differs:
    log(
      f"weights: they are made with the {differs} GELU, this encoder has the other, at most 5e-4 "
      f"apart: {sizes_at}.encoder.gelu={differs} gives their features"
    )
  return tree


def _as_vit(
  loaded: weights.Tree, path: pathlib.Path, template: Mapping[str, Any], log: weights.Log
) -> tuple[weights.Tree, str, str]:
  """An encoder's parameters in our names, what it is called, and its GELU; "" where it is ours."""
  if any("." in name for name in loaded):
    return _from_torch(loaded, path, template, log)
  if "EmbedPatches" in loaded:
    raise UsageError("these are a policy of UViM, not an encoder. Give them as config.init_from.")
  if _holds(loaded.get("encoder"), "Transformer"):
    return loaded["encoder"], "an encoder of rtune", ""
  if _holds(loaded.get("img"), "Transformer"):  # SigLIP: one tower of two
    _say_left_out([name for name in loaded if name != "img"], log)
    loaded = loaded["img"]
  if not _holds(loaded.get("embedding"), "kernel") or not isinstance(
    loaded.get("Transformer"), Mapping
  ):
    names = ", ".join(map(shown, list(loaded)[:5]))
    raise UsageError(
      f"they are not a ViT's: it holds {names or 'nothing'}. Give a ViT of big_vision (.npz), "
      "Hugging Face, timm (.safetensors) or rtune."
    )
  return vit_from_big_vision(loaded, log), "a ViT of big_vision", "tanh"


def _from_torch(
  loaded: weights.Tree, path: pathlib.Path, template: Mapping[str, Any], log: weights.Log
) -> tuple[weights.Tree, str, str]:
  config = weight_files.read_beside(path, "config.json")
  width, heads = weights.flatten(template)[_QUERY].shape[:2]
  made = torch_vit.convert(weights.flatten(loaded), width, heads, config)
  _say_left_out(made.left_out, log)
  leaves, scale = pixel_scale.adapt(made.leaves, path, config)
  for said in (*made.said, *([scale] if scale else [])):
    log(f"weights: {said}")
  return weights.nest(leaves), made.what, made.gelu


def _holds(tree: Any, name: str) -> bool:
  return isinstance(tree, Mapping) and name in tree


def vit_from_big_vision(loaded: Mapping[str, Any], log: weights.Log = _log.info) -> weights.Tree:
  """The encoder of a big_vision ViT with today's names, one subtree for each block.

  Heads are left out. A class token becomes a register.

  Raises:
    UsageError: stacked blocks are not equally many.
  """
  _say_left_out([name for name in loaded if name not in _PARTS], log)
  tree = {name: loaded[name] for name in _PARTS if name in loaded}
  transformer = dict(tree["Transformer"]) if isinstance(tree["Transformer"], Mapping) else {}
  for holder in (transformer, transformer.pop("posembed_input", {})):
    if _holds(holder, "pos_embedding"):
      tree["pos_embedding"] = holder.pop("pos_embedding")
  registers = tree.pop("cls", None)
  if "pos_embedding" in tree:
    place, tree["pos_embedding"] = _grid_positions(tree["pos_embedding"])
    if registers is not None and place.shape == registers.shape:
      registers = registers.astype(np.float32) + place.astype(np.float32)
  if registers is not None:
    transformer["registers"] = registers
  if isinstance(transformer.get("encoderblock"), Mapping):
    transformer |= _unstacked(weights.flatten(transformer.pop("encoderblock")))
  for name, block in transformer.items():
    if name.startswith("encoderblock_") and _holds(block, "MlpBlock_3"):
      transformer[name] = {_OLD_BLOCK.get(part, part): leaf for part, leaf in block.items()}
  return {**tree, "Transformer": transformer}


def _unstacked(stacked: Mapping[str, np.ndarray]) -> weights.Tree:
  """A subtree for each block of leaves [blocks, ...]."""
  depths = {np.shape(leaf)[:1] for leaf in stacked.values()}
  if len(depths) != 1 or () in depths:
    raise UsageError(f"Transformer/encoderblock stacks blocks, but not equally many: {depths}.")
  ((depth,),) = depths
  return {
    f"encoderblock_{layer}": weights.nest({name: leaf[layer] for name, leaf in stacked.items()})
    for layer in range(depth)
  }


def _grid_positions(positions_1ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The class token's position, which comes first where there is one, and those of patches."""
  patches = positions_1ND.shape[1] - 1 if positions_1ND.ndim == 3 else 0
  first = int(patches > 0 and math.isqrt(patches) ** 2 == patches)
  return positions_1ND[:, :first], positions_1ND[:, first:] if first else positions_1ND


def _fit_registers(
  leaves: dict[str, Any], template: Mapping[str, Any], at: str, log: weights.Log
) -> dict[str, Any]:
  """Without the tokens beside the patches, where the encoder has none."""
  if _REGISTERS not in leaves or "registers" in template["Transformer"]:
    return leaves
  count = leaves[_REGISTERS].shape[1] if leaves[_REGISTERS].ndim == 3 else 1
  log(
    f"weights left out: {count} token(s) beside the patches (class token, registers); "
    f"{at}.registers={count} keeps them"
  )
  return {name: leaf for name, leaf in leaves.items() if name != _REGISTERS}


def _say_left_out(names: list[str], log: weights.Log) -> None:
  if names:
    log(f"weights left out: {', '.join(map(shown, names[:20]))} ({len(names)} in all)")
