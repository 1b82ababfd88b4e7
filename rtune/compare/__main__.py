"""Runs side by side: curves with their spread over seeds, a table of results, CSV files.

python -m rtune.compare runs/a runs/b 'runs/c_*' [--out comparison]

A run is a workdir of rtune, or MMEngine's scalars.json or a folder that holds one. Runs that differ
only in their seed are one group. Into the folder --out go:

comparison.html           curves, table, what the runs differ in; one file, opens offline
<metric>.png              a picture of each metric
losses.csv, metrics.csv   what was logged in training, and in evaluations
table.csv                 values at the end of each phase, differences, slopes
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence

from rtune import commands
from rtune.compare import final, names, write
from rtune.compare.curves import Drawing, drawn, parse_trend, pictures
from rtune.compare.groups import Group, make_groups, seed_note
from rtune.compare.runs import expand, label, logged, read_runs
from rtune.display import console
from rtune.errors import UsageError
from rtune.store import reading


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code."""
  parser = commands.Parser(
    "rtune.compare",
    "Draws and tabulates runs side by side: what they logged, of each phase's last weights.",
    "rtune compare runs/control runs/recall",
  )
  add = parser.add_argument
  add("runs", nargs="+", help="workdirs, scalars.json of MMEngine or folders of it, or globs")
  add("--out", default="comparison", help="folder to write to")
  add("--names", default="", help="of the groups, in order of their first run: a,b,c")
  add("--metrics", default="", help="names in the log to draw and to tabulate: AR,loss")
  add("--smoothing", type=_share, default=0.0, help="weight of TensorBoard's smoothing, 0 to 1")
  add("--rolling", type=commands.positive, help="instead: mean of this many points around each")
  add("--regression", action="store_true", help="draw the regression line of each phase")
  add("--trend", default="", help="straight line: first,last or two steps or step:value,step:value")
  return reading.run(parser, args, _command, lambda flags: expand(flags.runs), tell=False)


def _share(text: str) -> float:
  value = float(text)
  if not 0 <= value <= 1:
    raise argparse.ArgumentTypeError(f"{value:g} is not between 0 and 1")
  return value


def _command(flags: argparse.Namespace) -> None:
  if flags.rolling and flags.smoothing:
    raise UsageError("--rolling and --smoothing exclude each other; give one.")
  trend = parse_trend(flags.trend) if flags.trend else ()
  groups = make_groups(read_runs(flags.runs), _listed(flags.names))
  runs = [run for group in groups for run in group.runs]
  known = names.ordered(n for run in runs for n in logged(run) if not names.is_clock(n))
  asked = names.chosen(_listed(flags.metrics), known)
  if any(anchor.value is not None for anchor in trend) and len(asked) != 1:
    raise UsageError(f"--trend {flags.trend} gives a value; say of which one metric by --metrics.")
  columns = final.columns(groups, asked)
  rows = final.table(groups, columns)
  drawing = Drawing(flags.smoothing, flags.rolling or 0, flags.regression, trend)
  found = pictures(groups, asked or drawn(groups), drawing)
  notes = _notes(groups)
  for note in notes:
    console.warn(note)
  if rows:
    console.say(write.table_text(rows, columns) + "\n", stream=sys.stdout)
  out = commands.make_folder(flags.out)
  files = write.write_all(out, groups, rows, columns, found, drawing, notes)
  count = len(found)
  console.say(
    f"{len(runs)} runs in {len(groups)} groups, written to {out}: {', '.join(files[:4])} and "
    f"{count} picture{'' if count == 1 else 's'} (PNG)"
  )


def _notes(groups: Sequence[Group]) -> list[str]:
  """What a reader of the numbers must know."""
  unfinished = [
    f"{run.path}: {', '.join(map(label, run.unfinished))} is not finished; the table has its last "
    "evaluation."
    for group in groups
    for run in group.runs
    if run.unfinished
  ]
  return [note for note in (seed_note(groups), *unfinished) if note]


def _listed(text: str) -> list[str]:
  return [word.strip() for word in text.split(",") if word.strip()]


if __name__ == "__main__":
  with contextlib.suppress(BrokenPipeError):
    sys.exit(main(sys.argv[1:]))
