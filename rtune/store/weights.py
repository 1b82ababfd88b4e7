"""Weights that travel: safetensors out; safetensors and big_vision's npz in.

Nothing that could run code is read: no pickles, no object arrays. Sizes are checked against the
file before memory is taken.
"""

import logging
import math
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from rtune.errors import DataError, StorageError, UsageError

Tree = dict[str, Any]  # nested dicts of arrays
Log = Callable[[str], None]

_log = logging.getLogger(__name__)
_RUN_CODE = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt")
_DTYPES = {
  **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
  **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
  **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
  "BF16": np.dtype(jnp.bfloat16),
  "BOOL": np.dtype(bool),
}
# Weights hardly compress. An archive above 64 MiB that grows more than this is a bomb.
_MAX_GROWTH, _SMALL = 20, 2**26
# Position embeddings of patches; those of the policy's decoder are a sequence, not a grid.
_GRIDS = (
  *("pos_embedding", "encoder/pos_embedding"),
  *("params/pos_embedding_encoder", "params/pos_embedding_decoder"),
)
_DICTIONARY = "state/dictionary"  # of a code model
_MAX_ROWS = 20  # of a table of differences


def save_weights(
  path: str | os.PathLike[str], params: Mapping[str, Any], metadata: Mapping[str, str]
) -> None:
  """Writes a tree of arrays as safetensors, names joined by "/"; whole or not at all.

  Args:
    path: file to write; its folder is made if it is not there.
    params: nested dicts of arrays, each of which this process can read in full.
    metadata: text for the header.

  Raises:
    StorageError: the file could not be written.
  """
  path = pathlib.Path(path)
  partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  leaves = {name: np.asarray(leaf, order="C") for name, leaf in flatten(params).items()}
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(leaves, partial, dict(metadata))
    os.replace(partial, path)
  except (OSError, safetensors.SafetensorError) as error:
    raise StorageError(f"weights {path} could not be written: {error}") from error
  finally:
    if partial.exists():
      partial.unlink()


def load_weights(path: str | os.PathLike[str]) -> Tree:
  """Reads a .safetensors or .npz file as nested dicts of numpy arrays, names split at "/".

  Of a big_vision checkpoint only the parameters are read, of UViM's code model also its state.

  Raises:
    UsageError: no such file, or a kind of file that is not read.
    DataError: the file is damaged or not what its name says.
  """
  path = pathlib.Path(path)
  if path.suffix in _RUN_CODE:
    raise UsageError(
      f"weights {path}: {path.suffix} files can run code and are not read. Convert it once with "
      "PyTorch: safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)."
    )
  readers = {".safetensors": _read_safetensors, ".npz": _read_npz}
  if path.suffix not in readers:
    raise UsageError(f"weights {path}: a .safetensors or .npz file is needed.")
  try:
    return nest(readers[path.suffix](path))
  except (FileNotFoundError, IsADirectoryError) as error:
    raise UsageError(f"weights {path}: no such file.") from error
  except (OSError, ValueError, EOFError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
    raise DataError(f"weights {path} cannot be read: {error}. Fetch the file again.") from error


def merge(
  template_params: Mapping[str, Any],
  loaded: Mapping[str, Any],
  *,
  allow_missing: Iterable[str] = (),
  ignore_extra: Iterable[str] = (),
  resize_posemb: bool = True,
  log: Log = _log.info,
) -> Tree:
  """Puts loaded arrays in place of a model's parameters, by name.

  Args:
    template_params: the model's tree: arrays, or ShapeDtypeStructs where nothing may be missing.
    loaded: what `load_weights` gave.
    allow_missing: regular expressions (full match) of leaves that may keep the template's value.
    ignore_extra: regular expressions (full match) of loaded leaves to leave out.
    resize_posemb: fit the patches' position embeddings [1, N, D] to another square grid.
    log: told about everything that is not taken as it is.

  Returns:
    The template's tree with its dtypes, and its shardings where it holds jax arrays.

  Raises:
    UsageError: a table of the leaves that are missing, extra or of another shape.
  """
  expected, found = flatten(template_params), flatten(loaded)
  kept = [name for name in expected if name not in found and _matches(name, allow_missing)]
  dropped = [name for name in found if name not in expected and _matches(name, ignore_extra)]
  for what, names in (("kept at their initial values", kept), ("left out", dropped)):
    if names:
      log(f"weights {what}: {', '.join(names[:_MAX_ROWS])} ({len(names)} in all)")
  found = {name: leaf for name, leaf in found.items() if name not in dropped}
  for name in _GRIDS:
    if resize_posemb and name in expected and name in found:
      found[name] = _fit_positions(np.asarray(found[name]), expected[name].shape, name, log)
  table = differences(
    {name: str(list(leaf.shape)) for name, leaf in expected.items() if name not in kept},
    {name: str(list(leaf.shape)) for name, leaf in found.items()},
  )
  if table:
    raise UsageError(
      f"the weights do not fit the model; take the config that they were made with.\n{table}"
    )
  return nest(
    {name: leaf if name in kept else _like(found[name], leaf) for name, leaf in expected.items()}
  )


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
  """A table of names whose descriptions differ, "-" where there is none; "" if all agree."""
  names = [n for n in {**expected, **found} if expected.get(n) != found.get(n)]
  if not names:
    return ""
  rows = [("name", "in the file", "in the model")]
  rows += [(name, found.get(name, "-"), expected.get(name, "-")) for name in names[:_MAX_ROWS]]
  first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
  lines = [f"  {name:{first}}  {in_file:{second}}  {in_model}" for name, in_file, in_model in rows]
  if len(names) > _MAX_ROWS:
    lines.append(f"  ... and {len(names) - _MAX_ROWS} more")
  return "\n".join(lines)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Nested dicts as one dict with names joined by "/"."""
  leaves = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      leaves.update(flatten(value, f"{prefix}{name}/"))
    else:
      leaves[f"{prefix}{name}"] = value
  return leaves


def nest(leaves: Mapping[str, Any]) -> Tree:
  """The inverse of `flatten`; ValueError if a name is both a leaf and a branch."""
  tree: Tree = {}
  for path, leaf in leaves.items():
    *parents, name = path.split("/")
    branch = tree
    for parent in parents:
      branch = branch.setdefault(parent, {})
      if not isinstance(branch, dict):
        raise ValueError(f"{parent} in {path} is an array as well")
    if name in branch:
      raise ValueError(f"{path} is there twice")
    branch[name] = leaf
  return tree


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  leaves = {}
  # The library checks the header; it has no bfloat16 for numpy, hence the dtypes here.
  for name, spec in safetensors.deserialize(path.read_bytes()):
    if spec["dtype"] not in _DTYPES:
      raise ValueError(f"{name} has dtype {spec['dtype']}, which is not supported")
    leaves[name] = np.frombuffer(spec["data"], _DTYPES[spec["dtype"]]).reshape(spec["shape"])
  return leaves


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(path) as archive:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    size = sum(info.file_size for info in members.values())
    if size > max(_SMALL, _MAX_GROWTH * path.stat().st_size):
      raise ValueError(f"it claims to hold {size:,} bytes, which is too much for its size")
    # big_vision saves the optimizer beside the parameters; older files nest them in it. A code
    # model is nothing without its dictionary, so both keep their names.
    if _DICTIONARY in members:
      members = {n: i for n, i in members.items() if n.startswith(("params/", "state/"))}
    for prefix in ("params/", "opt/target/"):
      chosen = {n.removeprefix(prefix): i for n, i in members.items() if n.startswith(prefix)}
      if chosen and _DICTIONARY not in members:
        members = chosen
        break
    leaves = {}
    for name, info in members.items():
      with archive.open(info) as stream:
        leaves[name] = _read_array(stream, name, info.file_size)
  return leaves


def _read_array(stream: zipfile.ZipExtFile, name: str, size: int) -> np.ndarray:
  """One .npy of `size` bytes. numpy's own reader would take memory for whatever it claims."""
  headers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  version = np.lib.format.read_magic(stream)
  if version not in headers:
    raise ValueError(f"{name} has npy version {version}, which is not supported")
  shape, fortran_order, dtype = headers[version](stream)
  if dtype == np.dtype("V2"):  # What numpy makes of bfloat16.
    dtype = np.dtype(jnp.bfloat16)
  elif dtype.kind not in "biuf":
    raise ValueError(f"{name} holds {dtype} (Python objects would run code), not numbers")
  if math.prod(shape) * dtype.itemsize != size - stream.tell():
    raise ValueError(f"{name} claims shape {shape}, which is not the size of its data")
  flat = np.frombuffer(stream.read(), dtype)
  return flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)


def _matches(name: str, patterns: Iterable[str]) -> bool:
  return any(re.fullmatch(pattern, name) for pattern in patterns)


def _like(value: Any, leaf: Any) -> Any:
  value = np.asarray(value, leaf.dtype)
  return jax.device_put(value, leaf.sharding) if isinstance(leaf, jax.Array) else value


def _fit_positions(value: np.ndarray, shape: tuple[int, ...], name: str, log: Log) -> np.ndarray:
  """Position embeddings of a square grid on another square grid; as they are if not possible."""
  if value.shape == shape or value.ndim != 3 or value.shape[::2] != shape[::2]:
    return value
  old, new = math.isqrt(value.shape[1]), math.isqrt(shape[1])
  if (old**2, new**2) != (value.shape[1], shape[1]):
    return value
  log(f"weights: {name} resized from a grid of {old} x {old} to {new} x {new}")
  return resize_grid(value, new)


def resize_grid(positions_1ND: np.ndarray, new: int) -> np.ndarray:
  """Bilinear, corners on corners, as big_vision and the ViT paper do for another resolution."""
  old = math.isqrt(positions_1ND.shape[1])
  at = np.linspace(0, old - 1, new)
  # Row i holds the weights of the old lines in new line i.
  weight = np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(old)))
  grid = positions_1ND.astype(np.float32).reshape(old, old, -1)
  grid = np.einsum("yi,xj,ijd->yxd", weight, weight, grid, optimize=True)
  return grid.reshape(1, new * new, -1).astype(positions_1ND.dtype)
