"""The loop, the same for every phase. What a phase does is a record of phases.py."""

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from rtune import commands
from rtune import config as configs
from rtune.data import unreadable
from rtune.devices import peers, sharding
from rtune.disk import refusals
from rtune.display import console
from rtune.display.clock import Clock
from rtune.display.logs import TIME
from rtune.display.progress import Progress
from rtune.store import reading, run_files, workdir
from rtune.store.checkpoint import Checkpoints
from rtune.tasks.task import knowledge
from rtune.training import (
  code_weights,
  evaluated,
  features,
  memory,
  resume,
  start,
  tables,
  tracking,
  trial,
  workers,
)
from rtune.training.feeding import Feed
from rtune.training.finish import Run, finish_phase
from rtune.training.leaving import Leaving
from rtune.training.measuring import measuring
from rtune.training.optim import Schedule
from rtune.training.phases import Assembled, Phase, assemble, phase_of, planned, stand_in
from rtune.training.samples import Samples
from rtune.training.setup import Setup, prepare
from rtune.training.signs import Signs, since
from rtune.training.stopping import on_signals
from rtune.training.update import Metrics, State
from rtune.training.watch import Watch


def run(
  config: configs.Config, folder: str, *, force: bool = False, allow_config_change: bool = False
) -> dict[str, Any]:
  """`train` of what a config names."""
  return train(prepare(config), folder, force=force, allow_config_change=allow_config_change)


def train(
  setup: Setup, folder: str, *, force: bool = False, allow_config_change: bool = False
) -> dict[str, Any]:
  """Runs the phases that are not complete, from the last checkpoint on; returns the results.

  Raises:
    UsageError, DataError: before training starts and before anything is written.
    NumericError: too many updates in a row were not applied; the last good checkpoint stays.
    StorageError: a checkpoint could not be written or read.
    Preempted: asked to stop; everything is saved.
  """
  config = setup.config
  path = commands.local(folder, "workdir")
  run_files.check_kinds(path)
  tracking.check(config.trackers)
  start.check(setup, path)
  if {"reward", "actor_critic"} & {*config.phases}:
    raw = unreadable.first(setup.val, config.data.on_error == "skip")
    trial.try_rewards(config.reward, setup.task, setup.policy, raw)
  with _held(folder, force) as path, on_signals() as stop:
    run_files.check_config(path, config, allow_config_change)
    keep = config.checkpoints
    with contextlib.closing(
      Checkpoints(path / "checkpoints", keep.keep_last, keep.keep_every, keep.on_error)
    ) as saves:
      resume.check(setup, path, saves)
      if jax.process_index() == 0:
        run_files.write_config(path, config)
        run_files.write_found(path, setup.found)
        reading.chosen(path)
        with refusals(path):
          knowledge(setup.task).save(path)
      resume_step = (saves.latest_meta() or {"step": -1})["step"]
      logging = tracking.opened(config, path, resume_step)
      with logging as log, peers.told(), memory.told(setup), workers.ended():
        _run_phases(Run(setup, path, saves, log, stop, Clock()))
  return run_files.read_results(path)


@contextlib.contextmanager
def _held(folder: str, force: bool) -> Iterator[pathlib.Path]:
  """The workdir; the first process holds its lock for all of them."""
  if jax.process_index() == 0:
    with workdir.lock(folder, force) as path:
      yield path
  else:
    yield pathlib.Path(folder).expanduser().absolute()


def _run_phases(this: Run) -> None:
  config = this.setup.config
  spans = {name: offset for name, offset, _ in planned(config)}
  for name in config.phases:
    phase = phase_of(name)
    if name not in spans:
      console.stage(f"{name}: {stand_in(config, name)} stands for it")
      continue
    if phase.learns.answers and not this.setup.frozen:
      frozen = code_weights.settle(config, this.setup.task, this.folder, this.setup.mesh)
      this = this._replace(setup=this.setup._replace(frozen=frozen))
    if name in run_files.read_results(this.folder):
      console.stage(f"{name}: already complete")
    else:
      _run_phase(this, phase, spans[name])


def _run_phase(this: Run, phase: Phase, offset: int) -> None:
  """Trains to the end of a phase, then saves its weights, evaluates, and marks it complete."""
  config, name = this.setup.config, phase.name
  settings = getattr(config, name)
  made, state = _assemble(this, phase)
  measure = measuring(this.setup, this.folder, this.clock, phase)
  state, seconds = _resume(this, name, state)
  first, begun = int(state.step), time.monotonic() - seconds
  seen = evaluated.opened(config, this.setup.task, this.folder, phase, offset, offset + first)
  if offset + first == 0 and phase.learns.answers:
    evaluated.check_names(config, this.setup.task, lambda: measure(state.params, 1))
  samples = Samples(this.setup, this.folder, this.log, this.clock, phase, offset, first)
  views = features.views_of(this.setup, phase, state.params, this.folder, this.stop)
  feed = Feed(this.setup, phase, this.folder, first, lambda: _labeling(state), views)
  batches = feed.batches()
  console.stage(f"{name}: steps {first} to {settings.steps}; the first one compiles")
  progress = Progress(settings.steps, name, start=first, images_per_unit=settings.batch_size)
  watch = Watch(config.max_bad_steps, lambda step: feed.examples(step - offset))
  signs = Signs(name, getattr(settings, "num_samples", 1), since(this.folder, offset))
  leaving = Leaving(this.stop, this.saves, name, offset, begun)
  with contextlib.closing(batches), progress:
    this.clock.take()
    for done in range(first + 1, first + 1 if seen.best.settled else settings.steps + 1):
      with this.clock("data"):
        batch = sharding.put_batch(this.setup.mesh, next(batches))
      with this.clock("update"), leaving.with_state_before(done, state):
        state, metrics = made.programs.step(state, batch)
        watch.look(offset + done, metrics)
      values, judged = {}, {}
      if done % config.log_every == 0 or done == settings.steps:
        values = _fetch(this, metrics, made.learning_rate, done)
        signs.look(offset + done, values)
      shown = {key: values[key] for key in ("loss", "reward/mean") if key in values}
      progress.update(done, shown or None)
      if config.eval_every and done % config.eval_every == 0 and done < settings.steps:
        judged = measure(state.params, config.eval_examples)
      if values or judged:
        # At once: to join a line that is written already, the log is read and written whole.
        this.log.write(offset + done, values | judged)
      if judged:
        seen.look(offset + done, judged, state.params)
      samples.look(done, state)
      stopped = done % config.log_every == 0 or jax.process_count() == 1
      stopped = stopped and leaving.agreed()
      ends = seen.best.settled or done == settings.steps
      if ends:
        watch.settle()
      if stopped or done % config.checkpoints.every == 0 or ends:
        leaving.save(done, state)
      if stopped:
        this.saves.settle()
        raise this.stop.preempted(f"{name} step {done} of {settings.steps} is saved")
      this.saves.check_errors()
      if ends:
        break
  finish_phase(this, phase, leaving, state, measure, seen)


def _labeling(state: State) -> Any:
  """The parameters that label images."""
  return state.params if state.teacher is None else state.teacher


def _assemble(this: Run, phase: Phase) -> tuple[Assembled, State]:
  """A phase put together, and its first state."""
  setup = this.setup
  params = phase.start_from(setup, this.folder)
  if jax.process_index() == 0:
    tables.say_parameters(this.folder, setup.config, phase, params)
  made = assemble(
    phase, setup.config, setup.task, setup.policy, setup.frozen, setup.mesh, params, this.clock
  )
  return made, made.init(params)


def _resume(this: Run, name: str, state: State) -> tuple[State, float]:
  """The state of the last checkpoint and its seconds, where it is one of this phase."""
  meta = this.saves.latest_meta()
  if meta is None or meta["phase"] != name:
    return state, 0.0
  step, state, meta = this.saves.restore_latest(state)
  console.stage(f"{name}: goes on from the checkpoint of step {step}")
  return state, meta["seconds"]


def _fetch(this: Run, metrics: Metrics, learning_rate: Schedule, done: int) -> dict[str, float]:
  """A step's metrics on the host, and where the time since the last ones went."""
  with this.clock("update"):
    values = {key: float(np.asarray(value)) for key, value in metrics.items()}
  # The schedule goes on with each update that is applied.
  applied = done - int(sum(values.get(key, 0) for key in ("skipped", "unrewarded", "spikes")))
  values["lr"] = float(learning_rate(max(applied - 1, 0)))
  return values | {f"{TIME}{part}": seconds for part, seconds in this.clock.take().items()}
