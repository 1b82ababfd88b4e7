"""A .safetensors file as named arrays, its header checked before memory is taken."""

import collections
import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors

from rtune.store.unreadable import Unreadable, check_count, shown

_DTYPES = {
  **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
  **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
  **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
  "BF16": np.dtype(jnp.bfloat16),
  "BOOL": np.dtype(bool),
}
_MAX_HEADER = 2**24  # bytes; that of a thousand arrays has some 100 kB


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """All arrays of a file by name.

  Raises:
    Unreadable, OSError, safetensors.SafetensorError: it is damaged, or of a dtype that is not read.
  """
  with open(path, "rb") as file:
    length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER:
      raise Unreadable(f"its header claims to have {length:,} bytes")
    # The library maps the file and checks the header against its size.
    with safetensors.safe_open(path, framework="numpy"):
      pass
    specs = _header(file.read(length))
    check_count(len(specs))
    return {name: _read_array(file, name, spec, 8 + length) for name, spec in specs.items()}


def _header(text: bytes) -> dict[str, Any]:
  """The arrays' specifications; the library does not see that a name is there twice."""

  def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
      twice = collections.Counter(name for name, _ in pairs).most_common(1)[0][0]
      raise Unreadable(f"{shown(twice)} is there twice in its header")
    return table

  specs = json.loads(text, object_pairs_hook=unique)
  return {name: spec for name, spec in specs.items() if name != "__metadata__"}


def _read_array(file: Any, name: str, spec: dict[str, Any], data: int) -> np.ndarray:
  dtype = _DTYPES.get(spec["dtype"])
  if dtype is None:
    raise Unreadable(
      f"{shown(name)} has dtype {spec['dtype']}, which is not supported",
      "Convert it to F32 where it was made: fetching it again gives the same.",
    )
  begin, end = spec["data_offsets"]
  file.seek(data + begin)
  return np.fromfile(file, dtype, (end - begin) // dtype.itemsize).reshape(spec["shape"])
