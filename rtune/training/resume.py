"""Whether a run can go on where its workdir has stopped: before anything is written or computed."""

import pathlib
from typing import Any

import jax

from rtune.devices import processes
from rtune.display import console
from rtune.display.logs import Row, read_metrics
from rtune.errors import UsageError
from rtune.store import run_files
from rtune.store.checkpoint import Checkpoints
from rtune.training import code_weights
from rtune.training.phases import Phase, assemble, phase_of, planned
from rtune.training.setup import Setup, first_inputs


def check(setup: Setup, folder: pathlib.Path, saves: Checkpoints) -> None:
  """Checks the newest checkpoint against the config; makes a lost results.json anew.

  Raises:
    UsageError: the config has changed so that the run cannot go on.
  """
  meta = saves.latest_meta()
  if meta is None:
    return
  name, spans = meta["phase"], {n: (first, last) for n, first, last in planned(setup.config)}
  where = f"{folder}: its last checkpoint is step {meta['step']}, in the phase {name}"
  if name not in spans:
    raise UsageError(
      f"{where}, which this config does not run. Keep {name} in config.phases, or use another "
      "--workdir."
    )
  first, last = spans[name]
  done = meta["step"] - first
  if not 0 < done <= last - first:
    raise UsageError(
      f"{where}, which by this config has steps {first} to {last}. Leave the number of steps of "
      "phases that are complete as it was and that of this one not below what is done, or use "
      "another --workdir."
    )
  _check_results(setup, folder, list(spans), name, spans)
  made = _assembled(setup, phase_of(name))
  saves.check_fits(made.shapes)


def _check_results(
  setup: Setup, folder: pathlib.Path, order: list[str], name: str, spans: dict
) -> None:
  """The phases before the one of the checkpoint are complete, and none behind it."""
  place = order.index(name)
  before, behind = order[:place], order[place + 1 :]
  path = folder / run_files.RESULTS
  problem = run_files.results_problem(folder) if jax.process_index() == 0 else ""
  if problem and (before or path.is_file()):
    rows = read_metrics(folder)
    lost = {phase: _ran(spans[phase], setup, rows) for phase in before}
    said = ", ".join(run_files.rebuild_results(folder, lost, rows)) or "nothing yet"
    console.warn(f"{path} was {problem}; it is made anew from weights and log, for {said}.")
  processes.barrier("results")
  results = run_files.read_results(folder)
  wrong = {phase: "it is complete already" for phase in behind if phase in results}
  wrong |= {phase: "it is not complete" for phase in before if phase not in results}
  for phase, problem in wrong.items():
    side = "after" if phase in behind else "before"
    raise UsageError(
      f"{folder}: in config.phases {setup.config.phases} {phase} comes {side} {name}, where the "
      f"last checkpoint is, but {problem}. Put the phases back in their old order, or use another "
      "--workdir."
    )


def _ran(span: tuple[int, int], setup: Setup, rows: list[Row]) -> tuple[int, int]:
  """First and last step of a complete phase: with patience it may have ended early."""
  first, last = span
  if not setup.config.checkpoints.patience:
    return span
  return first, max((row["step"] for row in rows if first < row["step"] <= last), default=last)


def _assembled(setup: Setup, phase: Phase) -> Any:
  """The phase put together from shapes alone."""
  if phase.learns.answers:
    inputs = first_inputs(setup)
    params = jax.eval_shape(setup.policy.init, jax.random.key(0), inputs)
  else:
    params = code_weights.shapes(setup.task)
  frozen = code_weights.shapes(setup.task)
  return assemble(phase, setup.config, setup.task, setup.policy, frozen, setup.mesh, params)
