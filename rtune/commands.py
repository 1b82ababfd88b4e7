"""What all commands share: one line for a mistake, an exit code, no stack trace."""

import argparse
import os
import pathlib
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from rtune.disk import FULL
from rtune.errors import RtuneError, StorageError, UsageError


class Parser(argparse.ArgumentParser):
  """argparse with rtune's manners: a wrong flag is a UsageError of one line.

  Args:
    module: the command is `python -m <module>`.
    description: what it does.
    example: one line that works.
  """

  def __init__(self, module: str, description: str, example: str):
    about = {"description": description, "epilog": f"example: {example}", "allow_abbrev": False}
    about["formatter_class"] = argparse.RawDescriptionHelpFormatter  # an example stays one line
    super().__init__(f"python -m {module}", **about)

  def add_weights(self) -> None:
    """Adds --weights, which of a phase's weights a command takes."""
    about = "the last of a phase, or the best by its evaluations"
    self.add_argument("--weights", choices=("last", "best"), default="last", help=about)

  def error(self, message: str) -> NoReturn:
    raise UsageError(f"{message}; see {self.prog} --help")


def guarded(command: Callable[[], None]) -> int:
  """Runs a command; the exit code: 0 done, 2 usage, 3 data, 4 numbers, 5 storage, 75 stopped."""
  try:
    command()
  except RtuneError as error:
    print(f"{'stopped' if error.exit_code in (75, 130) else 'error'}: {error}", file=sys.stderr)
    return error.exit_code
  except OSError as error:
    if error.errno not in FULL:
      raise
    print(f"error: {error.filename or 'the disk'}: {error.strerror}. Make room.", file=sys.stderr)
    return StorageError.exit_code
  except KeyboardInterrupt:
    print("stopped at once; what is saved stays", file=sys.stderr)
    return 130
  return 0


def local(path: str | os.PathLike, what: str) -> pathlib.Path:
  """A path on a disk; UsageError for gs:// and the like, of which a folder "gs:" would be made."""
  if re.match(r"[A-Za-z][\w+.-]*://?", os.fspath(path)):
    raise UsageError(
      f"{what} {path} is no folder of this machine; give one, or one where that storage is mounted "
      "(gcsfuse, s3fs). A workdir may be a URL: gs://bucket/run."
    )
  return pathlib.Path(path).expanduser()


def make_folder(path: str | os.PathLike) -> pathlib.Path:
  """The folder that --out names, made if it is missing; UsageError where it cannot be."""
  folder = local(path, "--out")
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UsageError(f"--out {folder} cannot be written: {error.strerror}.") from error
  return folder


def not_negative(text: str) -> int:
  """The type of a flag that counts something, where 0 means all."""
  value = int(text)
  if value < 0:
    raise argparse.ArgumentTypeError(f"{value} is below 0")
  return value


def positive(text: str) -> int:
  """The type of a flag that counts something."""
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f"{value} is not above 0")
  return value
