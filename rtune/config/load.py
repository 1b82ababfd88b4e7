"""From a config file, its variant and overrides to a checked config."""

import ast
import pathlib
import traceback
from collections.abc import Sequence

import ml_collections

from rtune.config import build, checks
from rtune.config import knobs as configs
from rtune.config.names import one_line, resolve
from rtune.errors import RtuneError, UsageError


def load_config(name: str, overrides: Sequence[tuple[str, str]] = ()) -> configs.Config:
  """The config of `path.py[:variant]` with overrides applied, checked."""
  path, _, variant = name.partition(":")
  try:
    config = resolve(f"{path}:get_config")(variant or None)
  except RtuneError:
    raise
  except (Exception, SystemExit) as error:
    file = str(pathlib.Path(path).expanduser().absolute())
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f"{path}, line {lines[-1]}" if lines else path
    raise UsageError(f"{where}: {one_line(error)}") from error
  for key, text in overrides:
    _override(config, key, text)
  return configs.parse(config)


def _override(config: ml_collections.ConfigDict, key: str, text: str) -> None:
  """Sets one value; only `args` and `splits` take new names. `configs.parse` checks types."""
  *parents, last = key.split(".")
  node = config
  for depth, parent in enumerate(parents):
    if parents[:depth] == ["data", "splits"] and parent not in node:
      node[parent] = ml_collections.ConfigDict({"fn": "", "args": {}})
    if not isinstance(node, ml_collections.ConfigDict) or parent not in node:
      raise _unknown(node, ".".join(["config", *parents[: depth + 1]]))
    node = node[parent]
  new_arg = bool(parents) and parents[-1] in checks.OPEN
  if not isinstance(node, ml_collections.ConfigDict) or (last not in node and not new_arg):
    raise _unknown(node, f"config.{key}")
  old = node.get(last)
  node[last] = text if isinstance(old, str) else literal(text)


def _unknown(node: object, path: str) -> UsageError:
  if isinstance(node, ml_collections.ConfigDict):
    return build.unknown_key(path, list(node))
  return UsageError(f"Unknown config key {path}: {path.rpartition('.')[0]} is {node!r}.")


def literal(text: str) -> object:
  """A Python literal, or the text itself; `true` and `false` as shells like them."""
  if text.lower() in ("true", "false"):
    return text.lower() == "true"
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
