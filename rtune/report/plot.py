"""Curves of a run as a picture, for notebooks and slides."""

import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rtune.errors import UsageError
from rtune.report.curves import Branch, read_branches
from rtune.report.page import COLORS
from rtune.store import run_files
from rtune.store.remote import copies
from rtune.training.phases import phase_of

_FEW = 30  # points of a curve that are marked one by one
_COLUMNS = 3


def curves(workdir: str | os.PathLike[str], names: Sequence[str]) -> Figure:
  """What the log of a run says of some numbers, a panel for each and a color for each phase.

  Control and tuning begin at the same step, where imitation has ended. The run may still go on.

  Args:
    workdir: folder of the run.
    names: as metrics.jsonl has them, such as "val/AR" and "reward/mean".

  Raises:
    UsageError: the folder is no workdir, or its log has nothing of one of these names.
  """
  folder = copies.local_copy(workdir, "workdir")
  branches = read_branches(folder, run_files.read_config(folder))
  logged = sorted({name for branch in branches for row in branch.rows for name in row} - {"step"})
  for name in names:
    if name not in logged:
      raise UsageError(f"{folder}: its log has no {name!r}; it has {', '.join(logged)}.")
  if not names:
    raise UsageError(f"curves: no names; give some of {', '.join(logged)}.")
  columns = min(_COLUMNS, len(names))
  rows = -(-len(names) // columns)
  figure = Figure(figsize=(3.6 * columns, 2.8 * rows), dpi=80, layout="constrained")
  for place, name in enumerate(names, 1):
    _panel(figure.add_subplot(rows, columns, place), name, branches)
  return figure


def _panel(axes: Axes, name: str, branches: Sequence[Branch]) -> None:
  for place, branch in enumerate(branches):
    points = [(row["step"], row[name]) for row in branch.rows if name in row]
    if points:
      marker = "o" if len(points) <= _FEW else ""
      style = {"color": COLORS[place % len(COLORS)], "marker": marker, "markersize": 3}
      axes.plot(*zip(*points, strict=True), **style, label=phase_of(branch.name).label)
  axes.set_title(name, fontsize=10)
  axes.set_xlabel("step")
  axes.grid(alpha=0.25)
  axes.legend(frameon=False, fontsize=8)
