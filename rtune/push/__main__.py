"""A trained model on the Hugging Face Hub, with a card that says what it is.

python -m rtune.push --workdir W --to user/name [--compare W2] [--license L] [--private] [--dry D]

What is sent is a workdir that predicts: config.json, results.json, the weights of each phase, and
README.md, the card. `rtune.load("hf://user/name")` and `rtune predict --workdir hf://user/name`
take it from there.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Sequence

from rtune import commands
from rtune.store import hub, reading


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code."""
  parser = commands.Parser(
    "rtune.push",
    "Sends a trained model to the Hugging Face Hub, with a model card.",
    "rtune push --workdir runs/recall --to user/recall --license apache-2.0",
  )
  add = parser.add_argument
  add("--workdir", required=True, help="folder of the run")
  add("--to", required=True, help="user/name of the model there")
  add("--compare", default="", help="folder of a run, such as the control, to stand in the results")
  add("--phase", action="append", default=[], help="whose weights, last and best; default: all")
  add("--license", default="", help="of the weights, as the hub names it, such as apache-2.0")
  add("--private", action="store_true", help="make the repository private, if it is new")
  add("--dry", default="", metavar="FOLDER", help="write it to this folder and send nothing")
  return reading.run(parser, args, _command, _folders)


def _folders(flags: argparse.Namespace) -> list[str]:
  return [folder for folder in (flags.workdir, flags.compare) if folder]


def _command(flags: argparse.Namespace) -> None:
  hub.check_repo(flags.to)
  if not flags.dry:
    hub.library("rtune push")  # before anything is copied
  from rtune.display import console
  from rtune.push.write import write

  def fill(folder: str) -> None:
    write(flags.workdir, folder, flags.to, flags.compare, flags.phase, flags.license)

  if flags.dry:
    fill(flags.dry)
    console.say(f"written to {flags.dry}; nothing was sent")
    return
  with tempfile.TemporaryDirectory(prefix="rtune_push_") as folder:
    fill(folder)
    where = hub.push(folder, flags.to, flags.private, "Model trained with rtune")
  console.say(f"sent to {where}")


if __name__ == "__main__":
  with contextlib.suppress(BrokenPipeError):
    sys.exit(main(sys.argv[1:]))
