"""Commands that read a workdir: it may come from a stranger, so what it names is not just run."""

import argparse
import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rtune import commands
from rtune.config import data_args, trust
from rtune.disk import parse_json
from rtune.display import console
from rtune.store import hub, run_files
from rtune.store.remote import copies


def run(
  parser: commands.Parser,
  args: Sequence[str],
  command: Callable[..., None],
  folders: Callable[[argparse.Namespace], Sequence[str | os.PathLike[str]]],
  tell: bool = True,
  data: bool = False,
  fetch: bool = False,
) -> int:
  """Runs a command with the flag --trust; the exit code.

  Args:
    command: called with the flags, and with the arguments of data where there are.
    folders: flags -> the workdirs that the command reads.
    tell: whether to list the code that is not run; not where next to nothing depends on it.
    data: whether the command also takes arguments of the run's data, --data.NAME=VALUE.
    fetch: whether --workdir may be on a hub; the command finds the copy of this machine there.
  """
  parser.add_argument(
    "--trust", action="store_true", help="run the code of others that the workdir names"
  )

  if data:
    parser.epilog = f"{data_args.HELP}\n\n{parser.epilog}"

  def guarded() -> None:
    rest, *given = data_args.take(args) if data else (args,)
    flags = parser.parse_args(rest)
    with contextlib.ExitStack() as stack:
      _bring_here(flags, stack)
      if fetch:
        flags.workdir = str(hub.local_copy(flags.workdir, "--workdir"))
      with reading(folders(flags), flags.trust, tell):
        command(flags, *given)

  return commands.guarded(guarded)


def _bring_here(flags: argparse.Namespace, stack: contextlib.ExitStack) -> None:
  """Workdirs that are URLs become copies of them; what is written there is sent at the end."""
  for name in ("workdir", "compare"):
    where = getattr(flags, name, "")
    if where:
      setattr(flags, name, stack.enter_context(copies.working(where, f"--{name}")))
  if hasattr(flags, "runs"):
    flags.runs = [stack.enter_context(copies.working(where, "runs")) for where in flags.runs]


@contextlib.contextmanager
def reading(
  folders: Sequence[str | os.PathLike[str]], trusted: bool = False, tell: bool = True
) -> Iterator[None]:
  """Within it names stand for rtune's own parts, and for what is trusted, now or before."""
  limited, known = False, set()
  for folder in folders:
    parts = trust.foreign(_config(pathlib.Path(folder).expanduser()))
    names = ", ".join(dict.fromkeys(part["fn"] for part in parts))
    if trusted:
      trust.remember(parts)
    usable = trusted or trust.remembered(parts)
    if usable:
      known |= {trust.place(part["fn"]) for part in parts}
    elif parts and tell:
      console.warn(
        f"{folder} names code that is not rtune's own: {names}. It is not run, and what asks for it"
        " is left out or refused; look at it, then give --trust once."
      )
    limited |= not usable
  with trust.limited(frozenset(known)) if limited else contextlib.nullcontext():
    yield


def chosen(folder: pathlib.Path) -> None:
  """Remembers the code of a run that is trained here: whoever started it has chosen it."""
  trust.remember(trust.foreign(_config(folder)))


def _config(folder: pathlib.Path) -> Any:
  """The config of a workdir as JSON; {} where it has none, which whoever reads it will say."""
  try:
    return parse_json((folder / run_files.CONFIG).read_bytes())
  except (OSError, ValueError):
    return {}
