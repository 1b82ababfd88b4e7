"""Files of weights as named arrays, whatever they are called: by content, and without running code.

A model may come as one file, as shards with an index, or as the folder that holds either.
"""

import lzma
import pathlib
import re
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np
import safetensors

from rtune.disk import parse_json
from rtune.errors import DataError, UsageError
from rtune.store import first_bytes, npz_file, safetensors_file
from rtune.store.unreadable import Unreadable, check_count, shown

_RUN_CODE = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt")
_READERS = {".safetensors": safetensors_file.read, ".npz": npz_file.read}
_INDEX = ".index.json"
_SHARD = re.compile(r"(.+)-\d+-of-(\d+)(\.safetensors)")
# As transformers saves a model; the last two are there to be named.
_IN_FOLDER = (
  *("model.safetensors", f"model.safetensors{_INDEX}"),
  *("pytorch_model.bin", f"pytorch_model.bin{_INDEX}"),
)
_MAX_JSON = 2**24  # bytes of a config or an index; the largest have some 100 kB
# All that zip archives, headers and arrays raise where a file is damaged.
_DAMAGE = (
  *(OSError, ValueError, EOFError, RuntimeError, SyntaxError, MemoryError, OverflowError),
  *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
  safetensors.SafetensorError,
)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """All arrays of a model by name.

  Raises:
    UsageError: no such file, or a kind of file that is not read.
    DataError: the file is damaged or not what its name says.
  """
  path = in_folder(path) or path
  if not path.is_file() and (path.suffix.lower() in _READERS or path.name.endswith(_INDEX)):
    raise UsageError(f"weights {path}: no such file.")
  try:
    _check_kind(path)
    if path.name.endswith(_INDEX):
      return _read_shards(path)
    shard = _SHARD.fullmatch(path.name)
    if shard and int(shard[2]) > 1:
      index = path.with_name(f"{shard[1]}{shard[3]}{_INDEX}")
      raise UsageError(f"weights {path}: it is one of {int(shard[2])} shards. Give {index}.")
    return _READERS[path.suffix.lower()](path)
  except _DAMAGE as error:
    mend = error.mend if isinstance(error, Unreadable) else Unreadable("").mend
    raise DataError(f"weights {path} cannot be read: {_line(error)}. {mend}") from error


def in_folder(path: pathlib.Path) -> pathlib.Path | None:
  """The file that a folder stands for, as transformers saves a model; None where it has none."""
  return next((path / name for name in _IN_FOLDER if (path / name).is_file()), None)


def read_beside(path: pathlib.Path, name: str) -> dict[str, Any]:
  """What a JSON file beside weights says of their model; {} where there is none.

  Raises:
    DataError: it cannot be read.
  """
  config = path.with_name(name)
  if not config.is_file():
    return {}
  try:
    return _read_json(config)
  except _DAMAGE as error:
    raise DataError(
      f"{config}, which says what {path.name} is of, cannot be read: {_line(error)}. Mend it or "
      "take it away."
    ) from error


def _check_kind(path: pathlib.Path) -> None:
  """Raises where a file is another thing than its name says, or of no kind that is read."""
  if path.name.endswith(_INDEX):
    return
  suffix = path.suffix.lower()
  kind = _kind_of(path) if path.is_file() else None
  if kind is None and suffix in _RUN_CODE:
    kind = first_bytes.PICKLE._replace(
      what=f"of a kind ({suffix}) that can run code and is not read"
    )
  if kind:
    raise (UsageError if kind.runs_code else DataError)(
      f"weights {path}: it is {kind.what}. {kind.mend}"
    )
  if suffix not in _READERS:
    raise UsageError(f"weights {path}: a .safetensors or .npz file is needed.")


def _kind_of(path: pathlib.Path) -> first_bytes.Kind | None:
  """What a file is, where it is not the weights that its name promises."""
  with open(path, "rb") as file:
    start = file.read(first_bytes.SIZE)
  if not start.startswith(b"PK"):
    return first_bytes.kind_of(start)
  with zipfile.ZipFile(path) as archive:
    kind = first_bytes.kind_of_zip(archive.namelist())
  if not kind and path.suffix.lower() != ".npz":
    return first_bytes.Kind("an archive of arrays", "Name it .npz.")
  return kind


def _read_shards(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays that an index names, from the files beside it."""
  places = _read_json(path).get("weight_map")
  if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
    raise Unreadable("it has no weight_map, a table of arrays and their files")
  check_count(len(places))
  leaves: dict[str, np.ndarray] = {}
  for file in dict.fromkeys(places.values()):
    shard = path.with_name(file) if pathlib.PurePath(file).name == file else None
    if shard is None or shard.suffix != ".safetensors":
      raise UsageError(
        f"weights {path}: it names {shown(file)}, and shards are .safetensors files beside it. "
        f"{first_bytes.PICKLE.mend}"
      )
    if not shard.is_file():
      raise DataError(f"weights {path}: its shard {shown(file)} is not there. Fetch all shards.")
    _check_kind(shard)
    found = safetensors_file.read(shard)
    names = [name for name, place in places.items() if place == file]
    missing = [name for name in names if name not in found]
    if missing:
      raise Unreadable(f"{shown(file)} lacks {shown(missing[0])}, which the index finds in it")
    leaves |= {name: found[name] for name in names}
  return leaves


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  if path.stat().st_size > _MAX_JSON:
    raise Unreadable(f"it is larger than {_MAX_JSON:,} bytes")
  table = parse_json(path.read_bytes())
  if not isinstance(table, dict):
    raise Unreadable("it is not a JSON object")
  return table


def _line(error: BaseException) -> str:
  """What an error says, on one line; libraries put what they found into it."""
  return shown(str(error).rstrip(".")) if len(str(error)) > 200 else " ".join(str(error).split())
