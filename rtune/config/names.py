"""From the names in a config to the code they stand for."""

import difflib
import importlib
import importlib.util
import inspect
import pathlib
import types
from collections.abc import Callable, Mapping
from typing import Any

from rtune.config import build
from rtune.config.knobs import Part
from rtune.errors import UsageError


def resolve(name: str) -> Any:
  """The object that "package.module:attribute" or "path/to/file.py:attribute" names."""
  module_name, _, attribute = name.partition(":")
  if not attribute:
    raise UsageError(f"{name!r} does not name code: write 'package.module:attribute'.")
  try:
    module = _load_file(module_name) if module_name.endswith(".py") else _import(module_name)
  except ModuleNotFoundError as error:
    raise UsageError(f"{name!r}: {error}. Check the name, or install the package.") from error
  if not hasattr(module, attribute):
    public = [key for key in vars(module) if not key.startswith("_")]
    near = difflib.get_close_matches(attribute, public, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"{module_name} has no {attribute!r}.{hint}")
  return getattr(module, attribute)


def _import(module_name: str) -> types.ModuleType:
  return importlib.import_module(module_name)


def _load_file(path: str) -> types.ModuleType:
  file = pathlib.Path(path)
  if not file.is_file():
    raise UsageError(f"{path}: no such file (looked in {pathlib.Path.cwd()}).")
  spec = importlib.util.spec_from_file_location(file.stem, file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def build_part(part: Part, path: str) -> Any:
  """Calls what a Part names with its arguments; a wrong argument is an error that names it."""
  fn = resolve(part.fn)
  check_args(fn, part.args, path)
  return fn(**{key: as_tuples(value) for key, value in part.args.items()})


def check_args(fn: Callable, args: Mapping[str, Any], path: str, given: int = 0) -> None:
  """Raises UsageError for an argument of `fn` that is unknown, missing, or not a number or text.

  Args:
    fn: what `config.<path>.fn` names.
    args: its keyword arguments in the config.
    path: where in the config.
    given: how many of its first parameters are not the config's to give.
  """
  parameters = [*inspect.signature(fn).parameters.values()][given:]
  named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
  takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
  for key, value in args.items():
    if key in named:
      build.check_plain(named[key].annotation, value, f"config.{path}.args.{key}")
    elif not takes_any:
      raise build.unknown_key(f"config.{path}.args.{key}", list(named))
  for key, parameter in named.items():
    if parameter.default is parameter.empty and key not in args:
      raise UsageError(f"config.{path}.args.{key} is missing; {fn.__name__} needs it.")


def as_tuples(value: Any) -> Any:
  """JSON knows lists only; tasks are hashable, so theirs are tuples."""
  return tuple(as_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
