"""What a comparison leaves in a folder: a page, pictures, tables as CSV."""

import pathlib
import time
from collections.abc import Iterator, Sequence

from rtune.compare import draw, names
from rtune.compare.curves import Drawing, Picture
from rtune.compare.final import Row
from rtune.compare.groups import Group, differences, shown
from rtune.compare.runs import label
from rtune.display import console
from rtune.report import page
from rtune.store import run_files

PAGE = "comparison.html"
LOSSES, METRICS, TABLE = "losses.csv", "metrics.csv", "table.csv"
_EMA = (
  "s(t) = sum over i <= t of (1 - w) w^(t - i) y(i), divided by 1 - w^t: the debiased exponential "
  "moving average that TensorBoard draws (classicSmoothing in its data_transformer.ts)"
)


def write_all(
  out: pathlib.Path,
  groups: Sequence[Group],
  rows: Sequence[Row],
  metrics: Sequence[str],
  pictures: Sequence[Picture],
  drawing: Drawing,
  notes: Sequence[str],
) -> list[str]:
  """Writes everything; returns the names of the files.

  Args:
    rows: of the table.
    metrics: its columns.
    notes: lines that a reader of the numbers must know.
  """
  run_files.write_csv(out / LOSSES, list(_values(groups, training=True)))
  run_files.write_csv(out / METRICS, list(_values(groups, training=False)))
  run_files.write_csv(out / TABLE, list(_table_lines(rows)))
  for picture in pictures:
    draw.png(picture, out / draw.file_name(picture))
  body = [
    "<h1>Comparison</h1>",
    page.paragraph(f"rtune, {time.strftime('%Y-%m-%d %H:%M')}", "soft"),
    *(page.paragraph(note, "note") for note in notes),
    page.section("Final values", _final(rows, metrics)),
    page.section("Runs", _runs(groups)),
    page.section("Curves", [_how(drawing), page.charts([draw.svg(p) for p in pictures])]),
    page.section("Slopes", _slopes(rows, metrics)),
  ]
  run_files.write_whole(out / PAGE, page.page("Comparison", body))
  return [PAGE, LOSSES, METRICS, TABLE, *(draw.file_name(picture) for picture in pictures)]


def table_text(rows: Sequence[Row], metrics: Sequence[str]) -> str:
  """The table for a console."""
  head, lines = _cells(rows, metrics)
  return f"{console.table(lines, head)}\n{_meaning(rows)}"


def _cells(rows: Sequence[Row], metrics: Sequence[str]) -> tuple[list[str], list[list[str | None]]]:
  """Headings and lines; a difference stands beside its value where a row has a reference."""
  compared = any(row.differences for row in rows)
  several = len(_references(rows)) > 1
  head = ["group", "phase", "runs"]
  for metric in metrics:
    head += [names.short(metric), "difference"] if compared else [names.short(metric)]
  lines = []
  for row in rows:
    line: list[str | None] = [row.group, row.phase, str(row.runs)]
    for metric in metrics:
      value, difference = row.values.get(metric), row.differences.get(metric)
      line.append(None if value is None else value.text())
      if compared:
        line.append(None if difference is None else difference.text())
    lines.append([*line, row.against or None] if several else line)
  return [*head, "from"] if several else head, lines


def _references(rows: Sequence[Row]) -> list[str]:
  """What rows are compared with."""
  return list(dict.fromkeys(row.against for row in rows if row.differences))


def _meaning(rows: Sequence[Row]) -> str:
  """What the cells of the table are."""
  said = "Mean ± standard deviation (n - 1) over runs."
  references = _references(rows)
  if references:
    one = f" from {references[0]}" if len(references) == 1 else ""
    said += f" Differences{one}: of runs with the same seed, with their own deviation."
  if any(not d.paired for row in rows for d in row.differences.values()):
    said += " * of the means: no seed in common."
  return said


def _final(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
  head, lines = _cells(rows, metrics)
  return [page.table(head, lines), page.paragraph(_meaning(rows), "soft")] if lines else []


def _runs(groups: Sequence[Group]) -> list[str]:
  rows = [
    (
      group.name,
      ", ".join("?" if run.seed is None else str(run.seed) for run in group.runs),
      ", ".join(run.path for run in group.runs),
    )
    for group in groups
  ]
  parts = [page.table(["group", "seeds", "runs"], rows, left=True)]
  known = [group.runs for group in groups if group.runs[0].settings]
  keys = differences(known) if len({runs[0].task for runs in known}) == 1 else []
  if keys:
    head = ["setting", *(group.name for group in groups if group.runs[0].settings)]
    lines = [[key, *(shown(runs[0], key) for runs in known)] for key in keys]
    parts.append(f"<h3>What they differ in</h3>{page.table(head, lines, left=True)}")
  return parts


def _slopes(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
  shown_rows = [row for row in rows if row.slopes]
  if not shown_rows:
    return []
  head = ["group", "phase", *map(names.short, metrics)]
  lines = [
    [row.group, row.phase, *(f"{row.slopes[m]:+.3g}" if m in row.slopes else None for m in metrics)]
    for row in shown_rows
  ]
  said = "Change in 1,000 steps: slope of the least-squares line through all values of a phase."
  return [page.table(head, lines), page.paragraph(said, "soft")]


def _how(drawing: Drawing) -> str:
  said = "Thick: mean of a group; band: one standard deviation; thin: single runs as logged."
  if drawing.rolling:
    said += f" Means are of runs smoothed by the mean of {drawing.rolling} points around each."
  elif drawing.smoothing:
    said += f" Means are of smoothed runs: {_EMA}, w = {drawing.smoothing:g}."
  return page.paragraph(said, "soft")


def _values(groups: Sequence[Group], training: bool) -> Iterator[dict[str, object]]:
  """Lines of losses.csv (all that is logged in training) or of metrics.csv (evaluations)."""
  kind = names.is_training if training else names.is_metric
  for group in groups:
    for run in group.runs:
      for branch in run.branches:
        for row in branch.rows:
          values = {names.short(k): row[k] for k in names.ordered(row) if kind(k)}
          if values:
            who = {"group": group.name, "run": run.path, "seed": run.seed}
            yield {**who, "phase": label(branch.name), "step": row["step"], **values}


def _table_lines(rows: Sequence[Row]) -> Iterator[dict[str, object]]:
  """A line for each group, phase and metric."""
  for row in rows:
    for metric, value in row.values.items():
      difference = row.differences.get(metric)
      yield {
        "group": row.group,
        "phase": row.phase,
        "metric": names.short(metric),
        "mean": value.mean,
        "deviation": value.deviation,
        "runs": value.count,
        "difference": None if difference is None else difference.spread.mean,
        "difference_deviation": None if difference is None else difference.spread.deviation,
        "pairs": None if difference is None else difference.spread.count,
        "from": row.against,
        "slope_per_1000_steps": row.slopes.get(metric),
      }
