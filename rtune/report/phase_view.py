"""The phases of a run side by side: their numbers, and the images in which they differ."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rtune.data.source import Source
from rtune.display.draw import draw_text
from rtune.metrics.passes import passes_of
from rtune.report import page
from rtune.report.charts import NUM_STYLES, Line, chart
from rtune.store import run_files
from rtune.tasks.task import Task, view
from rtune.training import restore
from rtune.training.evaluation import Evaluation, Judged, evaluate_phase, predictor
from rtune.training.phases import phase_of
from rtune.training.restore import Restored
from rtune.training.setup import metrics_of

_COUNTS = ("boxes", "length", "segments")  # metrics of which neither more nor less is better
_NUM_CASES, _NUM_EXTREMES = 12, 6


class Phase(NamedTuple):
  """A column of the tables.

  Attributes:
    own: whether it is of the run itself, not of the one it is compared with.
    values: of the metric; {} if nobody knows them.
    seen: what the report has evaluated itself; None if it could not.
    seconds: what it took, if that is known.
  """

  name: str
  label: str
  own: bool
  values: dict[str, float]
  seen: Evaluation | None
  seconds: float | None


def read_phases(
  run: Restored, other: Restored | None, source: Source | None, limit: int
) -> list[Phase]:
  """Reconstruction, MLE, control, tuned, as far as they are finished, evaluated on `source` if it
  is there. The first is the truth after it has gone through the code model, where there is one.
  """
  found = _phases(run, restore.finished(run), source, limit)
  if other is None or not restore.finished(other):
    return found
  phase, label = compared(other), label_beside(run, other)
  beside = _phases(other, (phase,), source, limit)[0]._replace(own=False, label=label)
  if other.config.data.val != run.config.data.val:
    beside = beside._replace(values=beside.seen.values if beside.seen else {})
  last = len(found) - (1 if found and found[-1].name == "reward" else 0)
  return [*found[:last], beside, *found[last:]]


def compared(other: Restored) -> str:
  """Which phase of another run ours is compared with: its control, else its last."""
  there = restore.finished(other)
  return "control" if "control" in there else there[-1]


def label_beside(run: Restored, other: Restored) -> str:
  """What the other run's phase is called where ours stand, too."""
  phase = compared(other)
  return (
    f"{phase_of(phase).label} of {name_of(other)}"
    if phase in restore.finished(run)
    else phase_of(phase).label
  )


def name_of(run: Restored) -> str:
  return run.folder.absolute().name


def _phases(run: Restored, names: Sequence[str], source: Source | None, limit: int) -> list[Phase]:
  results = run_files.read_results(run.folder)
  predict, metrics = predictor(run), metrics_of(run.config, run.task)
  found = []
  for name in names:
    seen = None
    if source is not None:
      seen = evaluate_phase(run, name, predict, source, metrics, limit)
    # What a run notes at the end of a phase is of its last weights.
    noted = results.get(name, {}) if run.weights == "last" else {}
    values = {key.removeprefix("val/"): value for key, value in noted.items()}
    values = values or (seen.values if seen else {})
    seconds = results.get("seconds", {}).get(name)
    found.append(Phase(name, phase_of(name).label, True, values, seen, seconds))
  return found


def _answers(phase: Phase) -> bool:
  return phase_of(phase.name).learns.answers


def headline_tiles(phases: Sequence[Phase], headline: Sequence[str]) -> str:
  """The numbers that matter, of the last phase, and what has changed since the first."""
  own = [phase for phase in phases if phase.own and phase.values]
  own = [phase for phase in own if _answers(phase)] or own
  if not own:
    return ""
  first, last = own[0].values, own[-1].values
  # A task that says nothing of what matters most shows all there is.
  names = [name for name in dict.fromkeys((*(headline or last), "reward")) if name in last]
  return page.tiles(
    [
      (
        f"{name}, {own[-1].label}",
        known(last, name),
        _delta(first, last, name) if len(own) > 1 else None,
      )
      for name in names
    ]
  )


def metric_table(phases: Sequence[Phase]) -> str:
  return _side_by_side("validation", [(phase, phase.values) for phase in phases])


def charts_by_pass(phases: Sequence[Phase]) -> list[str]:
  """A chart for each measure that is known after every pass, a line for each phase."""
  known_of = [phase for phase in phases if phase.values]
  names = dict.fromkeys(name for phase in known_of for name in phase.values)
  measures = [name.removesuffix("_given") for name in names if name.endswith("_given")]
  charts = []
  for measure in measures:
    lines = []
    for style, phase in enumerate(known_of[:NUM_STYLES]):
      places = passes_of(phase.values, measure)
      points = [(number, phase.values[name]) for number, name in places]
      lines.append(Line(phase.label, points, style, dots=True))
    charts.append(chart(measure, lines, x_label="pass"))
  return charts


def confusion_table(phases: Sequence[Phase]) -> str:
  """Of the last phase that has one: rows are the truth, in shares of it; "" where there is none."""
  found = [phase for phase in phases if phase.seen and phase.seen.confusion is not None]
  if not found:
    return ""
  names, counts = found[-1].seen.confusion
  shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  rows = [
    # What is never there has no shares.
    [name, *(float(share) if total else None for share in row)]
    for name, row, total in zip(names, shares, counts.sum(axis=1), strict=True)
  ]
  return page.table([f"truth, {found[-1].label}", *names], rows)


def class_table(phases: Sequence[Phase]) -> str:
  return _side_by_side("class", [(phase, phase.seen.classes) for phase in phases if phase.seen])


def _side_by_side(corner: str, columns: Sequence[tuple[Phase, dict[str, float]]]) -> str:
  """Names down, phases across, then the last phase minus each of the others that answer."""
  columns = [(phase, values) for phase, values in columns if values]
  if not columns:
    return ""
  last, final = columns[-1]
  before = [column for column in columns[:-1] if _answers(column[0])]
  names = list(dict.fromkeys(name for _, values in columns for name in values))
  head = [corner, *(phase.label for phase, _ in columns)]
  head += [f"{last.label} - {phase.label}" for phase, _ in before]
  rows = []
  for name in names:
    deltas = [_delta(values, final, name) for _, values in before]
    rows.append([name, *(known(values, name) for _, values in columns), *deltas])
  return page.table(head, rows)


def known(values: dict[str, float], name: str) -> float | None:
  """A metric's value; COCO's -1 says that there was nothing to count."""
  value = values.get(name)
  return None if value is None or not math.isfinite(value) or value == -1 else value


def _delta(before: dict[str, float], after: dict[str, float], name: str) -> page.Delta | None:
  old, new = known(before, name), known(after, name)
  return None if old is None or new is None else page.Delta(new - old, name not in _COUNTS)


def pictures(task: Task, phases: Sequence[Phase], source: Source) -> list[str]:
  """Sections: a grid of images, the largest gains, the largest losses."""
  own = [phase for phase in phases if phase.own and phase.seen]
  if not own:
    return []
  coded = [phase for phase in own if not _answers(phase)]
  own = [phase for phase in own if _answers(phase)]
  pair = [own[0], own[-1]] if len(own) > 1 else own
  shown = coded + pair
  count = len(shown[0].seen.judged)
  spread = np.linspace(0, count - 1, min(_NUM_CASES, count)).round().astype(int).tolist()
  sections = [
    (
      "Validation images",
      spread,
      f"{len(spread)} of {count}, evenly spread. A click enlarges a picture.",
    )
  ]
  if len(pair) > 1:
    rewards = [np.array([one.reward for one in phase.seen.judged]) for phase in pair]
    gain = rewards[1] - rewards[0]
    order = [int(i) for i in np.argsort(gain, kind="stable") if math.isfinite(gain[i])]
    up = [i for i in reversed(order) if gain[i] > 0]
    down = [i for i in order if gain[i] < 0]
    said = f"{len(up)} of {count} images gained, {len(down)} lost, by the reward of each."
    sections.append(("Largest gains", up[:_NUM_EXTREMES], said))
    sections.append(("Largest losses", down[:_NUM_EXTREMES], said))
  return [
    page.section(title, [page.paragraph(said, "soft"), _cases(task, shown, source, places)])
    for title, places, said in sections
    if places
  ]


def _cases(task: Task, phases: Sequence[Phase], source: Source, places: Sequence[int]) -> str:
  cases, seen = [], view(task)
  for place in places:
    ones = [phase.seen.judged[place] for phase in phases]
    raw = source[ones[0].index]
    image = raw["image"]
    records = [("truth", seen.annotated(raw))]
    records += [(_caption(p, one), one.record) for p, one in zip(phases, ones, strict=True)]
    texts = [(label, seen.text(record)) for label, record in records]
    if any(lines for _, lines in texts):  # they stand beside one picture with nothing on it
      shown = [("input", draw_text(image, ()))]
    else:
      shown = [(label, seen.draw(image, record)) for label, record in records]
      if seen.given:
        shown.insert(0, ("input", seen.given(image)))
    answers = [one for p, one in zip(phases, ones, strict=True) if _answers(p)]
    change = answers[-1].reward - answers[0].reward if len(answers) > 1 else math.nan
    heading = f"image {raw.get('image_id', ones[0].index)}"
    cases.append(page.Case(heading, shown, change if math.isfinite(change) else None, texts))
  return page.cases(cases)


def _caption(phase: Phase, one: Judged) -> str:
  return f"{phase.label}, reward {one.reward:.2f}" if math.isfinite(one.reward) else phase.label
