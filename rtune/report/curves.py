"""From the log of a run to the curves of its report."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rtune import config as configs
from rtune.display.logs import TIME, Row, read_metrics
from rtune.report.charts import NUM_STYLES, Line, Point, chart
from rtune.training.phases import phase_of, planned, stand_in

# Below reward/; others are parts.
_SPREAD = ("mean", "std", "std_within", "min", "max", "alike", "invalid", "unjudged")
SECONDS = "seconds/"  # of a step, by part: the report computes them from the log


class Branch(NamedTuple):
  """The log of one phase. Control and tuning both begin where imitation has ended.

  A phase that trains another network than the policy has charts and steps of its own.

  Attributes:
    name: of the phase.
    label: what the legend calls it beside the main line; "" for what is the main line.
    start: the x at which it begins.
    rows: log lines; "step" is the x.
  """

  name: str
  label: str
  start: int
  rows: list[Row]


def read_branches(workdir: pathlib.Path, config: configs.Config) -> list[Branch]:
  """The phases of a run that have been logged, in order."""
  return branches_of(read_metrics(workdir), config)


def branches_of(rows: Sequence[Row], config: configs.Config) -> list[Branch]:
  """The phases that lines of a log are of, in order."""
  found = []
  imitated = 0 if stand_in(config, "mle") or "mle" not in config.phases else config.mle.steps
  for name, first, last in planned(config):
    start = imitated if phase_of(name).branches else 0
    mine = [row | {"step": row["step"] - first + start} for row in rows
            if first < row["step"] <= last]  # fmt: skip
    if mine:
      label = "control" if name == "control" else ""
      found.append(Branch(name, label, start, list(_with_seconds(mine, start))))
  return found


def move(branch: Branch, start: int) -> Branch:
  """The branch with another beginning."""
  rows = [row | {"step": row["step"] - branch.start + start} for row in branch.rows]
  return branch._replace(start=start, rows=rows)


def seconds_by_part(branch: Branch) -> dict[str, float]:
  """Where the time of a phase went, as far as it was measured."""
  totals: dict[str, float] = {}
  for row in branch.rows:
    for name, value in row.items():
      if name.startswith(TIME):
        part = name.removeprefix(TIME)
        totals[part] = totals.get(part, 0.0) + value
  return totals


def draw_curves(branches: Sequence[Branch], headline: Sequence[str]) -> list[str]:
  """The charts that there are values for.

  Args:
    headline: the metrics that matter, without "val/"; (): all but the reward.
  """
  logged = {name for branch in branches for row in branch.rows for name in row}
  measured = sorted(n.removeprefix("val/") for n in logged - {"val/reward"} if n.startswith("val/"))
  headline = headline or measured
  coding = [branch for branch in branches if not phase_of(branch.name).learns.answers]
  branches = [branch for branch in branches if phase_of(branch.name).learns.answers]
  names = dict.fromkeys(name for branch in branches for row in branch.rows for name in row)
  shown = _reward_charts(branches, names) + _validation_charts(branches, headline)
  tuned = [branch for branch in branches if branch.name == "reward"]
  others = [branch for branch in branches if branch.name != "reward"]
  terms = [n for n in ("reinforce", "supervised", "kl_term", "entropy_bonus") if n in names]
  terms = ["loss", *terms] if len(terms) > 1 else ["loss"]
  parts = {n.removeprefix(SECONDS): n for n in names if n.startswith(SECONDS)}
  for rare in ("eval", "samples"):  # in few steps only: a mean over steps says nothing
    parts.pop(rare, None)
  shown += [
    _chart(others, "Loss of imitation", {"loss": "loss", "negative log-likelihood": "nll"}),
    _chart(tuned, "Loss of tuning", {name.replace("_", " "): name for name in terms}),
    _chart(branches, "KL to the model before tuning", {"nats a position": "kl"}),
    _chart(branches, "Entropy", {"nats a position": "entropy"}),
    _chart(branches, "Length of answers", {"positions": "length"}),
    _chart(
      tuned,
      "Samples of one image",
      {
        "share of images whose samples all score alike": "reward/alike",
        "distinct samples, share": "unique",
      },
    ),
    _chart(tuned, "Seconds a step of tuning", parts, log=True),
    _chart(branches, "Gradient norm", {"before clipping": "grad_norm"}, log=True),
    _chart(branches, "Learning rate", {"rate": "lr"}),
    _chart(coding, "Code model: loss", {"loss": "loss"}),
    _chart(coding, "Code model: codes in use", {"share of the dictionary, a batch": "usage"}),
    _chart(coding, "Code model: perplexity", {"codes, if used evenly": "perplexity"}),
    *_validation_charts(coding, headline, "Code model, reconstruction"),
  ]
  return [figure for figure in shown if figure]


def _reward_charts(branches: Sequence[Branch], names: Mapping[str, None]) -> list[str]:
  tuned = [branch for branch in branches if branch.name != "mle"]
  prefix = "reward/"
  parts = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
  parts = {part: prefix + part for part in parts if part not in _SPREAD}
  # Beside a length shares would lie flat; the length of answers has a chart of its own.
  parts.pop("length", None)
  spread = {word: f"{prefix}{word}" for word in ("max", "mean", "std", "min")}
  first = {"sampled, training images": "reward/mean", "greedy, validation": "val/reward"}
  return [
    _chart(_from_common_start(branches) if tuned else branches, "Reward", first),
    _chart(tuned, "Parts of the reward, sampled", parts),
    _chart(tuned, "Spread of the reward in a batch", spread),
  ]


def _validation_charts(
  branches: Sequence[Branch], headline: Sequence[str], title: str = "Validation"
) -> list[str]:
  """Shares together, everything on another scale by itself."""
  wide = [name for name in headline if max(_values(branches, f"val/{name}"), default=0) > 1]
  shares = {name: f"val/{name}" for name in headline if name not in wide}
  return [
    _chart(branches, title, shares),
    *(_chart(branches, f"{title}: {name}", {name: f"val/{name}"}) for name in wide),
  ]


def _values(branches: Sequence[Branch], name: str) -> list[float]:
  return [row[name] for branch in branches for row in branch.rows if name in row]


def _chart(
  branches: Sequence[Branch], title: str, names: Mapping[str, str], log: bool = False
) -> str:
  """One chart of the named values: imitation and tuning as one line, control beside it, dashed."""
  lines = []
  for style, (label, name) in enumerate(list(names.items())[:NUM_STYLES]):
    dots = name.startswith("val/")
    main = [branch for branch in branches if not branch.label]
    points = [point for branch in main for point in _points(branch, name)]
    lines.append(Line(label, points, style, "", dots))
    for branch in branches:
      if branch.label:
        # It leaves the main line at the end of imitation.
        root = [point for point in points if point[0] <= branch.start][-1:] if dots else []
        own = _points(branch, name)
        lines.append(Line(label, [*root, *own] if own else [], style, branch.label, dots))
  marks = [(branch.start, "tuning") for branch in branches if branch.name == "reward"]
  return chart(title, lines, log=log, marks=marks)


def _points(branch: Branch, name: str) -> list[Point]:
  # -1 is how COCO's numbers say that there is nothing to count.
  hidden = -1.0 if name.startswith("val/") else None
  return [(row["step"], row[name]) for row in branch.rows if row.get(name, hidden) != hidden]


def _from_common_start(branches: Sequence[Branch]) -> list[Branch]:
  """Without what came before tuning, but for the value that it starts from."""
  begin = max((branch.start for branch in branches), default=0)
  return [
    branch._replace(rows=[row for row in branch.rows if row["step"] >= begin])
    for branch in branches
  ]


def _with_seconds(rows: Sequence[Row], last: int) -> Iterator[Row]:
  """Adds seconds a step of each part, which the log has for all steps since the line before."""
  for row in rows:
    times = {name: value for name, value in row.items() if name.startswith(TIME)}
    steps = row["step"] - last
    if times and steps > 0:
      last = row["step"]
      row = row | {SECONDS + name.removeprefix(TIME): v / steps for name, v in times.items()}
    yield row
