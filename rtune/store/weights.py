"""Weights that travel: safetensors out, trees of arrays in, by name into a model's parameters."""

import logging
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from rtune.errors import DataError, StorageError, UsageError
from rtune.store import fitting, weight_files
from rtune.store.unreadable import shown

Tree = dict[str, Any]  # nested dicts of arrays
Log = Callable[[str], None]

_log = logging.getLogger(__name__)
# Position embeddings of patches; those of the policy's decoder are a sequence, not a grid.
_GRIDS = (
  *("pos_embedding", "encoder/pos_embedding"),
  *("params/pos_embedding_encoder", "params/pos_embedding_decoder"),
)
_MAX_LEVELS = 64  # of names; the deepest of models have ten
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

  Of a big_vision checkpoint only the parameters are read, of UViM's code model also its state. An
  index of shards (.safetensors.index.json), or the folder of a model with either, stands for it.

  Raises:
    UsageError: no such file, or a kind of file that is not read.
    DataError: the file is damaged or not what its name says.
  """
  path = pathlib.Path(path).expanduser()
  leaves = weight_files.read(path)
  try:
    return nest(leaves)
  except ValueError as error:
    raise DataError(f"weights {path} cannot be read: {error}. Fetch the file again.") from error


def merge(
  template_params: Mapping[str, Any],
  loaded: Mapping[str, Any],
  *,
  allow_missing: Iterable[str] = (),
  ignore_extra: Iterable[str] = (),
  resize_posemb: bool = True,
  sizes_at: str = "",
  log: Log = _log.info,
) -> Tree:
  """Puts loaded arrays in place of a model's parameters, by name.

  Args:
    template_params: the model's tree: arrays, or ShapeDtypeStructs where nothing may be missing.
    loaded: what `load_weights` gave.
    allow_missing: regular expressions (full match) of leaves that may keep the template's value.
    ignore_extra: regular expressions (full match) of loaded leaves to leave out.
    resize_posemb: fit the patches' position embeddings [1, N, D] to another square grid.
    sizes_at: where the config has the sizes of the model; the table ends with those that would fit.
    log: told about everything that is not taken as it is.

  Returns:
    The template's tree with its dtypes, and its shardings where it holds jax arrays.

  Raises:
    UsageError: a table of the leaves that are missing, extra, of another shape, or not real numbers
      where the model's are.
    DataError: a value that is not finite.
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
  _check_real(expected, found)
  table = differences(
    {name: str(list(leaf.shape)) for name, leaf in expected.items() if name not in kept},
    {name: str(list(leaf.shape)) for name, leaf in found.items()},
  )
  if table:
    fit = fitting.knobs(expected, found, sizes_at) if sizes_at else ""
    raise UsageError(
      f"the weights do not fit the model; take the config that they were made with.\n{table}{fit}"
    )
  _check_finite({name: leaf for name, leaf in found.items() if name in expected})
  return nest(
    {name: leaf if name in kept else _like(found[name], leaf) for name, leaf in expected.items()}
  )


def _check_real(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
  """A quantized model's numbers mean something only with their scales, which are elsewhere."""
  bad = [name for name in found if name in expected and _real(expected[name])]
  bad = [name for name in bad if not _real(found[name])]
  if bad:
    raise UsageError(
      f"{shown(bad[0])} holds {found[bad[0]].dtype}, not real numbers ({len(bad)} such arrays), as "
      "a quantized model does. Take the model as it was before."
    )


def _real(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jnp.floating)


def _check_finite(leaves: Mapping[str, Any]) -> None:
  """Weights that are not finite make nothing but such."""
  bad = [name for name, leaf in leaves.items() if _real(leaf) and not np.isfinite(leaf).all()]
  if bad:
    raise DataError(
      f"values of {shown(bad[0])} are not finite ({len(bad)} such arrays). The training that they "
      "are of has diverged: take earlier weights."
    )


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
  """A table of names whose descriptions differ, "-" where there is none; "" if all agree."""
  names = [n for n in {**expected, **found} if expected.get(n) != found.get(n)]
  if not names:
    return ""
  rows = [("name", "in the file", "in the model")]
  rows += [
    (shown(name), found.get(name, "-"), expected.get(name, "-")) for name in names[:_MAX_ROWS]
  ]
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
  """The inverse of `flatten`; ValueError if a name is both a leaf and a branch, or too deep."""
  tree: Tree = {}
  for path, leaf in leaves.items():
    *parents, name = path.split("/")
    if len(parents) >= _MAX_LEVELS:
      raise ValueError(f"{shown(path)} is a name of {len(parents) + 1:,} levels")
    branch = tree
    for parent in parents:
      branch = branch.setdefault(parent, {})
      if not isinstance(branch, dict):
        raise ValueError(f"{shown(parent)} in {shown(path)} is an array as well")
    if name in branch:
      raise ValueError(f"{shown(path)} is there twice")
    branch[name] = leaf
  return tree


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
