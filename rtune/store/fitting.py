"""The sizes that weights are of, and the settings of a model that would fit them."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from rtune.models.sizes import Encoder
from rtune.models.vit import VARIANTS

_SIZES = ("width", "depth", "mlp_dim", "num_heads")
_BLOCK = re.compile(r"(?:Transformer/encoderblock_|EncDecBlock)(\d+)/")
_MODEL = "config.model"  # where flags reach every size; elsewhere a setting is one table


def knobs(expected: Mapping[str, Any], found: Mapping[str, Any], at: str, kind: str = "") -> str:
  """The settings that would fit weights, as a line of flags; "" where none would.

  Args:
    expected: the model's leaves by name, such as "encoder/pos_embedding".
    found: those of the file under the same names.
    at: where the config has the sizes of the model, such as "config.model".
    kind: of the file's GELU; "" for the model's own.
  """
  flags = []
  for part in ("encoder", "decoder"):
    ours, theirs = (_sizes(_below(f"{part}/", leaves)) for leaves in (expected, found))
    if not ours or not theirs or ours == theirs:
      continue
    if part == "encoder" and kind:
      theirs["gelu"] = kind
    flags += _flags(f"{at}.{part}", part, ours, theirs)
  return f"\nThese would fit: {' '.join(flags)}" if flags else ""


def code_knobs(expected: Mapping[str, Any], found: Mapping[str, Any], at: str) -> str:
  """The same for variables of a code model, whose sizes are all in one table of the config."""
  ours, theirs = (_code_sizes(leaves) for leaves in (expected, found))
  flags = [f"--{at}.{key}={value}" for key, value in theirs.items() if value != ours.get(key)]
  return f"\nThese would fit: {' '.join(flags)}" if flags else ""


def _code_sizes(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of CodeSizes as far as shapes tell them; {} for another network."""
  query = _first(leaves, r"params/encoder/.*/query/kernel")
  hidden = _first(leaves, r"params/encoder/.*/Dense_0/kernel")
  patch = _first(leaves, r"params/embedding_\w+/kernel")
  words = _first(leaves, "state/dictionary")
  if (len(query), len(hidden), len(patch), len(words)) != (3, 2, 3, 2):
    return {}
  depths = {
    f"{part}_depth": len({m[1] for n in leaves if (m := re.match(rf"params/{part}/(\w+_\d+)/", n))})
    for part in ("encoder", "decoder")
  }
  sizes = {"patch_size": math.isqrt(patch[1]), "width": query[0], **depths}
  sizes |= {"num_heads": query[1], "mlp_dim": hidden[1]}
  sizes |= {"dict_size": words[0], "codeword_dim": words[1]}
  sizes["resize"] = "params/bottleneck_downsample" not in leaves
  sizes["conv_context"] = any(name.startswith("params/ctx_enc_stem/") for name in leaves)
  return sizes


def _below(prefix: str, leaves: Mapping[str, Any]) -> dict[str, Any]:
  return {n.removeprefix(prefix): leaf for n, leaf in leaves.items() if n.startswith(prefix)}


def _sizes(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of an Encoder or a Decoder as far as shapes tell them; {} for another network."""
  blocks = {match[1] for name in leaves if (match := _BLOCK.match(name))}
  if not blocks:
    return {}
  query = _first(leaves, r".*(MultiHeadDotProductAttention_0|SelfAttn)/query/kernel")
  hidden = _first(leaves, r".*(MlpBlock_0|MLP)/Dense_0/kernel")
  if len(query) != 3 or len(hidden) != 2:
    return {}
  sizes = {"width": query[0], "depth": len(blocks), "mlp_dim": hidden[1], "num_heads": query[1]}
  if "pos_embedding" in leaves and any("encoderblock" in name for name in leaves):
    sizes |= _patches(leaves)
    sizes["layer_scale"] = any("/LayerScale_0/" in name for name in leaves)
    sizes["registers"] = (_first(leaves, "Transformer/registers") or (0, 0))[1]
  return sizes


def _patches(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """How an image becomes tokens."""
  halvings = {name.split("/")[1] for name in leaves if name.startswith("stem/conv_")}
  if halvings:
    return {"patch_size": 2 ** len(halvings), "conv_stem": True}
  kernel = _first(leaves, "embedding/kernel")
  return {"patch_size": kernel[0], "conv_stem": False} if kernel else {}


def _first(leaves: Mapping[str, Any], pattern: str) -> tuple[int, ...]:
  """The shape of the first leaf whose name is like this."""
  matching = (leaf.shape for name, leaf in leaves.items() if re.fullmatch(pattern, name))
  return tuple(next(matching, ()))


def _flags(path: str, part: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
  """Flags that turn a model of sizes `ours` into one of `theirs`."""
  if not path.startswith(_MODEL):
    default = dataclasses.asdict(Encoder())
    table = {key: value for key, value in _named(theirs).items() if value != default[key]}
    return [f'--{path}="{table}"']
  changed = {key: value for key, value in theirs.items() if value != ours.get(key)}
  if part == "encoder" and set(_SIZES) & set(changed):
    if "variant" in _named(theirs):
      changed = {key: value for key, value in changed.items() if key not in _SIZES}
      changed = {"variant": _named(theirs)["variant"], **changed}
    elif "variant" in _named(ours):  # which would hide the sizes
      changed = {"variant": "''", **{name: theirs[name] for name in _SIZES}, **changed}
  return [f"--{path}.{key}={value}" for key, value in changed.items()]


def _named(sizes: Mapping[str, Any]) -> dict[str, Any]:
  """The same with the name of a variant for its four sizes."""
  four = tuple(sizes[name] for name in _SIZES)
  variant = next((name for name, its in VARIANTS.items() if its == four), "")
  rest = {key: value for key, value in sizes.items() if key not in _SIZES}
  return {"variant": variant, **rest} if variant else dict(sizes)
