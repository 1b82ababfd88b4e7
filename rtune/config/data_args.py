"""Arguments of a run's data that a command can override: --data.name=value."""

import contextlib
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from rtune.config.load import literal
from rtune.errors import DataError, UsageError

HELP = (
  "--data.NAME=VALUE sets an argument of the data for this command, over what the run has:\n"
  "--data.allow_outside_root=true, --data.max_pixels=200000000, --data.masks=DIR, ..."
)
_PREFIX = "--data."
# What of a run's own data holds for other files of the same kind, too.
INHERITED = ("allow_outside_root", "max_pixels", "check_images", "check_masks")


def take(args: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
  """The command line without --data.name=value (or --data.name value), and those as arguments."""
  rest, found, left = [], {}, list(args)
  while left:
    arg = left.pop(0)
    if not arg.startswith(_PREFIX):
      rest.append(arg)
      continue
    name, equals, value = arg.removeprefix(_PREFIX).partition("=")
    if not equals:
      if not left:
        raise UsageError(f"{arg} needs a value.")
      value = left.pop(0)
    found[name] = literal(value)
  return rest, found


@contextlib.contextmanager
def hinting(source: Callable[..., Any], name: str, prefix: str = "") -> Iterator[None]:
  """Adds to an error of the data how the arguments that it names are set in this command.

  Args:
    source: what is opened.
    name: where it stands in the config, such as data.val.
    prefix: of flags that set its arguments; default: those of `main`.
  """
  key = f"config.{name}.args."
  known = inspect.signature(source).parameters
  flag = prefix or f"--{key}"
  try:
    yield
  except UsageError as error:
    text = str(error)
    if prefix:
      text = text.replace("Unknown config key", "Unknown argument").replace(key, prefix)
    raise UsageError(text + _flags(flag, known, re.findall(r"`(\w+)`", text))) from error
  except DataError as error:
    named = re.findall(r"`(\w+)`|\b([a-z]+(?:_[a-z]+)+)\b", str(error))
    raise DataError(f"{error}{_flags(flag, known, [a or b for a, b in named])}") from error


def _flags(flag: str, known: Iterable[str], named: Collection[str]) -> str:
  flags = ", ".join(f"{flag}{argument}=..." for argument in known if argument in named)
  return flags and f"\nArguments of these data are set with {flags}"
