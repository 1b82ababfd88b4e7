"""The loop, the same for every phase. What a step does: steps.py, reward_step.py, code_step.py."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from rtune import config as configs
from rtune.data import loader
from rtune.devices import processes, sharding
from rtune.display import console
from rtune.display.logs import TIME, Clock, MetricLog
from rtune.display.progress import Progress
from rtune.errors import NumericError
from rtune.report.write import write_report
from rtune.store import run_files, weights, workdir
from rtune.store.checkpoint import Checkpoints
from rtune.training import code_weights, codes, tables, update
from rtune.training.evaluation import evaluate, make_predict
from rtune.training.optim import Schedule, check_optim, make_optimizer
from rtune.training.reinforce import reward_step
from rtune.training.scoring import make_lesson, make_scoring, with_frozen
from rtune.training.setup import Setup, check_start, initial_params, prepare
from rtune.training.stopping import StopRequest, on_signals

# Every phase draws its own data and randomness.
_SEEDS = {"mle": 0, "control": 1, "reward": 2, "codes": 2**20}
_SEEDS_A_RUN = 3


class Run(NamedTuple):
  """What the phases of a run share."""

  setup: Setup
  folder: pathlib.Path
  saves: Checkpoints
  log: MetricLog
  stop: StopRequest
  clock: Clock


def run(
  config: configs.Config, folder: str, *, force: bool = False, allow_config_change: bool = False
) -> dict[str, Any]:
  """Runs the phases that are not complete, from the last checkpoint on; returns the results.

  Raises:
    UsageError, DataError: before training starts and before anything is written.
    NumericError: too many updates in a row were not finite; the last good checkpoint stays.
    StorageError: a checkpoint could not be written or read.
    Preempted: asked to stop; everything is saved.
  """
  for name in config.phases:
    check_optim(getattr(config, name).optim, getattr(config, name).steps, f"config.{name}.optim")
  setup = prepare(config)
  config = setup.config
  check_start(setup, pathlib.Path(folder).expanduser())
  with _held(folder, force) as path, on_signals() as stop:
    if jax.process_index() == 0:
      run_files.settle_config(path, config, allow_config_change)
      setup.task.save(path)
    keep = config.checkpoints
    with contextlib.closing(
      Checkpoints(path / "checkpoints", keep.keep_last, keep.keep_every)
    ) as saves:
      resume_step = (saves.latest_meta() or {"step": -1})["step"]
      with MetricLog(
        path,
        resume_step=resume_step,
        process_index=jax.process_index(),
        tensorboard=config.tensorboard,
      ) as log:
        _run_phases(Run(setup, path, saves, log, stop, Clock()))
  results = run_files.read_results(path)
  if jax.process_index() == 0:
    console.stage("writing the report")
    console.say(
      f"{write_report(path, setup.val)}\n{tables.results_table(results, setup.task.headline)}"
    )
  return results


@contextlib.contextmanager
def _held(folder: str, force: bool) -> Iterator[pathlib.Path]:
  """The workdir; the first process holds its lock for all of them."""
  if jax.process_index() == 0:
    with workdir.lock(folder, force) as path:
      yield path
  else:
    yield pathlib.Path(folder).expanduser().absolute()


def _run_phases(this: Run) -> None:
  config, offset = this.setup.config, 0
  for name in config.phases:
    given = run_files.stand_in(config, name)
    if given:
      console.stage(f"{name}: {given} stands for it")
      continue
    if name != "codes" and not this.setup.frozen:
      frozen = code_weights.settle(config, this.setup.task, this.folder, this.setup.mesh)
      this = this._replace(setup=this.setup._replace(frozen=frozen))
    if name in run_files.read_results(this.folder):
      console.stage(f"{name}: already complete")
    else:
      _run_phase(this, name, offset)
    offset += getattr(config, name).steps


def _run_phase(this: Run, name: str, offset: int) -> None:
  """Trains to the end of a phase, then saves its weights, evaluates, and marks it complete."""
  config, phase = this.setup.config, getattr(this.setup.config, name)
  state, step_fn, learning_rate = _make_step(this, name)
  measure = _make_evaluation(this, name)
  state, seconds = _resume(this, name, state)
  start, begun = int(state.step), time.monotonic() - seconds
  batches = loader.train_batches(
    this.setup.train,
    functools.partial(this.setup.task.example, judged=name == "reward"),
    batch_size=phase.batch_size,
    seed=config.seed * _SEEDS_A_RUN + _SEEDS[name],
    start_step=start,
    num_threads=config.data.threads,
    prefetch=config.data.prefetch,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  console.stage(f"{name}: steps {start} to {phase.steps}; the first one compiles")
  progress = Progress(phase.steps, name, start=start, images_per_unit=phase.batch_size)
  with contextlib.closing(batches), progress:
    this.clock.take()
    for done in range(start + 1, phase.steps + 1):
      with this.clock("data"):
        batch = sharding.put_batch(this.setup.mesh, next(batches))
      with this.clock("update"):
        state, metrics = step_fn(state, batch)
      shown = None
      if done % config.log_every == 0 or done == phase.steps:
        values = _fetch(this, metrics) | {"lr": float(learning_rate(done - 1))}
        this.log.write(offset + done, values)
        _check_finite(values, config, offset + done)
        shown = {key: values[key] for key in ("loss", "reward/mean") if key in values}
      progress.update(done, shown)
      if config.eval_every and done % config.eval_every == 0 and done < phase.steps:
        this.log.write(offset + done, measure(state.params, config.eval_examples))
      stopped = _stop_agreed(this, done)
      if stopped or done % config.checkpoints.every == 0 or done == phase.steps:
        meta = {"phase": name, "step": offset + done, "seconds": time.monotonic() - begun}
        this.saves.save(offset + done, state, meta)
      if stopped:
        this.saves.wait()
        raise this.stop.preempted(f"{name} step {done} of {phase.steps} is saved")
      this.saves.check_errors()
  _finish_phase(this, name, offset + phase.steps, state.params, measure, begun)


def _make_step(this: Run, name: str) -> tuple[update.State, update.Step, Schedule]:
  """The first state of a phase, its step function and its learning rate."""
  setup, config = this.setup, this.setup.config
  phase = getattr(config, name)
  params, coding = initial_params(setup, name, this.folder), name == "codes"
  tables.say_parameters(this.folder, config, name, params)
  trained = params["params"] if coding else params
  optimizer, learning_rate = make_optimizer(phase.optim, phase.steps, trained, f"{name}.optim")
  init = functools.partial(codes.init_state if coding else update.init_state, optimizer=optimizer)
  strategy = "fsdp" if config.shard_parameters else "replicate"
  shardings = sharding.param_shardings(setup.mesh, jax.eval_shape(init, params), strategy)
  state = jax.jit(init, out_shardings=shardings)(params)
  key = jax.random.fold_in(jax.random.key(config.seed), _SEEDS[name])
  task, policy, frozen = setup.task, setup.policy, setup.frozen
  if coding:
    step = codes.codes_step(task, optimizer, phase, key, shardings)
  elif name == "reward":
    scoring = make_scoring(phase, task, frozen, setup.mesh)
    reference = params if phase.kl else None
    step = reward_step(
      task, policy, optimizer, phase, frozen, key, scoring, reference, this.clock, shardings
    )
  else:
    lesson = make_lesson(phase, task)
    step = update.imitation_step(task, policy, optimizer, phase, frozen, key, shardings, lesson)
  return state, step, learning_rate


def _make_evaluation(this: Run, name: str, beam: int = 1):
  """(params, number of examples) -> {"val/...": value}, of beam search "val/..._beam".

  Of the phase codes what is measured is the truth after it has gone through the code model.
  """
  setup, suffix = this.setup, "_beam" if beam > 1 else ""
  if name == "codes":
    predict = codes.make_reconstruct(setup.task)
  else:
    predict = make_predict(setup.task, setup.policy, setup.frozen, beam)
  reward = setup.config.reward
  scoring = make_scoring(reward, setup.task, setup.frozen, setup.mesh) if reward.fn else None

  def measure(params, num_examples: int = 0) -> dict[str, float]:
    with this.clock("eval"):
      values = evaluate(
        params,
        predict,
        setup.task,
        setup.val,
        setup.config.data,
        setup.mesh,
        with_frozen(scoring, params) if scoring and name == "codes" else scoring,
        num_examples,
      )
    return {f"val/{key}{suffix}": value for key, value in values.items()}

  return measure


def _resume(this: Run, name: str, state: update.State) -> tuple[update.State, float]:
  """The state of the last checkpoint and its seconds, where it is one of this phase."""
  meta = this.saves.latest_meta()
  if meta is None or meta["phase"] != name:
    return state, 0.0
  step, state, meta = this.saves.restore_latest(state)
  console.stage(f"{name}: goes on from the checkpoint of step {step}")
  return state, meta["seconds"]


def _fetch(this: Run, metrics: update.Metrics) -> dict[str, float]:
  """A step's metrics on the host, and where the time since the last ones went."""
  with this.clock("update"):
    values = {key: float(np.asarray(value)) for key, value in metrics.items()}
  return values | {f"{TIME}{part}": seconds for part, seconds in this.clock.take().items()}


def _check_finite(values: dict[str, float], config: configs.Config, step: int) -> None:
  bad = int(values["skipped_in_a_row"])
  if bad >= config.max_bad_steps:
    raise NumericError(
      f"step {step}: the last {bad} updates were not finite and were left out. The last good "
      "checkpoint is kept; lower the learning rate or the clip_norm, or look at the reward."
    )


def _stop_agreed(this: Run, done: int) -> bool:
  """Whether to stop now. Several processes decide together, now and then: it costs a message."""
  asked = this.stop.signal is not None
  if jax.process_count() == 1:
    return asked
  return done % this.setup.config.log_every == 0 and any(processes.gather_objects([asked]))


def _finish_phase(this: Run, name: str, step: int, params, measure, begun: float) -> None:
  host_params = sharding.on_host(params)
  if jax.process_index() == 0:
    path = run_files.weights_path(this.folder, name)
    # One entry: safetensors writes several in any order, and equal runs shall leave equal files.
    weights.save_weights(path, host_params, {"phase": name})
  processes.barrier(f"weights of {name}")
  console.stage(f"{name}: evaluating on {len(this.setup.val)} images")
  values = measure(params)
  if this.setup.config.eval_beam > 1 and name != "codes":
    values |= _make_evaluation(this, name, this.setup.config.eval_beam)(params)
  this.log.write(step, values)
  this.saves.wait()
  if this.stop.signal is not None:
    raise this.stop.preempted(f"{name} is trained and saved")
  if jax.process_index() == 0:
    run_files.add_results(this.folder, name, values, time.monotonic() - begun)
  processes.barrier(f"results of {name}")
