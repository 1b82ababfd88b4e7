"""The phases of a run as records, and how one is put together: for training, benchmark and plan.

A new phase is a record here, a step function of its own, and settings in the config under its name.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rtune import config as configs
from rtune.devices import sharding
from rtune.policies.policy import Policy
from rtune.tasks.task import Task
from rtune.training import actor_critic, codes, imitate, losses, reinforce, start
from rtune.training.follow import running_of, teacher_decay
from rtune.training.optim import Schedule, make_optimizer
from rtune.training.predicting import Predict, best_answers
from rtune.training.update import POLICY, Learned, Making, Programs, State, init_norms


class Phase(NamedTuple):
  """A part of a run.

  Attributes:
    name: in the config, in results and of its weights.
    learns: what it trains.
    start_from: (setup, workdir) -> first parameters.
    step: what a step does, made of a `Making`.
    predict: (task, policy, effort) -> how its weights predict.
    label: what reports call its result.
    seed: every phase draws its own data and randomness.
    given_by: settings of the config that stand for it, the first that is set; it is not run then.
    branches: whether its curve begins where imitation has ended, not where the phase before has.
    keeps: (policy, settings, key) -> what the state has beside parameters; None: nothing.
  """

  name: str
  learns: Learned
  start_from: Callable[..., Any]
  step: Callable[[Making], Programs]
  predict: Callable[..., Predict]
  label: str
  seed: int
  given_by: tuple[str, ...] = ()
  branches: bool = False
  keeps: Callable[..., Any] | None = None


_CONTROL = Phase(
  name="control",
  learns=POLICY,
  start_from=start.imitated,
  step=imitate.imitation,
  predict=best_answers,
  label="control",
  seed=1,
  branches=True,
)
PHASES = (
  Phase(
    name="codes",
    learns=codes.CODE_MODEL,
    start_from=start.code_model,
    step=codes.coding,
    predict=codes.reconstruction,
    label="reconstruction",
    seed=2**20,
    given_by=("codes_init", "init_from"),
  ),
  Phase(
    name="mle",
    learns=POLICY,
    start_from=start.policy,
    step=imitate.imitation,
    predict=best_answers,
    label="MLE",
    seed=0,
    given_by=("init_from",),
  ),
  _CONTROL,
  _CONTROL._replace(name="pseudo", label="pseudo-labels", seed=2**21),
  _CONTROL._replace(name="active", label="labeled images", seed=2**22),
  Phase(
    name="reward",
    learns=POLICY,
    start_from=start.imitated,
    step=reinforce.reinforce,
    predict=best_answers,
    label="tuned",
    seed=2,
    branches=True,
  ),
  Phase(
    name="actor_critic",
    learns=POLICY,
    start_from=start.imitated,
    step=actor_critic.actor_critic,
    predict=best_answers,
    label="actor-critic",
    seed=2**23,
    branches=True,
    keeps=actor_critic.first,
  ),
)
_BY_NAME = {phase.name: phase for phase in PHASES}


def phase_of(name: str) -> Phase:
  """The phase of this name."""
  return _BY_NAME[name]


def stand_in(config: configs.Config, name: str) -> str:
  """What a config gives in place of a phase, which then is not run; "" for nothing."""
  given = (getattr(config, key) for key in phase_of(name).given_by)
  return next((where for where in given if where), "")


def planned(config: configs.Config) -> Iterator[tuple[str, int, int]]:
  """(name, first, last step) of each phase that a config runs; the log counts on through all."""
  offset = 0
  for name in config.phases:
    if stand_in(config, name):
      continue
    yield name, offset, offset + getattr(config, name).steps
    offset += getattr(config, name).steps


class Assembled(NamedTuple):
  """A phase made real.

  Attributes:
    init: parameters -> the first state, where it shall live. jit.
    shapes: of the state.
    shardings: where the state lives.
    programs: what a step does.
    learning_rate: by number of updates that have been applied.
  """

  init: Callable[[Any], State]
  shapes: State
  shardings: Any
  programs: Programs
  learning_rate: Schedule


def assemble(
  phase: Phase,
  config: configs.Config,
  task: Task,
  policy: Policy,
  frozen: Any,
  mesh: Mesh,
  params: Any,
  clock: Callable[[str], Any] = lambda part: contextlib.nullcontext(),
) -> Assembled:
  """Puts a phase together.

  Args:
    frozen: what the task's functions take under this name; arrays, or shapes.
    params: that it starts from; arrays, or shapes where nothing shall be computed.
    clock: context manager that adds up seconds under a name.
  """
  settings, learns = getattr(config, phase.name), phase.learns
  optimizer, learning_rate = make_optimizer(
    settings.optim, settings.steps, learns.trained(params), f"{phase.name}.optim"
  )

  running = running_of(settings, task)
  key = jax.random.fold_in(jax.random.key(config.seed), phase.seed)

  def init(params):
    state = learns.init(params, optimizer)
    if running:
      state = state._replace(running=running.init())
    if teacher_decay(settings):
      state = state._replace(teacher=jax.tree.map(jnp.copy, params))
    if settings.optim.skip_above:
      state = state._replace(norms=init_norms())
    if phase.keeps:
      state = state._replace(kept=phase.keeps(policy, settings, key))
    return state

  shapes = jax.eval_shape(init, params)
  strategy = "fsdp" if config.shard_parameters else "replicate"
  stacks = sharding.param_shardings(mesh, shapes.opt_state, strategy, stacked=True)
  shardings = sharding.param_shardings(mesh, shapes, strategy)._replace(opt_state=stacks)
  # Kept alive for as long as the phase, so only where it is read.
  needs = losses.needed(losses.extra_losses(settings)) if learns.answers else ()
  reference = params if "reference" in needs else None
  parts = task, policy, settings, frozen, optimizer, key, shardings, mesh, reference
  making = Making(*parts, clock, running, config.reward)
  return Assembled(
    jax.jit(init, out_shardings=shardings), shapes, shardings, phase.step(making), learning_rate
  )
