"""The end of a phase: its weights are saved, it is evaluated, and it counts as complete."""

import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from rtune.devices import processes, sharding
from rtune.display import console
from rtune.display.clock import Clock
from rtune.display.logs import MetricLog
from rtune.store import manifest, run_files, weights
from rtune.store.checkpoint import Checkpoints
from rtune.training.evaluated import Evaluated
from rtune.training.leaving import Leaving
from rtune.training.measuring import measuring
from rtune.training.phases import Phase, planned
from rtune.training.setup import Setup
from rtune.training.stopping import StopRequest
from rtune.training.update import State


class Run(NamedTuple):
  """What the phases of a run share."""

  setup: Setup
  folder: pathlib.Path
  saves: Checkpoints
  log: MetricLog
  stop: StopRequest
  clock: Clock


def finish_phase(
  this: Run,
  phase: Phase,
  leaving: Leaving,
  state: State,
  measure: Callable[..., dict[str, float]],
  seen: Evaluated,
) -> None:
  """All that comes after the last step of a phase; Preempted where a stop is asked for before."""
  name, config, params, done = phase.name, this.setup.config, state.params, int(state.step)
  if seen.best.settled:
    console.stage(
      f"{name}: ends after step {done}; {config.checkpoints.patience} evaluations "
      "have found nothing better"
    )
  host_params = sharding.on_host(params)
  if jax.process_index() == 0:
    path = run_files.weights_path(this.folder, name)
    # One entry: safetensors writes several in any order, and equal runs shall leave equal files.
    weights.save_weights(path, host_params, {"phase": name})
    manifest.add(path)
  processes.barrier(f"weights of {name}")
  console.stage(f"{name}: evaluating on {len(this.setup.val)} images")
  values = measure(params, between=leaving.in_evaluation)
  if config.eval_beam > 1 and phase.learns.answers:
    beam = measuring(this.setup, this.folder, this.clock, phase, config.eval_beam)
    values |= beam(params, between=leaving.in_evaluation)
  this.log.write(leaving.offset + done, values)
  # Evaluations within a phase may be of fewer images: only like is compared with like.
  few = seen.best.active and config.eval_examples
  judged = measure(params, config.eval_examples, leaving.in_evaluation) if few else values
  if few or not config.eval_examples:
    seen.look(leaving.offset + done, judged, params)
  this.saves.wait()
  if jax.process_index() == 0:
    run_files.add_results(this.folder, name, values, time.monotonic() - leaving.begun)
  processes.barrier(f"results of {name}")
  if not leaving.agreed():
    return
  if name != [one for one, _, _ in planned(config)][-1]:
    raise this.stop.preempted(f"{name} is complete")
  console.say("The run was all but done when it was asked to stop, and has finished instead.")
