"""An .npz of big_vision or another as named arrays; sizes are checked before memory is taken."""

import math
import pathlib
import zipfile

import jax.numpy as jnp
import numpy as np

from rtune.store.unreadable import Unreadable, check_count, shown

# Weights hardly compress. An archive above 64 MiB that grows more than this is a bomb.
_MAX_GROWTH, _SMALL = 20, 2**26
_DICTIONARY = "state/dictionary"  # of a code model
_ENCRYPTED = 1  # a bit of a member's flags


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays of a model by name: of a checkpoint of big_vision only parameters, and of UViM's
  code model also its state.

  Raises:
    Unreadable, OSError, zipfile.BadZipFile and what zip archives raise: it is damaged.
  """
  with zipfile.ZipFile(path) as archive:
    leaves = {}
    for name, info in _of_model(_members(archive, path.stat().st_size)).items():
      with archive.open(info) as stream:
        leaves[name] = _read_array(stream, name, info.file_size)
    return leaves


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
  """What is in the archive, by the arrays' names."""
  infos = archive.infolist()
  check_count(len(infos))
  claimed = sum(info.file_size for info in infos)
  if claimed > max(_SMALL, _MAX_GROWTH * size):
    raise Unreadable(f"it claims to hold {claimed:,} bytes, which is too much for its size")
  members: dict[str, zipfile.ZipInfo] = {}
  for info in infos:
    name = info.filename.removesuffix(".npy")
    if name in members:
      raise Unreadable(f"{shown(name)} is there twice")
    if info.flag_bits & _ENCRYPTED:
      raise Unreadable(
        f"{shown(name)} is encrypted", "Unpack it with its password, and pack it without one."
      )
    members[name] = info
  return members


def _of_model(members: dict[str, zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
  """Without the optimizer, which big_vision saves beside the parameters; older files nest them in
  it. A code model is nothing without its dictionary, so both keep their names."""
  if _DICTIONARY in members:
    return {n: info for n, info in members.items() if n.startswith(("params/", "state/"))}
  for prefix in ("params/", "opt/target/"):
    chosen = {n.removeprefix(prefix): i for n, i in members.items() if n.startswith(prefix)}
    if chosen:
      return chosen
  return members


def _read_array(stream: zipfile.ZipExtFile, name: str, size: int) -> np.ndarray:
  """One .npy of `size` bytes. numpy's own reader would take memory for whatever it claims."""
  headers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  version = np.lib.format.read_magic(stream)
  if version not in headers:
    raise Unreadable(f"{shown(name)} has npy version {version}, which is not supported")
  shape, fortran_order, dtype = headers[version](stream)
  if dtype == np.dtype("V2"):  # What numpy makes of bfloat16.
    dtype = np.dtype(jnp.bfloat16)
  elif dtype.kind not in "biuf":
    raise Unreadable(
      f"{shown(name)} holds {dtype} (Python objects would run code), not numbers",
      "Save it as numbers.",
    )
  if math.prod(shape) * dtype.itemsize != size - stream.tell():
    raise Unreadable(f"{shown(name)} claims shape {shape}, which is not the size of its data")
  flat = np.frombuffer(stream.read(), dtype)
  return flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)
