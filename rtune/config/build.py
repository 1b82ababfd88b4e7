"""Plain values as the dataclasses that describe them, strictly."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

from rtune.errors import UsageError


def as_kind(kind: Any, value: Any, path: str) -> Any:
  """`value` as `kind`: nested dataclasses, tuples, numbers; bool is not a number here.

  Raises:
    UsageError: what is unknown or of another type, by its place below `path`.
  """
  if dataclasses.is_dataclass(kind):
    return _as_dataclass(kind, value, path)
  origin = typing.get_origin(kind)
  if origin is tuple and isinstance(value, (tuple, list)):
    inner = typing.get_args(kind)
    inner = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
    if len(inner) == len(value):
      pairs = enumerate(zip(inner, value, strict=True))
      return tuple(as_kind(item, part, f"{path}[{i}]") for i, (item, part) in pairs)
  elif origin is Mapping and isinstance(value, Mapping):
    inner = typing.get_args(kind)[1]
    return (
      {k: as_kind(inner, v, f"{path}.{k}") for k, v in value.items()} if inner is not Any else value
    )
  elif origin is None and type(value) is kind:
    return value
  elif kind is float and type(value) is int:
    return float(value)
  name = {Mapping: "a dict", tuple: str(kind)}[origin] if origin else kind.__name__
  hint = f" Write {(value,)}." if origin is tuple and isinstance(value, str) else ""
  raise UsageError(f"{path} must be {name}, not {value!r} ({type(value).__name__}).{hint}")


def _as_dataclass(kind: Any, value: Any, path: str) -> Any:
  if isinstance(value, kind):
    return value
  if not isinstance(value, Mapping):
    raise UsageError(f"{path} holds settings of its own; it cannot be {value!r}.")
  hints = typing.get_type_hints(kind)
  for key in value:
    if key not in hints:
      raise unknown_key(f"{path}.{key}", list(hints))
  return kind(**{key: as_kind(hints[key], item, f"{path}.{key}") for key, item in value.items()})


def check_plain(kind: Any, value: Any, path: str) -> None:
  """Raises UsageError where `kind` is a number, text or bool and `value` is not one."""
  if kind in (bool, int, float, str):
    as_kind(kind, value, path)


def unknown_key(path: str, known: list[str]) -> UsageError:
  """The error for a key that nobody reads, with the nearest one that somebody does."""
  parent, _, key = path.rpartition(".")
  near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
  hint = f" Did you mean {parent}.{near[0]}?" if near else f" Known: {', '.join(sorted(known))}."
  return UsageError(f"Unknown config key {path}.{hint}")
