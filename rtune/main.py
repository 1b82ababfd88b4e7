"""Flags -> config -> run.

python -m rtune.main --config configs/detection_recall.py[:variant] --workdir runs/mine
  [--config.any.key=value ...] [--force] [--allow_config_change] [--distributed]
"""

import ast
import os
import pathlib
import re
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections

from rtune import commands, config_build, parts
from rtune import config as configs
from rtune.errors import RtuneError, UsageError

_USAGE = (
  "usage: python -m rtune.main --config configs/NAME.py[:variant] [--workdir DIR] "
  "[--config.key=value ...] [--force] [--allow_config_change] [--distributed]"
)
_SWITCHES = ("force", "allow_config_change", "distributed")


class Flags(NamedTuple):
  """The command line.

  Attributes:
    config: path of a config file, with `:variant` behind it if wanted.
    overrides: (dotted key, text) pairs, in order.
    workdir: where the run lives; by default named after the config and the time.
    switches: which of `_SWITCHES` are on.
  """

  config: str
  overrides: tuple[tuple[str, str], ...]
  workdir: str
  switches: frozenset[str]


def parse_flags(args: Sequence[str]) -> Flags:
  """Reads `--name=value` and `--name value`; UsageError for anything else."""
  values, overrides, switches, rest = {}, [], set(), list(args)
  while rest:
    flag = rest.pop(0)
    name, equals, value = flag.removeprefix("--").partition("=")
    if not flag.startswith("--"):
      raise UsageError(f"{flag!r} is not a flag.\n{_USAGE}")
    if name in _SWITCHES and not equals:
      switches.add(name)
      continue
    if name not in ("config", "workdir") and not name.startswith("config."):
      raise UsageError(f"Unknown flag --{name}.\n{_USAGE}")
    if not equals:
      if not rest:
        raise UsageError(f"--{name} needs a value.\n{_USAGE}")
      value = rest.pop(0)
    if name.startswith("config."):
      overrides.append((name.removeprefix("config."), value))
    else:
      values[name] = value
  if not values.get("config"):
    raise UsageError(f"--config is missing.\n{_USAGE}")
  stem = pathlib.Path(values["config"].partition(":")[0]).stem
  workdir = values.get("workdir") or f"runs/{stem}_{time.strftime('%Y%m%d_%H%M%S')}"
  return Flags(values["config"], tuple(overrides), workdir, frozenset(switches))


def load_config(name: str, overrides: Sequence[tuple[str, str]] = ()) -> configs.Config:
  """The config of `path.py[:variant]` with overrides applied, checked."""
  path, _, variant = name.partition(":")
  try:
    config = parts.resolve(f"{path}:get_config")(variant or None)
  except RtuneError:
    raise
  except SyntaxError as error:
    raise UsageError(f"{error.filename}, line {error.lineno}: {error.msg}.") from error
  except Exception as error:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    where = f"{path}, line {lines[-1]}" if lines else path
    # ml_collections lists all the settings beside one that it does not know.
    text = re.sub(r" Other fields present: .*}\"", ".", str(error), flags=re.DOTALL)
    text = " ".join(text.split())
    raise UsageError(f"{where}: {type(error).__name__}: {text}") from error
  for key, text in overrides:
    _override(config, key, text)
  return configs.parse(config)


def _override(config: ml_collections.ConfigDict, key: str, text: str) -> None:
  """Sets one value; only `args` take new names. Types are checked by `configs.parse`."""
  *parents, last = key.split(".")
  node = config
  for depth, parent in enumerate(parents):
    if not isinstance(node, ml_collections.ConfigDict) or parent not in node:
      raise _unknown(node, ".".join(["config", *parents[: depth + 1]]))
    node = node[parent]
  new_arg = bool(parents) and parents[-1] == "args"
  if not isinstance(node, ml_collections.ConfigDict) or (last not in node and not new_arg):
    raise _unknown(node, f"config.{key}")
  old = node.get(last)
  node[last] = text if isinstance(old, str) else _value(text)


def _unknown(node: object, path: str) -> UsageError:
  if isinstance(node, ml_collections.ConfigDict):
    return config_build.unknown_key(path, list(node))
  return UsageError(f"Unknown config key {path}: {path.rpartition('.')[0]} is {node!r}.")


def _value(text: str) -> object:
  """A Python literal, or the text itself; `true` and `false` as shells like them."""
  if text.lower() in ("true", "false"):
    return text.lower() == "true"
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def main(args: Sequence[str]) -> int:
  """Runs and returns the exit code: 0 done, 2 usage, 3 data, 4 numbers, 5 storage, 75 stopped."""

  def run() -> None:
    flags = parse_flags(args)
    config = load_config(flags.config, flags.overrides)
    # Only now, when the command makes sense: jax takes seconds to import and claims devices.
    from rtune import console, launch, train

    launch.start(auto="distributed" in flags.switches)
    console.stage(f"workdir {flags.workdir}")
    train.run(
      config,
      flags.workdir,
      force="force" in flags.switches,
      allow_config_change="allow_config_change" in flags.switches,
    )

  return commands.guarded(run)


def _leave(code: int) -> None:
  """Ends the process; one of several that failed does not wait for the others to agree."""
  if code and "jax" in sys.modules and sys.modules["jax"].process_count() > 1:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


if __name__ == "__main__":
  _leave(main(sys.argv[1:]))
