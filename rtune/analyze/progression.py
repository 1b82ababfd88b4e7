"""Reward against metric over a run: one row for each evaluation.

A row is {"step", "phase", "reward", and the metric's headline numbers}.
"""

import math
from typing import Any

import numpy as np

from rtune.analyze import past
from rtune.analyze.estimators import pearson, spearman
from rtune.config import Config
from rtune.data.source import Source
from rtune.display import console, logs
from rtune.tasks.task import view
from rtune.training import restore
from rtune.training.evaluation import evaluate, judging_of
from rtune.training.phases import phase_of, planned
from rtune.training.predicting import best_answers
from rtune.training.restore import Restored
from rtune.training.setup import metrics_of

Row = dict[str, Any]
ENOUGH = 3  # two points always lie on a line


def evaluations(run: Restored, source: Source) -> list[Row]:
  """The evaluations that the run logged; if these are too few, kept checkpoints are evaluated."""
  if run.config.reward.running.fn:
    console.say("reward against metric: left out, for this reward has no value outside of training")
    return []
  rows = {row["step"]: row for row in _logged(run)}
  if len(rows) >= ENOUGH:
    return _alike(rows)
  kept = past.kept_steps(run.folder)
  kept = {step: phase for step, phase in kept.items() if step not in rows and _answers(phase)}
  if len(rows) + len(kept) >= ENOUGH:
    console.stage(f"{len(rows)} evaluations in the log; evaluating {len(kept)} kept checkpoints")
    rows |= {row["step"]: row for row in _recomputed(run, source, kept)}
  else:
    console.warn(
      f"reward against metric needs {ENOUGH} evaluations, {run.folder} has {len(rows)} in its log "
      f"and {len(kept)} more checkpoints. A run with --config.eval_every=N logs one every N steps; "
      "--config.checkpoints.keep_every=N keeps what this command can evaluate."
    )
  return _alike(rows)


def _alike(rows: dict[int, Row]) -> list[Row]:
  """In order of step, with the numbers that all have: at the end of a phase there may be more."""
  shown = [rows[step] for step in sorted(rows)]
  names = [name for name in (shown[0] if shown else ()) if all(name in row for row in shown)]
  return [{name: row[name] for name in names} for row in shown]


def _logged(run: Restored) -> list[Row]:
  lines = [line for line in logs.read_metrics(run.folder) if "val/reward" in line]
  phases = [phase_at(run.config, line["step"]) for line in lines]
  both = zip(phases, lines, strict=True)
  # What a code model keeps of the truth says nothing of a policy.
  return [_row(run, line["step"], phase, line) for phase, line in both if _answers(phase)]


def _row(run: Restored, step: int, phase: str, values: Row) -> Row:
  """NaN for a number that an older rtune did not report yet."""
  measured = sorted(name.removeprefix("val/") for name in values if name.startswith("val/"))
  names = dict.fromkeys(("reward", *(view(run.task).headline or measured)))
  return {"step": step, "phase": phase} | {n: values.get(f"val/{n}", math.nan) for n in names}


def _recomputed(run: Restored, source: Source, kept: dict[int, str]) -> list[Row]:
  config = run.config
  _, template = restore.load_params(run)
  predict = best_answers(run.task, run.policy)
  judging = judging_of(run, metrics_of(config, run.task))
  rows = []
  for number, (step, phase) in enumerate(kept.items(), 1):
    console.stage(f"checkpoint {number} of {len(kept)}: {phase}, step {step}")
    params = past.read_params(run.folder, step, template)
    values = evaluate(judging, params, predict, source, config.eval_examples)
    rows.append(_row(run, step, phase, {f"val/{key}": value for key, value in values.items()}))
  return rows


def phase_at(config: Config, step: int) -> str:
  """The phase of a step of the log; steps count on from phase to phase."""
  return next((name for name, _, last in planned(config) if step <= last), config.phases[-1])


def _answers(phase: str) -> bool:
  return phase_of(phase).learns.answers


def correlations(rows: list[Row], metrics: tuple[str, ...]) -> list[Row]:
  """Pearson's and Spearman's, of each phase with at least three evaluations, and of all.

  What mle ended with is where the later phases began, so it counts among theirs.
  """
  starts = [row for row in rows if row["phase"] == "mle"][-1:]
  scopes = {"all": rows}
  for phase in dict.fromkeys(row["phase"] for row in rows):
    scopes[phase] = [row for row in rows if row["phase"] == phase]
    if phase != "mle":
      scopes[phase] = starts + scopes[phase]
  result = []
  for scope, own in scopes.items():
    for metric in metrics if len(own) >= ENOUGH else ():
      both = [np.array([row[key] for row in own]) for key in ("reward", metric)]
      finite = np.isfinite(both).all(axis=0)
      x, y = (series[finite] for series in both)
      entry = {"phase": scope, "metric": metric, "evaluations": len(x)}
      result.append(entry | {"pearson": pearson(x, y), "spearman": spearman(x, y)})
  return result
