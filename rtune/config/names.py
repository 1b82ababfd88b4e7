"""From the names in a config to the code they stand for."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import pathlib
import re
import sys
import traceback
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from rtune.config import build, trust
from rtune.config.knobs import Part
from rtune.config.moved import current
from rtune.errors import RtuneError, UsageError

# Name in sys.modules -> what the file held when it was executed, and the module that came of it.
_FILES: dict[str, tuple[bytes, types.ModuleType]] = {}
_fixed: dict[str, bytes] = {}  # by real path: what stands for a file, whatever it holds


def resolve(name: str) -> Any:
  """The object that "package.module:attribute" or "path/to/file.py:attribute" names.

  Raises:
    UsageError: there is no such code, or it cannot be loaded; where in it, and why. Or it is
      code that the reader of a workdir has not chosen (`rtune.config.trust`).
  """
  module_name, _, attribute = name.partition(":")
  if not attribute:
    raise UsageError(f"{name!r} does not name code: write 'package.module:attribute'.")
  module_name = current(name).partition(":")[0]
  trust.check(f"{module_name}:{attribute}")
  module = _load(module_name)
  if not hasattr(module, attribute):
    public = [key for key in vars(module) if not key.startswith("_")]
    near = difflib.get_close_matches(attribute, public, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"{module_name} has no {attribute!r}.{hint}")
  return getattr(module, attribute)


def _load(module_name: str) -> types.ModuleType:
  """The module of a name or a path; UsageError where it cannot be loaded."""
  load = _load_file if module_name.endswith(".py") else importlib.import_module
  try:
    return load(module_name)
  except RtuneError:
    raise
  except (Exception, SystemExit) as error:
    raise UsageError(_explain(module_name, error)) from error


def loaded_files() -> dict[str, bytes]:
  """What each file held whose code is loaded, by its real path: for `take_as` elsewhere."""
  return {os.path.realpath(module.__file__): source for source, module in _FILES.values()}


def take_as(files: Mapping[str, bytes]) -> None:
  """Whenever these files are loaded, it is as another process has: they may have changed since."""
  _fixed.update(files)


def load_module(name: str) -> None:
  """Loads the file of `take_as` whose module has this name, if there is one: pickle asks for it."""
  path = next((path for path in _fixed if _module_name(pathlib.Path(path)) == name), None)
  if path and name not in sys.modules:
    _load(path)


def _load_file(path: str) -> types.ModuleType:
  """The module of a file, executed once for what it holds: a reward may load a model."""
  file = pathlib.Path(os.path.expanduser(path))
  source = _fixed.get(os.path.realpath(file))
  if source is None:
    if not os.path.isfile(file):
      raise UsageError(f"{path}: no such file (looked in {pathlib.Path.cwd()}).")
    with open(file, "rb") as opened:
      source = opened.read()
  name = _module_name(file.resolve())
  if name not in _FILES or _FILES[name][0] != source:
    _FILES.pop(name, None)
    _FILES[name] = source, _execute(name, file, source)
  return _FILES[name][1]


def _module_name(real: pathlib.Path) -> str:
  # No import statement can spell the dash, and files of one stem differ behind it. Dots would make
  # pickle look for a package.
  digest = hashlib.sha256(os.fsencode(real)).hexdigest()
  return f"{real.stem.replace('.', '_')}-{digest[:16]}"


def _execute(name: str, file: pathlib.Path, source: bytes) -> types.ModuleType:
  """A new module of `source`; it is in sys.modules, where dataclasses and pickle look for it."""
  spec = importlib.util.spec_from_file_location(name, file.absolute())
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  try:
    if b"\0" in source:
      # Python gives no line for it.
      line = source.count(b"\n", 0, source.index(b"\0")) + 1
      raise SyntaxError("a NUL byte; save the file as UTF-8", (spec.origin, line, None, None))
    # Not through the loader's cache of bytecode, which takes two edits in one second for one.
    exec(spec.loader.source_to_code(source, spec.origin), vars(module))
  except BaseException:
    sys.modules.pop(name, None)
    raise
  return module


def _explain(module_name: str, error: BaseException) -> str:
  """One line for what ended the loading of a module: the file, its own last line, the error."""
  frames = [(f.f_code, line) for f, line in traceback.walk_tb(error.__traceback__)]
  # The first body of a module is that of the named one; below it may be libraries that it imports.
  bodies = [code.co_filename for code, _ in frames if code.co_name == "<module>"]
  where, line, text = module_name, None, one_line(error)
  if bodies:
    where = bodies[0]
    line = [at for code, at in frames if code.co_filename == where][-1]
  elif isinstance(error, SyntaxError):
    where, line = error.filename or module_name, error.lineno
    text = f"{error.msg} ({type(error).__name__})"
  if module_name.endswith(".py"):
    where = module_name  # as the user writes it
  if isinstance(error, ModuleNotFoundError):
    text += ". Check the name, or install the package."
  return f"{where}, line {line}: {text}" if line else f"{where}: {text}"


def one_line(error: BaseException) -> str:
  """The type and text of an error, without line breaks."""
  # ml_collections lists all the settings beside one that it does not know.
  text = re.sub(r" Other fields present: .*}\"", ".", str(error), flags=re.DOTALL)
  return ": ".join(filter(None, [type(error).__name__, " ".join(text.split())]))


def build_part(part: Part, path: str) -> Any:
  """Calls what a Part names with its arguments; a wrong argument is an error that names it."""
  fn = resolve(part.fn)
  check_args(fn, part.args, path)
  try:
    return fn(**{key: as_tuples(value) for key, value in part.args.items()})
  except SystemExit as error:
    raise UsageError(f"config.{path}: {part.fn} called sys.exit({error.code!r}).") from error


def check_args(
  fn: Any,
  args: Mapping[str, Any],
  path: str,
  given: int = 0,
  offered: Collection[str] = (),
) -> None:
  """Raises UsageError for an argument of `fn` that is unknown, missing, or not a number or text.

  Args:
    fn: what `config.<path>.fn` names.
    args: its keyword arguments in the config.
    path: where in the config.
    given: how many of its first parameters are not the config's to give.
    offered: names of further parameters that are not.
  """
  if not callable(fn):
    raise UsageError(f"config.{path}.fn names {fn!r}, which cannot be called; name a function.")
  try:
    parameters = [*inspect.signature(fn).parameters.values()][given:]
  except (ValueError, TypeError) as error:  # some of Python's own say nothing of their arguments
    raise UsageError(f"config.{path}.fn names {fn!r}, whose arguments are not known.") from error
  parameters = [p for p in parameters if p.name not in offered]
  named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
  takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
  for key, value in args.items():
    if key in named:
      kind = _evaluated(named[key].annotation, fn)
      build.check_plain(kind, value, f"config.{path}.args.{key}")
    elif not takes_any:
      raise build.unknown_key(f"config.{path}.args.{key}", list(named))
  for key, parameter in named.items():
    if parameter.default is parameter.empty and key not in args:
      raise UsageError(
        f"config.{path}.args.{key} is missing; {getattr(fn, '__name__', fn)} needs it."
      )


def parameters_of(fn: Any) -> tuple[str, ...]:
  """Names of the parameters of a function; () of what is none, as `check_args` will say."""
  try:
    return tuple(inspect.signature(fn).parameters)
  except (ValueError, TypeError):
    return ()


def _evaluated(annotation: Any, fn: Callable) -> Any:
  """An annotation of `fn`; one that is text, as what the text stands for, None if that is unknown.

  Each by itself: beside a number there often is a name that only type checkers import.
  """
  if not isinstance(annotation, (str, typing.ForwardRef)):
    return annotation
  module = sys.modules.get(getattr(fn, "__module__", None))
  holder = types.SimpleNamespace(__annotations__={"it": annotation})
  try:
    return typing.get_type_hints(holder, vars(module) if module else {})["it"]
  except Exception:  # text can hold any expression
    return None


def as_tuples(value: Any) -> Any:
  """JSON knows lists only; tasks are hashable, so theirs are tuples, also those within dicts."""
  if isinstance(value, Mapping):
    return {key: as_tuples(item) for key, item in value.items()}
  return tuple(as_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
