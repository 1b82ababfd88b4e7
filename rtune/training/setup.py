"""From a config to the things it names: sources, task, policy, mesh and first parameters."""

import dataclasses
import inspect
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rtune import config as configs
from rtune.config.names import build_part, check_args, resolve
from rtune.data.cached import Cached
from rtune.data.source import Source
from rtune.devices import processes, sharding
from rtune.devices.compiling import jit_once
from rtune.display import console
from rtune.errors import DataError, UsageError
from rtune.policies.policy import Policy
from rtune.rewards.boxes import count_classes
from rtune.store import run_files, uvim_weights, vit_weights, warm_start, weights
from rtune.tasks.task import Task, settings
from rtune.training import code_weights
from rtune.training.scoring import with_known


class Setup(NamedTuple):
  """A config made real. `config.task` says all that the task has learned from the data.

  `frozen` is what the task's functions take under this name; {} until there is one.
  """

  config: configs.Config
  task: Task
  policy: Policy
  train: Source
  val: Source
  mesh: Mesh
  frozen: Any


def prepare(config: configs.Config) -> Setup:
  """Opens the data, which checks them, and builds what the config names; nothing is written.

  Raises:
    UsageError: names or sizes that do not fit each other or this machine.
    DataError: what is wrong with the data, as one report.
  """
  mesh = sharding.make_mesh()
  sizes = {f"{name}.batch_size": getattr(config, name) for name in config.phases}
  for key, phase in sizes.items():
    sharding.check_divisible(phase.batch_size, mesh, phase.accumulate, f"config.{key}")
  sharding.check_divisible(config.data.eval_batch_size, mesh, 1, "config.data.eval_batch_size")
  train = build_part(config.data.train, "data.train")
  val = build_part(config.data.val, "data.val")
  for source in (train, val):
    for text in getattr(source, "warnings", ()):
      console.warn(text)
  task = build_part(config.task, "task").bind(train)
  _check_same_classes(train, val)
  config = dataclasses.replace(
    config,
    task=configs.Part(config.task.fn, settings(task)),
    reward=_with_counts(config.reward, train),
  )
  _check_names(config, task)
  processes.same_everywhere(configs.to_json(config), "the config")
  if config.data.cache_mb:
    train, val = (Cached(source, config.data.cache_mb) for source in (train, val))
  return Setup(config, task, task.policy(config.model), train, val, mesh, {})


def _with_counts(reward: configs.Reward, train: Source) -> configs.Reward:
  """A reward with a parameter `class_counts` that nobody gave gets those of the training data."""
  if not reward.fn or "class_counts" in reward.args:
    return reward
  if "class_counts" not in inspect.signature(resolve(reward.fn)).parameters:
    return reward
  counts = tuple(int(count) for count in count_classes(train))
  return dataclasses.replace(reward, args={**reward.args, "class_counts": counts})


def _check_names(config: configs.Config, task: Task) -> None:
  """Rewards and extra losses: a typo must not come to light after hours of imitation."""
  if config.reward.fn:
    fn = resolve(config.reward.fn)
    check_args(fn, with_known(fn, config.reward.args, task), "reward", given=2)
  for name in config.phases:
    phase = getattr(config, name)
    if name == "codes":
      continue
    _check_part(phase.supervised, f"{name}.supervised", given=4)
    if name != "reward":
      _check_part(phase.mistakes, f"{name}.mistakes", given=3)
      if bool(phase.mistakes.fn) != bool(phase.supervised.fn):
        raise UsageError(f"config.{name}.mistakes and config.{name}.supervised need each other.")


def _check_part(part: configs.Part, key: str, given: int) -> None:
  if part.fn:
    check_args(resolve(part.fn), part.args, key, given=given)


def _check_same_classes(train: Source, val: Source) -> None:
  ours, theirs = (getattr(source, "category_ids", None) for source in (train, val))
  if ours != theirs:
    raise DataError(
      f"Training and validation data have different categories: {ours} and {theirs}. Give both "
      "files the same 'categories' section."
    )


def check_start(setup: Setup, folder: pathlib.Path) -> None:
  """UsageError where weights that a new run in `folder` starts from are missing or not ours."""
  config = setup.config
  if (folder / run_files.CONFIG).is_file():
    return
  code_weights.check(config, setup.task, folder)
  policies = [name for name in config.phases if name != "codes"]
  if policies and (config.init_from or policies[0] != "mle"):
    _check_learned(setup.task, _stand_in(config, folder))
  if config.encoder_init and not pathlib.Path(config.encoder_init).expanduser().is_file():
    raise UsageError(f"config.encoder_init: {config.encoder_init} does not exist.")
  if config.warm_start:
    if config.encoder_init:
      raise UsageError("config.warm_start and config.encoder_init are both set; choose one.")
    _check_learned(setup.task, run_files.find_weights(config.warm_start, "config.warm_start"))


def _check_learned(task: Task, path: pathlib.Path) -> None:
  """Weights that know other words than we would load, and mean nothing; their workdir tells."""
  folder = path.parent.parent
  if (folder / run_files.CONFIG).is_file():
    task.load(folder)


def initial_params(setup: Setup, phase: str, folder: pathlib.Path) -> Any:
  """Parameters a phase starts from: random, an encoder's, someone's, or those of our mle phase.

  Of the phase codes they are the variables of the code model.
  """
  config = setup.config
  if phase == "codes":
    return _initial_codes(setup)
  example = setup.task.example(setup.val[0], None)["image"]
  images = np.stack([example] * setup.mesh.size)
  shapes = jax.eval_shape(setup.policy.init, jax.random.key(0), images)
  strategy = "fsdp" if config.shard_parameters else "replicate"
  shardings = sharding.param_shardings(setup.mesh, shapes, strategy)
  if phase != "mle":
    path = _stand_in(config, folder)
    console.stage(f"{phase} starts from {path}")
    loaded = weights.merge(shapes, uvim_weights.load_policy(path, console.say), log=console.say)
    return sharding.place(loaded, shardings)
  init = jit_once(setup.policy.init, shardings)
  params = init(jax.random.key(config.seed), images)
  if config.encoder_init:
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


def _initial_codes(setup: Setup) -> Any:
  init, shapes = setup.task.codes_of().init, code_weights.shapes(setup.task)
  strategy = "fsdp" if setup.config.shard_parameters else "replicate"
  shardings = sharding.param_shardings(setup.mesh, shapes, strategy)
  return jit_once(init, shardings)(jax.random.key(setup.config.seed))


def _stand_in(config: configs.Config, folder: pathlib.Path) -> pathlib.Path:
  """The weights file that later phases start from."""
  if not config.init_from:
    path = run_files.weights_path(folder, "mle")
    if not path.is_file():
      raise UsageError(
        f"There is no {path} to start from: add 'mle' to config.phases, or set config.init_from."
      )
    return path
  return run_files.find_weights(config.init_from, "config.init_from")
