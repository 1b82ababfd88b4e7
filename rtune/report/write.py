"""One page about a run: what it was, what came of it, how it went, what it sees in images.

python -m rtune.report --workdir W [--compare W_CONTROL] [--limit N]

The page is a single file, W/report.html, which asks for nothing from anywhere.
"""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rtune import config as configs
from rtune.data import findings
from rtune.data.source import Source
from rtune.display import console
from rtune.errors import RtuneError, UsageError
from rtune.report import page, phase_view, samples
from rtune.report.curves import Branch, draw_curves, move, read_branches, seconds_by_part
from rtune.report.phase_view import Phase
from rtune.store import run_files
from rtune.tasks.task import view
from rtune.training import hacking, restore
from rtune.training.evaluated import TUNING
from rtune.training.open_data import open_source
from rtune.training.phases import phase_of, planned, stand_in
from rtune.training.restore import Restored

FILE = "report.html"
LIMIT = 2000  # validation images that classes and pictures are taken from
_LONGEST = 160  # characters of a setting
_LONGEST_FOUND = 600  # and of a warning about data
_PARTS = ("data", "sample", "score", "update", "eval")  # of a step, in order


def write_report(
  workdir: str | pathlib.Path,
  val: Source | None = None,
  compare: str = "",
  limit: int = LIMIT,
  data: Mapping[str, Any] = MappingProxyType({}),
  weights: str = "last",
) -> pathlib.Path:
  """Writes report.html into a workdir, of whatever is there, in this process alone.

  Args:
    val: the run's validation data, if it is open already.
    compare: workdir of another run, whose control (or else last) phase is shown beside ours.
    limit: validation images to look at, from the first on; 0 = all.
    data: arguments of the validation data, over those that the run has.
    weights: "last" or "best" of each phase, of both runs.

  Returns:
    The path of the page.

  Raises:
    UsageError: no workdir, or runs that cannot be compared.
  """
  run = restore.restore(workdir, weights)
  other = restore.restore(compare, weights) if compare else None
  if other is not None:
    _check_comparable(run, other)
  problem = ""
  if val is None:
    try:
      val = open_source(run, args=data)
    except RtuneError as error:
      problem = f"No pictures and classes: the validation data cannot be read. {error}"
  phases = phase_view.read_phases(run, other, val, limit)
  branches = read_branches(run.folder, run.config)
  if other is not None:
    branches += _beside(run, other, branches)
  figures = draw_curves(branches, view(run.task).headline)
  body = [
    *_head(run, other, phases, branches),
    page.section("Odd in the data", _found(run, val)),
    page.section("Is the reward hacked?", _hacked(run)),
    page.section("Results", _results(phases, val, limit, problem)),
    page.section("By pass", _by_pass(phases)),
    page.section("Curves", [page.charts(figures)] if figures else []),
    page.section("Samples while training", samples.tables(run.folder, run.config.phases)),
    *(phase_view.pictures(run.task, phases, val) if val is not None else []),
    page.section("Time", [_time_table(phases, branches)]),
    page.section("Config", _config(run.config)),
  ]
  path = run.folder / FILE
  run_files.write_whole(path, page.page(f"{phase_view.name_of(run)}: report", body))
  return path


def _check_comparable(run: Restored, other: Restored) -> None:
  ours, theirs = (
    (getattr(r.task, "category_ids", type(r.task)), getattr(r.task, "classes", ()))
    for r in (run, other)
  )
  if ours != theirs:
    raise UsageError(f"--compare {other.folder}: its classes are not those of {run.folder}.")
  if getattr(run.task, "digest", "") != getattr(other.task, "digest", ""):
    raise UsageError(f"--compare {other.folder}: its words are not those of {run.folder}.")
  if not restore.finished(other):
    raise UsageError(f"--compare {other.folder}: no phase of it is finished.")


def _beside(run: Restored, other: Restored, ours: Sequence[Branch]) -> list[Branch]:
  """The other run's phase, moved to where our imitation has ended."""
  name, label = phase_view.compared(other), phase_view.label_beside(run, other)
  start = max((branch.start for branch in ours), default=0)
  branches = read_branches(other.folder, other.config)
  return [move(branch, start)._replace(label=label) for branch in branches if branch.name == name]


def _head(
  run: Restored, other: Restored | None, phases: Sequence[Phase], branches: Sequence[Branch]
) -> list[str]:
  """The name, the numbers that matter, and what was done."""
  config, name = run.config, phase_view.name_of(run)
  date = time.strftime("%Y-%m-%d %H:%M")
  tuned = "reward" in config.phases
  facts = [
    ("task", _call(config.task.fn, config.task.args)),
    ("reward", _rewards(config.reward) if tuned else ""),
    ("trained on", _call(config.data.train.fn, config.data.train.args)),
    ("validated on", _call(config.data.val.fn, config.data.val.args)),
    ("starts from", config.init_from),
    ("code model from", config.codes_init),
    ("compared with", str(other.folder) if other else ""),
    ("weights", "the best of each phase" if run.weights == "best" else ""),
  ]
  skipped = sum(branch.rows[-1].get("skipped", 0) for branch in branches)
  note = f"{skipped:.0f} updates were not finite and were left out."
  return [
    f"<h1>{page.text(name)}</h1>{page.paragraph(f'Report of rtune, {date}', 'soft')}",
    phase_view.headline_tiles(phases, view(run.task).headline),
    _phase_table(config, phases),
    page.table([], [fact for fact in facts if fact[1]], left=True),
    page.paragraph(note, "note") if skipped else "",
  ]


def _found(run: Restored, val: Source | None) -> list[str]:
  """What was found when the data were opened, in training and now."""
  now = findings.gather({"data.val": val}) if val is not None else ()
  found = dict.fromkeys((*run_files.read_found(run.folder), *now))
  return [page.paragraph(_cut(text, _LONGEST_FOUND), "note") for text in found]


def _hacked(run: Restored) -> list[str]:
  """What the log says of rewards that rose while what they stand for fell."""
  numbers, lower, notes = hacking.watched_by(run.config, run.task), view(run.task).lower, []
  for name, first, last in planned(run.config):
    if name in TUNING:
      rows = hacking.evaluations(run.config, run.folder, first, last)
      notes += [f"{name} {one}." for one in hacking.found(rows, numbers, lower)]
  return [page.paragraph(note, "note") for note in notes]


def _phase_table(config: configs.Config, phases: Sequence[Phase]) -> str:
  seconds = {phase.name: phase.seconds for phase in phases if phase.own}
  rows = []
  for name in config.phases:
    if stand_in(config, name):
      continue
    phase, spent = getattr(config, name), seconds.get(name)
    rows.append(
      [
        phase_of(name).label,
        phase.steps,
        phase.batch_size,
        getattr(phase, "num_samples", None),
        f"{phase.optim.name}, {phase.optim.lr:g}, {phase.optim.schedule}",
        None if spent is None else console.duration(spent),
        "finished" if name in seconds else "not finished",
      ]
    )
  columns = ["phase", "steps", "images a step", "samples an image", "optimizer", "time", "state"]
  return page.table(columns, rows)


def _rewards(reward: configs.Reward) -> str:
  if not reward.fns:
    return _call(reward.fn, reward.args)
  return " + ".join(f"{part.weight:g} x {_call(part.fn, part.args)}" for part in reward.fns)


def _call(fn: str, args: object) -> str:
  text = ", ".join(f"{key}={value!r}" for key, value in dict(args).items())
  return f"{fn}({_cut(text)})"


def _cut(text: str, most: int = _LONGEST) -> str:
  return text if len(text) <= most else text[: most - 3] + "..."


def _results(phases: Sequence[Phase], val: Source | None, limit: int, problem: str) -> list[str]:
  if not phases:
    return [page.paragraph("No phase is finished yet.", "note")]
  by_class = phase_view.class_table(phases)
  if by_class:
    by_class = f"<h3>By class</h3>{by_class}"
    if val is not None and 0 < limit < len(val):
      by_class += page.paragraph(f"Classes: the first {limit} of {len(val)} images.", "soft")
  confusion = phase_view.confusion_table(phases)
  if confusion:
    confusion = page.folded("Confusion: which share of each class was taken for which", confusion)
  note = page.paragraph(problem, "note") if problem else ""
  overall = f"<h3>Overall</h3>{phase_view.metric_table(phases)}"
  return [note, page.columns([overall, by_class]), confusion]


def _by_pass(phases: Sequence[Phase]) -> list[str]:
  charts = phase_view.charts_by_pass(phases)
  return [page.paragraph("0 is what was given.", "soft"), page.charts(charts)] if charts else []


def _time_table(phases: Sequence[Phase], branches: Sequence[Branch]) -> str:
  """Seconds of each part of each phase; "rest" is compilation, saving and what is not measured."""
  seconds = {phase.name: phase.seconds for phase in phases if phase.own}
  spent = {b.name: seconds_by_part(b) for b in branches if b.name in seconds}
  parts = list(dict.fromkeys(part for values in spent.values() for part in values))
  parts.sort(key=lambda part: _PARTS.index(part) if part in _PARTS else len(_PARTS))
  if not parts:
    return ""
  rows = []
  for name, values in spent.items():
    total = seconds[name]
    rest = None if total is None else max(0.0, total - sum(values.values()))
    rows.append([phase_of(name).label, *(values.get(p) for p in parts), rest, total])
  return page.table(["seconds", *parts, "rest", "all"], rows)


def _config(config: configs.Config) -> list[str]:
  """What differs from the defaults, then everything."""
  new, old = (run_files.leaves(dataclasses.asdict(part)) for part in (config, configs.Config()))
  rows = [
    (key, _cut(repr(value)), _cut(repr(old[key])) if key in old else None)
    for key, value in sorted(new.items())
    if key not in old or old[key] != value
  ]
  return [
    page.table(["key", "value", "default"], rows, left=True),
    page.folded("All of it, as config.json", page.code(configs.to_json(config))),
  ]
