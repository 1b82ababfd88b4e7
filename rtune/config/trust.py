"""Whose code the names in a workdir may stand for.

A config.json is data, and yet it names code with its arguments: a downloaded one may name anything
that is installed. So while a workdir is read, names are limited to rtune's own parts and to what
its reader trusts. What a person trusts is remembered by its content: the names, their arguments and
the bytes of the files, so that whatever has changed is asked for again.
"""

import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from rtune.config.moved import current
from rtune.display import console
from rtune.errors import UsageError

# Where parts are; all else of rtune (commands, what writes files) is nothing for a config to call.
_PARTS = re.compile(
  r"rtune\.((tasks|policies|rewards|metrics|models)\.\w+|data\.(corrupt|mixed|patching)"
  r"|training\.(losses|advantages|choosing))"
)
_SOURCES = re.compile(r"rtune\.data\.(sources|scenes)\.\w+")  # of these only classes
_NAMES = ("baseline", "choose")  # settings beside "fn" that may name code
# Names and files that are no part of rtune's and yet may be loaded; None: any.
_trusted: frozenset[str] | None = None


@contextlib.contextmanager
def limited(trusted: frozenset[str]) -> Iterator[None]:
  """Within it no name stands for code but rtune's own parts and what is `trusted`.

  It holds for all threads, since those of the loader read what sources name.
  """
  global _trusted
  before, _trusted = _trusted, trusted
  try:
    yield
  finally:
    _trusted = before


def is_limited() -> bool:
  """Whether names are limited at all."""
  return _trusted is not None


def allowed(name: str) -> bool:
  """Whether "module:attribute" may be loaded here."""
  return _trusted is None or place(name) in _trusted or is_own(name)


def check(name: str) -> None:
  """Raises UsageError for code that the workdir's reader has not chosen."""
  if not allowed(name):
    raise UsageError(
      f"the workdir names {name}, which is not rtune's own; look at that code, then give --trust "
      "to run it."
    )


def is_own(name: str) -> bool:
  """Whether a name is of one of rtune's parts, defined where it says or in another part."""
  module, _, attribute = current(name).partition(":")
  kind = _SOURCES.fullmatch(module)
  if not (kind or _PARTS.fullmatch(module)) or not re.fullmatch(r"[A-Za-z]\w*", attribute):
    return False
  try:
    found = getattr(importlib.import_module(module), attribute)
  except (ImportError, AttributeError):
    return True  # there is nothing to run; whoever asks for it says so
  home = str(getattr(found, "__module__", ""))
  known = _SOURCES.fullmatch(home) or _PARTS.fullmatch(home)
  return bool(known) and callable(found) and (not kind or isinstance(found, type))


def foreign(tree: Any) -> list[dict[str, Any]]:
  """The parts of a config, at any depth, that name code of somebody else: [{"fn", "args"}]."""
  found = []
  if isinstance(tree, Mapping):
    names = [tree.get("fn"), *(tree.get(key) for key in _NAMES)]
    for name in names:
      if isinstance(name, str) and ":" in name and not is_own(name):
        found.append({"fn": name, "args": tree.get("args")})
    tree = list(tree.values())
  if isinstance(tree, list):
    found += [part for value in tree for part in foreign(value)]
  return found


def place(name: str) -> str:
  """What is trusted with a name: a whole file, by its real path; of what is installed, the name."""
  module = name.partition(":")[0]
  return os.path.realpath(os.path.expanduser(module)) if module.endswith(".py") else name


def remembered(parts: list[dict[str, Any]]) -> bool:
  """Whether this person has trusted exactly this before."""
  try:
    lines = _memory().read_text().splitlines()
  except OSError:
    return False
  return any(line.partition(" ")[0] == _digest(parts) for line in lines)


def remember(parts: list[dict[str, Any]]) -> None:
  """Remembers it in the person's own folder; without such a folder it holds this once."""
  if not parts or remembered(parts):
    return
  names = ", ".join(sorted({part["fn"] for part in parts}))
  try:
    _memory().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _memory().open("a") as file:
      file.write(f"{_digest(parts)} {names!r}\n")
  except OSError as error:
    console.warn(f"{_memory()} cannot be written ({error.strerror}): {names} is not remembered.")


def _memory() -> pathlib.Path:
  root = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
  return pathlib.Path(root) / "rtune" / "trusted"


def _digest(parts: list[dict[str, Any]]) -> str:
  digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
  for file in sorted({place(part["fn"]) for part in parts}):
    content = pathlib.Path(file).read_bytes() if os.path.isfile(file) else b""
    digest.update(hashlib.sha256(content).digest())
  return digest.hexdigest()
