"""One page about a run: what it was, what came of it, how it went, what it sees in images.

python -m rtune.report --workdir W [--compare W_CONTROL] [--limit N]

The page is a single file, W/report.html, which asks for nothing from anywhere.
"""

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rtune import commands
from rtune.devices import processes
from rtune.display import console
from rtune.report.write import LIMIT, write_report
from rtune.store import reading


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code."""
  parser = commands.Parser(
    "rtune.report",
    "Writes report.html into the folder of a run.",
    "rtune report --workdir runs/recall --compare runs/control",
  )
  add = parser.add_argument
  add("--workdir", required=True, help="folder of the run")
  parser.add_weights()
  add("--compare", default="", help="folder of another run, to stand beside it as its control")
  add(
    "--limit",
    type=commands.not_negative,
    default=LIMIT,
    help="validation images to look at; 0 = all",
  )
  return reading.run(
    parser,
    args,
    _command,
    lambda flags: [flags.workdir, *([flags.compare] if flags.compare else [])],
    data=True,
  )


def _command(flags: argparse.Namespace, data: Mapping[str, Any]) -> None:
  processes.start()
  given = {"compare": flags.compare, "limit": flags.limit, "weights": flags.weights}
  path = write_report(flags.workdir, **given, data=data)
  console.say(f"written to {path}")


if __name__ == "__main__":
  with contextlib.suppress(BrokenPipeError):
    sys.exit(main(sys.argv[1:]))
