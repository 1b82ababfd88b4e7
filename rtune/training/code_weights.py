"""Where the code model of a run comes from: what a task's functions take as `frozen`.

A run has it in weights/codes.safetensors, trained by its phase `codes` or taken from elsewhere, so
that its workdir says all about it. Tasks without a code model have {}.
"""

import pathlib
from typing import Any

import jax
from jax.sharding import Mesh

from rtune import config as configs
from rtune.devices import processes, sharding
from rtune.devices.compiling import jit_once
from rtune.display import console
from rtune.errors import UsageError
from rtune.store import manifest, run_files, uvim_weights, weights
from rtune.store.remote import copies
from rtune.tasks.coded import CodedTask
from rtune.tasks.task import Task

NAME = "codes"  # the phase that trains a code model, and its weights


def shapes(task: Task) -> Any:
  """The variables of a task's code model as shapes; {} where it has none."""
  if not isinstance(task, CodedTask):
    return {}
  return jax.eval_shape(task.codes_of().init, jax.random.key(0))


def random(task: Task, mesh: Mesh) -> Any:
  """Variables that no training has seen, for measurements."""
  if not isinstance(task, CodedTask):
    return {}
  where = sharding.replicated(mesh)
  return jit_once(task.codes_of().init, where)(jax.random.key(0))


def check(config: configs.Config, task: Task, folder: pathlib.Path) -> None:
  """UsageError where a new run in `folder` asks for a code model in vain, or for one that fails."""
  trained = NAME in config.phases and not (config.codes_init or config.init_from)
  if not isinstance(task, CodedTask):
    for key, given in {"phases": NAME in config.phases, "codes_init": config.codes_init}.items():
      if given:
        raise UsageError(
          f"config.{key} asks for a code model, but {config.task.fn} has none; leave it out."
        )
  elif NAME in config.phases[1:]:
    raise UsageError(
      f"config.phases is {config.phases}; codes comes first, the others write in it."
    )
  elif not trained:
    uvim_weights.load_codes(_find(config, folder), shapes(task))


def settle(config: configs.Config, task: Task, folder: pathlib.Path, mesh: Mesh) -> Any:
  """The code model on the devices; one that others have trained is copied into the workdir.

  All processes must call it together.
  """
  if not isinstance(task, CodedTask):
    return {}
  path, own = _find(config, folder), run_files.weights_path(folder, NAME)
  if path != own and jax.process_index() == 0:
    console.stage(f"codes: {path} stands for it")
    loaded = uvim_weights.load_codes(path, shapes(task), console.say)
    weights.save_weights(own, loaded, {"phase": NAME})
    manifest.add(own)
  processes.barrier("code model")
  return load(task, folder, mesh)


def load(task: Task, folder: pathlib.Path, mesh: Mesh) -> Any:
  """The code model of a workdir on the devices; {} where the task, or the workdir yet, has none."""
  path = run_files.weights_path(folder, NAME)
  if not isinstance(task, CodedTask) or not path.is_file():
    return {}
  variables = uvim_weights.load_codes(run_files.whole(path), shapes(task))
  return sharding.place(variables, jax.tree.map(lambda _: sharding.replicated(mesh), variables))


def _find(config: configs.Config, folder: pathlib.Path) -> pathlib.Path:
  own = run_files.weights_path(folder, NAME)
  if own.is_file():
    return own
  if config.codes_init:
    return run_files.find_weights(config.codes_init, "config.codes_init", NAME)
  if config.init_from:
    start = copies.local_copy(config.init_from, "config.init_from")
    beside = run_files.weights_path(start, NAME) if start.is_dir() else start.parent / own.name
    if beside.is_file():
      return run_files.whole(beside)
    raise UsageError(
      f"config.init_from: its answers are codes of a code model, but there is no {beside}; set "
      "config.codes_init to the one that it was trained with."
    )
  raise UsageError(
    f"There is no {own} to write answers with: add 'codes' to config.phases, or set "
    "config.codes_init."
  )
