"""First parameters of each phase: random, somebody's, or what imitation has learned."""

import pathlib
from typing import Any

import jax
import numpy as np

from rtune import config as configs
from rtune.devices import sharding
from rtune.devices.compiling import jit_once
from rtune.display import console
from rtune.errors import UsageError
from rtune.store import run_files, uvim_weights, vit_weights, warm_start, weights
from rtune.tasks.task import load
from rtune.training import code_weights
from rtune.training.setup import Setup, first_inputs


def policy(setup: Setup, folder: pathlib.Path) -> Any:
  """Parameters of imitation: random, an encoder's, or those of a similar model."""
  del folder
  config = setup.config
  inputs, _, shardings = _shapes(setup)
  params = jit_once(setup.policy.init, shardings)(jax.random.key(config.seed), inputs)
  if config.encoder_init:
    if "encoder" not in params:
      raise UsageError(
        f"config.encoder_init is set, but {config.policy.fn} has no parameters called encoder; "
        "leave it out."
      )
    encoder = vit_weights.load_encoder(config.encoder_init, params["encoder"], console.say)
    params = {**params, "encoder": sharding.place(encoder, shardings["encoder"])}
  if config.warm_start:
    path = run_files.find_weights(config.warm_start, "config.warm_start")
    console.stage(f"mle starts from {path}")
    loaded = weights.load_weights(path)
    params = sharding.place(
      warm_start.adopt(sharding.on_host(params), loaded, console.say), shardings
    )
  return params


def imitated(setup: Setup, folder: pathlib.Path) -> Any:
  """What imitation has learned, in this run or in the one that the config names."""
  path = _imitated_weights(setup.config, folder)
  console.stage(f"starts from {path}")
  _, shapes, shardings = _shapes(setup)
  loaded = weights.merge(shapes, uvim_weights.load_policy(path, console.say), log=console.say)
  return sharding.place(loaded, shardings)


def code_model(setup: Setup, folder: pathlib.Path) -> Any:
  """Random variables of the task's code model."""
  del folder
  shapes = code_weights.shapes(setup.task)
  strategy = "fsdp" if setup.config.shard_parameters else "replicate"
  shardings = sharding.param_shardings(setup.mesh, shapes, strategy)
  return jit_once(setup.task.codes_of().init, shardings)(jax.random.key(setup.config.seed))


def check(setup: Setup, folder: pathlib.Path) -> None:
  """UsageError where weights that a new run in `folder` starts from are missing or not ours."""
  config = setup.config
  if (folder / run_files.CONFIG).is_file():
    return
  code_weights.check(config, setup.task, folder)
  answering = [name for name in config.phases if name != code_weights.NAME]
  if answering and (config.init_from or answering[0] != "mle"):
    _check_learned(setup, _imitated_weights(config, folder))
  if config.encoder_init and not pathlib.Path(config.encoder_init).expanduser().is_file():
    raise UsageError(f"config.encoder_init: {config.encoder_init} does not exist.")
  if config.warm_start:
    if config.encoder_init:
      raise UsageError("config.warm_start and config.encoder_init are both set; choose one.")
    _check_learned(setup, run_files.find_weights(config.warm_start, "config.warm_start"))


def _shapes(setup: Setup) -> tuple[Any, Any, Any]:
  """Inputs to make parameters with, their shapes, and where they live."""
  inputs = first_inputs(setup)
  inputs = jax.tree.map(lambda x: np.concatenate([x] * setup.mesh.size), inputs)
  shapes = jax.eval_shape(setup.policy.init, jax.random.key(0), inputs)
  strategy = "fsdp" if setup.config.shard_parameters else "replicate"
  return inputs, shapes, sharding.param_shardings(setup.mesh, shapes, strategy)


def _check_learned(setup: Setup, path: pathlib.Path) -> None:
  """Weights that know other words than we would load, and mean nothing; their workdir tells."""
  folder = path.parent.parent
  if (folder / run_files.CONFIG).is_file():
    load(setup.task, folder)


def _imitated_weights(config: configs.Config, folder: pathlib.Path) -> pathlib.Path:
  """The weights file that later phases start from."""
  if config.init_from:
    return run_files.find_weights(config.init_from, "config.init_from")
  path = run_files.weights_path(folder, "mle")
  if not path.is_file():
    raise UsageError(
      f"There is no {path} to start from: add 'mle' to config.phases, or set config.init_from."
    )
  return run_files.whole(path)
