"""First parameters of each phase: random, somebody's, or what imitation has learned."""

import itertools
import pathlib
from typing import Any

import jax
import numpy as np

from rtune import config as configs
from rtune.config.build import as_kind
from rtune.devices import sharding
from rtune.devices.compiling import jit_once
from rtune.display import console
from rtune.errors import UsageError
from rtune.policies.networks import PATH
from rtune.store import conv_weights, run_files, uvim_weights, vit_weights, warm_start, weights
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
    read = _encoder(config, params, console.say)
    params = {**params, **{name: sharding.place(read[name], shardings[name]) for name in read}}
  if config.warm_start:
    path = run_files.find_weights(config.warm_start, "config.warm_start")
    console.stage(f"mle starts from {_short(path)}")
    loaded = weights.load_weights(path)
    params = warm_start.adopt(
      sharding.on_host(params), loaded, console.say, sizes_at=_sizes_at(config)
    )
    params = sharding.place(params, shardings)
  return params


def _short(path: pathlib.Path) -> pathlib.Path:
  """As a person in this folder would write it."""
  here = pathlib.Path.cwd()
  return path.relative_to(here) if path.is_relative_to(here) else path


def imitated(setup: Setup, folder: pathlib.Path) -> Any:
  """What imitation has learned, in this run or in the one that the config names."""
  path = _imitated_weights(setup.config, folder)
  console.stage(f"starts from {_short(path)}")
  _, shapes, shardings = _shapes(setup)
  params = uvim_weights.load_params(path, shapes, console.say, _sizes_at(setup.config))
  return sharding.place(params, shardings)


def code_model(setup: Setup, folder: pathlib.Path) -> Any:
  """Random variables of the task's code model."""
  del folder
  shapes = code_weights.shapes(setup.task)
  strategy = "fsdp" if setup.config.shard_parameters else "replicate"
  shardings = sharding.param_shardings(setup.mesh, shapes, strategy)
  return jit_once(setup.task.codes_of().init, shardings)(jax.random.key(setup.config.seed))


def check(setup: Setup, folder: pathlib.Path) -> None:
  """UsageError or DataError where weights that a new run in `folder` starts from would not load.

  They are read in full, as they will be once their phase begins, which may be hours later.
  """
  config = setup.config
  if (folder / run_files.CONFIG).is_file():
    return
  code_weights.check(config, setup.task, folder)
  answering = [name for name in config.phases if name != code_weights.NAME]
  if answering and (config.init_from or answering[0] != "mle"):
    path = _imitated_weights(config, folder)
    _check_learned(setup, path, "init_from")
    uvim_weights.load_params(path, _shapes(setup)[1], _quiet, _sizes_at(config))
  if config.warm_start and config.encoder_init:
    raise UsageError(
      "config.warm_start and config.encoder_init are both set; choose one. Configs whose coco_json "
      "rests on a backbone have a variant from_scratch, without encoder_init."
    )
  if config.encoder_init:
    _encoder(config, _shapes(setup)[1], _quiet)
  if config.warm_start:
    path = run_files.find_weights(config.warm_start, "config.warm_start")
    _check_learned(setup, path, "warm_start")
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), _shapes(setup)[1])
    warm_start.adopt(blank, weights.load_weights(path), _quiet, sizes_at=_sizes_at(config))


def _quiet(line: str) -> None:
  """For checks: what there is to say is said when weights are taken."""
  del line


def _encoder(config: configs.Config, params: Any, log: weights.Log) -> dict[str, Any]:
  """What `config.encoder_init` has of the parameters; `params` may be shapes."""
  key, encoder = "config.encoder_init", params.get("encoder", {})
  if "backbone" in encoder or "backbone" in params:
    packaged = config.encoder_init in conv_weights.PACKAGED
    path = config.encoder_init if packaged else run_files.find_weights(config.encoder_init, key)
    if "backbone" in params:
      return {"backbone": conv_weights.load_backbone(path, params["backbone"], log)}
    backbone = conv_weights.load_backbone(path, encoder["backbone"], log)
    return {"encoder": {**encoder, "backbone": backbone}}
  if not encoder:
    raise UsageError(
      f"{key} is set, but {config.policy.fn} has no parameters called encoder; leave it out."
    )
  path = run_files.find_weights(config.encoder_init, key)
  at, gelu = _sizes_at(config), config.model.encoder.gelu
  if at != "config.model":
    network = as_kind(configs.Part, config.policy.args["network"], f"{PATH}.network")
    gelu = dict(network.args.get("encoder", {})).get("gelu", configs.Encoder().gelu)
  return {"encoder": vit_weights.load_encoder(path, encoder, log, gelu=gelu, sizes_at=at)}


def _sizes_at(config: configs.Config) -> str:
  """Where a config has the sizes of its policy's networks."""
  return f"{PATH}.network.args" if "network" in config.policy.args else "config.model"


def _shapes(setup: Setup) -> tuple[Any, Any, Any]:
  """Inputs to make parameters with, their shapes, and where they live."""
  inputs = first_inputs(setup)
  inputs = jax.tree.map(lambda x: np.concatenate([x] * setup.mesh.size), inputs)
  shapes = jax.eval_shape(setup.policy.init, jax.random.key(0), inputs)
  strategy = "fsdp" if setup.config.shard_parameters else "replicate"
  return inputs, shapes, sharding.param_shardings(setup.mesh, shapes, strategy)


def _check_learned(setup: Setup, path: pathlib.Path, key: str) -> None:
  """Weights that know other words or classes than ours mean nothing; their workdir tells."""
  folder = path.parent.parent
  if not (folder / run_files.CONFIG).is_file():
    return
  load(setup.task, folder)
  theirs = run_files.read_config(folder).task.args.get("classes")
  ours = getattr(setup.task, "classes", None)
  if not ours or not theirs:
    return
  # A warm start takes the classes that both have first, and may learn more.
  same = min(len(ours), len(theirs)) if key == "warm_start" else None
  if tuple(theirs)[:same] != tuple(ours)[:same]:
    pairs = itertools.zip_longest(theirs, ours, fillvalue="none")
    moved = [f"{k}: {a!r}, here {b!r}" for k, (a, b) in enumerate(pairs) if a != b]
    more = f", and {len(moved) - 10} more" if len(moved) > 10 else ""
    raise UsageError(
      f"config.{key}: {path} has learned other classes, in the order of their ids: "
      f"{', '.join(moved[:10])}{more}. Number the categories of the data alike."
    )


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
