"""The programs of a config's phases, compiled for devices that need not be there.

Nothing is read and nothing is computed: shapes go in, compiled programs come out. The steps are
those that training runs.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rtune import config as configs
from rtune.config.names import build_part
from rtune.devices import sharding
from rtune.display import console
from rtune.errors import DataError, UsageError
from rtune.models.encoder_decoder import EncoderDecoder, build
from rtune.plan import counts, memory
from rtune.plan.collectives import collectives
from rtune.plan.counts import Sizes
from rtune.plan.stand_in import StandIn
from rtune.policies.policy import Policy
from rtune.policies.space import Tokens
from rtune.tasks.coded import CodedTask
from rtune.tasks.task import Task, bind, view
from rtune.training import code_weights
from rtune.training.phases import assemble, phase_of
from rtune.training.setup import build_policy, example_inputs


class Blueprint(NamedTuple):
  """A config for a mesh, as shapes.

  Attributes:
    config: with the type of compute settled.
    params: shapes, without devices.
    example: shapes of one example's features.
    model: for its sizes.
  """

  config: configs.Config
  task: Task
  policy: Policy
  params: Any
  example: dict[str, jax.ShapeDtypeStruct]
  model: EncoderDecoder
  image_size: int
  length: int


class Program(NamedTuple):
  """A compiled program, on one device.

  Attributes:
    memory: bytes of arguments, results and temporaries at once.
    collectives: number of operations between devices in one run.
    collective_bytes: what they give.
  """

  name: str
  memory: float
  collectives: int
  collective_bytes: float


def make_blueprint(config: configs.Config, num_classes: int, num_words: int = 10_000) -> Blueprint:
  """What a config builds. Where its data cannot be opened here it has so many classes and words.

  Raises:
    UsageError: the policy is not one of tokens, or the task cannot do without its data.
  """
  dtype = "bfloat16" if config.model.dtype == "auto" else config.model.dtype
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype))
  task = _task(config, num_classes, num_words)
  if isinstance(task, CodedTask) and task.codes.dtype == "auto":
    task = dataclasses.replace(task, codes=dataclasses.replace(task.codes, dtype=dtype))
  space = task.space()
  counted = configs.Config().policy.fn
  if not isinstance(space, Tokens) or config.policy.fn != counted:
    raise UsageError(f"the plan counts the policy {counted} only; choose a config that has it.")
  policy = build_policy(config, task)
  blank = view(task).unlabeled(np.zeros((64, 64, 3), np.uint8), 0)
  example = {name: _shape(value) for name, value in task.example(blank, None).items()}
  images = example_inputs(task, blank)
  params = jax.eval_shape(policy.init, jax.random.key(0), images)
  model = build(config.model, space.vocab_size, space.length)
  return Blueprint(config, task, policy, params, example, model, images.shape[1], space.length)


def _task(config: configs.Config, num_classes: int, num_words: int) -> Task:
  task = build_part(config.task, "task")
  try:
    return bind(task, build_part(config.data.train, "data.train"))
  except (DataError, UsageError, ImportError) as error:
    times = getattr(task, "min_count", 1)
    try:
      bound = bind(task, StandIn(num_classes, num_words, times))
    except (DataError, UsageError):
      raise UsageError(f"the plan needs the data of this task: {error}") from error
    known = f"{num_classes} classes (--classes) and {num_words} words (--words)"
    console.warn_once("plan", f"planned as if the data had {known}, for here: {error}")
    return bound


def sizes_of(blueprint: Blueprint, phase: str, devices: int) -> Sizes:
  """What one device has to do in a step of a phase."""
  setting = getattr(blueprint.config, phase)
  share = setting.batch_size // devices
  model, size, length = blueprint.model, blueprint.image_size, blueprint.length
  return Sizes(model, size, length, share, counts.answers(setting))


def compile_phase(blueprint: Blueprint, phase: str, mesh: Mesh) -> Iterator[Program]:
  """Compiles the programs of a step, one after the other."""
  setting = getattr(blueprint.config, phase)
  sharding.check_divisible(setting.batch_size, mesh, setting.accumulate, f"{phase}.batch_size")
  frozen = _frozen(blueprint.task, mesh)
  made = assemble(
    phase_of(phase),
    blueprint.config,
    blueprint.task,
    blueprint.policy,
    frozen,
    mesh,
    _spread(blueprint, mesh),
  )
  state = jax.tree.map(_placed, made.shapes, made.shardings)
  across = sharding.batch_sharding(mesh)
  batch = {
    name: jax.ShapeDtypeStruct((setting.batch_size, *x.shape), x.dtype, sharding=across)
    for name, x in blueprint.example.items()
  }
  for name, lowered in made.programs.lower(state, batch):
    yield _program(name, lowered.compile())


def _spread(blueprint: Blueprint, mesh: Mesh) -> Any:
  """Shapes of the parameters, where training has them."""
  strategy = "fsdp" if blueprint.config.shard_parameters else "replicate"
  shardings = sharding.param_shardings(mesh, blueprint.params, strategy)
  return jax.tree.map(_placed, blueprint.params, shardings)


def _frozen(task: Task, mesh: Mesh) -> Any:
  """Shapes of the task's code model, a copy on every device."""
  where = sharding.replicated(mesh)
  return jax.tree.map(lambda shape: _placed(shape, where), code_weights.shapes(task))


def _shape(value: Any) -> jax.ShapeDtypeStruct:
  array = np.asarray(value)
  return jax.ShapeDtypeStruct(array.shape, jax.dtypes.canonicalize_dtype(array.dtype))


def _placed(shape: jax.ShapeDtypeStruct, where: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=where)


def _program(name: str, compiled: Any) -> Program:
  return Program(name, memory.of_program(compiled), *collectives(compiled.as_text()))
