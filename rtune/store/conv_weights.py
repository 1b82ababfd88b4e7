"""Published weights of convolutional backbones as parameters of `models.backbones`.

Names are those of torchvision, which timm's ResNets share. Batch norms are folded: what is left of
one is a scale and a bias.
"""

import logging
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rtune.data.files.lpips_weights import load_lpips
from rtune.errors import DataError, UsageError
from rtune.store import weight_files, weights
from rtune.store.unreadable import shown

_log = logging.getLogger(__name__)
PACKAGED = {"imagenet:alexnet": "alex", "imagenet:vgg16": "vgg"}  # inside the extra `backbones`
_EPSILON = 1e-5  # of torchvision's batch norms
_PLAIN = re.compile(r"features\.(\d+)\.(weight|bias)")
_RESIDUAL = re.compile(
  r"(?:layer(\d)\.(\d+)\.)?(conv|bn|downsample\.)(\d)\.(weight|bias|running_mean|running_var)"
)
# The first arrays of both kinds; what stands before these names, stands before all of them.
_FIRST = ("features.0.weight", "conv1.weight")


def load_backbone(
  source: str | os.PathLike[str], template: Mapping[str, Any], log: weights.Log = _log.info
) -> weights.Tree:
  """Reads a backbone's weights.

  Args:
    source: "imagenet:vgg16", "imagenet:alexnet", or a file or folder with a model of torchvision or
      timm (.safetensors, .npz).
    template: the backbone's parameters, or their shapes.
    log: told what is left out.

  Raises:
    UsageError: the weights do not fit, or the extra is not there.
    DataError: the file is damaged.
  """
  if str(source) in PACKAGED:
    found = dict(load_lpips(PACKAGED[str(source)]))
    leaves = {name: leaf for name, leaf in found.items() if not name.startswith("head_")}
  else:
    path = pathlib.Path(source).expanduser()
    loaded = weights.flatten(weights.load_weights(weight_files.in_folder(path) or path))
    own = _without_prefix(loaded)
    leaves = _plain(own) or _residual(own)
    if not leaves:
      names = ", ".join(map(shown, list(loaded)[:5]))
      raise UsageError(
        f"backbone weights {path} hold {names or 'nothing'}, which are not the names of an AlexNet,"
        " a VGG or a ResNet of torchvision or timm."
      )
    log(f"weights: {len(leaves)} arrays of a backbone from {path}; all else in it is left out")
  last = max(_depth(name) for name in weights.flatten(template))
  leaves = {name: leaf for name, leaf in leaves.items() if _depth(name) <= last}
  try:
    return weights.merge(template, leaves, log=log)
  except (UsageError, DataError) as error:
    raise type(error)(f"backbone weights {source}: {error}") from error


def _depth(name: str) -> int:
  """The layer, or the stage, that an array is of: an encoder may not read the last ones."""
  found = re.match(r"(?:kernel_|bias_|layer)(\d+)", name)
  return int(found[1]) if found else 0


def _without_prefix(loaded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Arrays by names without "module.", "backbone." and the like; {} where there is no backbone."""
  found = [name.removesuffix(first) for first in _FIRST for name in loaded if name.endswith(first)]
  prefix = min(found, key=len, default=None)
  if prefix is None:
    return {}
  return {n.removeprefix(prefix): value for n, value in loaded.items() if n.startswith(prefix)}


def _plain(loaded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """AlexNet's or VGG's convolutions, numbered; {} where there are none."""
  found = [(m, value) for name, value in loaded.items() if (m := _PLAIN.fullmatch(name))]
  places = sorted({int(m[1]) for m, _ in found})
  leaves = {}
  for match, value in found:
    layer = places.index(int(match[1]))
    if match[2] == "weight" and np.ndim(value) == 4:
      leaves[f"kernel_{layer}"] = _kernel(value)
    elif match[2] == "bias":
      leaves[f"bias_{layer}"] = np.asarray(value, np.float32)
  return leaves


def _residual(loaded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """A ResNet's convolutions, and its batch norms as scales and biases; {} where there are none."""
  leaves: dict[str, np.ndarray] = {}
  norms: dict[str, dict[str, np.ndarray]] = {}
  for name, value in loaded.items():
    match = _RESIDUAL.fullmatch(name)
    if not match:
      continue
    stage, place, kind, number, what = match.groups()
    block = f"layer{stage}_{place}/" if stage else ""
    if kind == "conv":
      leaves[f"{block}conv{number}/kernel"] = _kernel(value)
    elif kind == "downsample." and number == "0":
      leaves[f"{block}downsample_conv/kernel"] = _kernel(value)
    else:
      norm = f"{block}norm{number}" if kind == "bn" else f"{block}downsample_norm"
      norms.setdefault(norm, {})[what] = np.asarray(value, np.float32)
  for norm, parts in norms.items():
    if len(parts) == 4:
      scale = parts["weight"] / np.sqrt(parts["running_var"] + np.float32(_EPSILON))
      leaves[f"{norm}/scale"] = scale
      leaves[f"{norm}/bias"] = parts["bias"] - parts["running_mean"] * scale
  return leaves


def _kernel(value: np.ndarray) -> np.ndarray:
  """PyTorch's [O, I, K, K] as [K, K, I, O]."""
  value = np.asarray(value, np.float32)
  if value.ndim != 4:
    raise UsageError(f"a convolution's weights have {value.ndim} axes, not 4: these are others.")
  return np.ascontiguousarray(value.transpose(2, 3, 1, 0))
