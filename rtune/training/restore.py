"""A model from its workdir alone: no data, no annotation files."""

import dataclasses
import inspect
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rtune import commands
from rtune import config as configs
from rtune.config.names import build_part, resolve
from rtune.devices import sharding
from rtune.display import console
from rtune.errors import UsageError
from rtune.policies.policy import Policy
from rtune.store import best_weights, run_files, uvim_weights
from rtune.tasks.task import Task, load, view
from rtune.training import code_weights
from rtune.training.phases import PHASES, phase_of
from rtune.training.setup import build_policy, example_inputs


class Restored(NamedTuple):
  """What a workdir says of its run.

  Attributes:
    frozen: its code model, {} where it has none.
    weights: which of a phase's are taken: "last", or "best" by a number of its evaluations.
  """

  folder: pathlib.Path
  config: configs.Config
  task: Task
  policy: Policy
  frozen: Any
  mesh: Mesh
  weights: str = "last"


def restore(workdir: str | pathlib.Path, weights: str = "last") -> Restored:
  """Rebuilds task and policy on the devices of this process.

  Args:
    weights: "last" or "best"; see `Restored`.

  Raises:
    UsageError: the folder is not a workdir, or its config names code that is not there.
  """
  folder = commands.local(workdir, "workdir")
  config = run_files.read_config(folder)
  task = load(build_part(config.task, "task"), folder)
  mesh = sharding.make_mesh(devices=jax.local_devices())
  frozen = code_weights.load(task, folder, mesh)
  policy = build_policy(config, task)
  return Restored(folder, config, task, policy, frozen, mesh, weights)


def with_batch_size(run: Restored, batch_size: int | None) -> Restored:
  """The run with another number of images in a step of evaluation; UsageError if it cannot be."""
  data = run.config.data
  if batch_size is not None:
    data = dataclasses.replace(data, eval_batch_size=batch_size)
  sharding.eval_batch(data.eval_batch_size, run.mesh, "batch_size")
  return run._replace(config=dataclasses.replace(run.config, data=data))


def with_policy(run: Restored, **args: Any) -> Restored:
  """The run with other arguments of its policy; UsageError for one that it does not have."""
  known = inspect.signature(resolve(run.config.policy.fn)).parameters
  for name in args:
    if name not in known:
      raise UsageError(f"{run.config.policy.fn} has no {name}, so it cannot be set.")
  policy = dataclasses.replace(run.config.policy, args={**run.config.policy.args, **args})
  config = dataclasses.replace(run.config, policy=policy)
  return run._replace(config=config, policy=build_policy(config, run.task))


def finished(run: Restored) -> tuple[str, ...]:
  """The phases whose weights are there, in the order in which the run has them.

  First come those that others stand for, or that the config no longer names.
  """
  before = [phase.name for phase in PHASES if phase.name not in run.config.phases]
  order = (*before, *run.config.phases)
  return tuple(name for name in order if _weights_path(run, name).is_file())


def load_params(run: Restored, phase: str = "") -> tuple[str, Any]:
  """The name and the parameters of a phase, by default the last one that is finished.

  Those of a phase that trains a code model are its variables.

  Raises:
    UsageError: the phase is not there, it has no best weights where these are asked for, or its
      weights are of another model.
  """
  there = finished(run)
  if not there or phase not in ("", *there):
    found = f"there is {', '.join(there)}" if there else "no phase is finished"
    raise UsageError(f"{run.folder} has no weights of {phase or 'any phase'}; {found}.")
  phase = phase or there[-1]
  if not phase_of(phase).learns.answers:
    return phase, run.frozen
  blank = view(run.task).unlabeled(np.zeros((16, 16, 3), np.uint8), 0)
  try:
    inputs = example_inputs(run.task, blank)
  except KeyError as error:
    raise UsageError(
      f"{run.config.task.fn} makes no example of an image that nobody has annotated: it asks for "
      f"{error}. Give its view an `unlabeled` that has it."
    ) from error
  shapes = jax.eval_shape(run.policy.init, jax.random.key(0), inputs)
  params = uvim_weights.load_params(run_files.whole(_chosen_path(run, phase)), shapes)
  return phase, jax.device_put(params, sharding.replicated(run.mesh))


def _chosen_path(run: Restored, phase: str) -> pathlib.Path:
  last = _weights_path(run, phase)
  if run.weights == "last" or last != run_files.weights_path(run.folder, phase):
    return last  # what stands for a phase is the only one there is
  found = best_weights.find(run.folder, phase)
  if found is None:
    raise UsageError(
      f"{run.folder} has no best weights of {phase}, only its last. A run keeps them where it "
      "evaluates as it trains (--config.eval_every=N) and checkpoints.best is not 'none'."
    )
  console.say(f"{phase}: best weights, of step {found.step} ({found.number} {found.value:.4g})")
  return found.path


def _weights_path(run: Restored, phase: str) -> pathlib.Path:
  path, origin = run_files.weights_path(run.folder, phase), run.config.init_from
  # To look at a run fetches nothing.
  if phase != "mle" or path.is_file() or not origin or "://" in origin:
    return path
  start = pathlib.Path(origin).expanduser()
  return run_files.weights_path(start, "mle") if start.is_dir() else start
