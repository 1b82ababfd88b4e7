"""From a config to the things it names: sources, task, policy, mesh."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from rtune import config as configs
from rtune.config.names import build_part, check_args, parameters_of, resolve
from rtune.data import unreadable
from rtune.data.cached import Cached
from rtune.data.class_counts import count_classes
from rtune.data.mosaic import Mosaics
from rtune.data.source import Example, Partial, Source
from rtune.devices import sharding
from rtune.errors import UsageError
from rtune.metrics.metric import Metric
from rtune.policies.policy import Inputs, Policy
from rtune.policies.space import Labels
from rtune.tasks.task import Task, bind, settings, view
from rtune.training import choosing, follow, identity, sources
from rtune.training.advantages import named
from rtune.training.losses import OFFERED
from rtune.training.scoring import RUNNING, with_known


class Setup(NamedTuple):
  """A config made real. `config.task` says all that the task has learned from the data.

  `frozen` is what the task's functions take under this name; {} until there is one. `splits` is
  what is evaluated on beside `val`, `target` another domain to adapt to, None where there is none.
  `found` is what is odd about the data.
  """

  config: configs.Config
  task: Task
  policy: Policy
  train: Source
  val: Source
  splits: Mapping[str, Source]
  mesh: Mesh
  frozen: Any
  target: Source | None = None
  found: tuple[str, ...] = ()


def prepare(config: configs.Config) -> Setup:
  """Opens the data, which checks them, and builds what the config names; nothing is written.

  Raises:
    UsageError: names or sizes that do not fit each other or this machine.
    DataError: what is wrong with the data, as one report.
  """
  mesh = sharding.make_mesh()
  _check_batches(config, mesh)
  train, val, splits, target, found = sources.open_all(config.data)
  task = bind(build_part(config.task, "task"), train)
  config = dataclasses.replace(
    config,
    task=configs.Part(config.task.fn, settings(task)),
  )
  config = _with_counts(config, train)
  _check_names(config, task)
  metrics_of(config, task)
  policy = build_policy(config, task)
  if config.eval_beam > 1 and not policy.search:
    raise UsageError(
      f"config.eval_beam is {config.eval_beam}, but {config.policy.fn} has no other search than "
      "its best answer; set it to 1."
    )
  if "actor_critic" in config.phases and policy.control is None:
    raise UsageError(
      f"config.phases names 'actor_critic', but {config.policy.fn} has no decisions that follow "
      "each other; take out the phase, or a policy such as rtune.policies.recursive:recursive."
    )
  raw = unreadable.first(val, config.data.on_error == "skip")
  jax.eval_shape(policy.init, jax.random.key(0), example_inputs(task, raw))
  identity.check(config, {"data.train": train, "data.val": val, **splits})
  _check_imitating(config, train)
  _check_adapting(config, task, target)
  if config.data.cache_mb:
    train, val = (Cached(source, config.data.cache_mb) for source in (train, val))
    target = Cached(target, config.data.cache_mb) if target else None
  if config.data.mosaic:
    train = Mosaics(train, config.data.mosaic, config.seed)
  return Setup(config, task, policy, train, val, splits, mesh, {}, target, found)


def build_policy(config: configs.Config, task: Task) -> Policy:
  """The policy that a config names, for the answers of a task.

  It gets the task's space, the arguments of `config.policy`, and by name those fields of
  `config.model` that it has a parameter for.
  """
  build = resolve(config.policy.fn)
  parameters = parameters_of(build)
  model = {f.name: getattr(config.model, f.name) for f in dataclasses.fields(config.model)}
  args = {name: value for name, value in model.items() if name in parameters}
  args |= config.policy.args
  check_args(build, args, "policy", given=1)
  return build(task.space(), **args)


def first_inputs(setup: Setup) -> Inputs:
  """What a policy sees of the first image of the validation data."""
  raw = unreadable.first(setup.val, setup.config.data.on_error == "skip")
  return example_inputs(setup.task, raw)


def example_inputs(task: Task, raw: Example, rng: np.random.Generator | None = None) -> Inputs:
  """What a policy sees of one example: leaves [1, ...]."""
  return task.inputs({k: jnp.asarray(v)[None] for k, v in task.example(raw, rng).items()})


def metrics_of(config: configs.Config, task: Task, fast: bool = False) -> list[Metric]:
  """The metrics that a config names, or else those that its task is usually judged by.

  Each gets what the task knows and it has a parameter for; `fast` asks for a quicker scorer of
  equal digits where there is one.
  """
  parts = config.metrics or tuple(configs.Part(name) for name in view(task).metrics)
  found = []
  for place, part in enumerate(parts):
    build = resolve(part.fn)
    args = with_known(build, part.args, task)
    if fast and "fast" in parameters_of(build):
      args["fast"] = True
    check_args(build, args, f"metrics[{place}]")
    found.append(build(**args))
  return found


def check_phase(task: Task, config: configs.Config, name: str) -> None:
  """UsageError where a phase names code that is not there, or gives it wrong arguments."""
  phase = getattr(config, name)
  supervised, losses = getattr(phase, "supervised", None), getattr(phase, "losses", ())
  mistakes = getattr(phase, "mistakes", None)
  readers = {part.fn: resolve(part.fn) for part in losses}
  _check_part(supervised, f"{name}.supervised", given=4)
  for place, part in enumerate(losses):
    loss, key = readers[part.fn], f"{name}.losses[{place}]"
    parameters = parameters_of(loss)
    whole = next(iter(parameters), "") == "scored"
    check_args(loss, part.args, key, 0 if whole else 4, OFFERED if whole else ())
    if whole and "reference" in parameters and name != "reward":
      raise UsageError(
        f"config.{key}.fn: {part.fn} compares with the model before tuning, which only the phase "
        "reward has. Name it in config.reward.losses."
      )
  _check_part(mistakes, f"{name}.mistakes", given=3)
  alone = mistakes is not None and (
    (mistakes.fn and not (supervised.fn or losses)) or (supervised.fn and not mistakes.fn)
  )
  if alone:
    raise UsageError(f"config.{name}.mistakes and config.{name}.supervised need each other.")
  if getattr(phase, "nll_weight", 1) == 0 and not losses:
    raise UsageError(f"config.{name}.nll_weight is 0 and there are no losses: nothing is learned.")
  follow.check(phase, task, name, readers)


def _check_batches(config: configs.Config, mesh: Mesh | AbstractMesh) -> None:
  for name in config.phases:
    phase = getattr(config, name)
    sharding.check_divisible(phase.batch_size, mesh, phase.accumulate, f"config.{name}.batch_size")
    parts = getattr(phase, "overlap", 1)
    if parts > 1:
      sharding.check_divisible(
        phase.batch_size // parts,
        mesh,
        1,
        f"config.{name}.batch_size / config.{name}.overlap ({phase.batch_size} / {parts})",
      )
  sharding.eval_batch(config.data.eval_batch_size, mesh)


def _with_counts(config: configs.Config, train: Source) -> configs.Config:
  """Rewards and losses with a parameter `class_counts` that nobody gave get the training data's."""
  counts: tuple[int, ...] = ()
  left = unreadable.left_out(config.data, "the training data", train)

  def given(part):
    nonlocal counts
    if not _wants_counts(part.fn, part.args):
      return part
    counts = counts or tuple(int(count) for count in count_classes(train, left))
    return dataclasses.replace(part, args={**part.args, "class_counts": counts})

  def losses(settings):
    return dataclasses.replace(settings, losses=tuple(given(part) for part in settings.losses))

  imitating = {n: losses(getattr(config, n)) for n in ("mle", "control", "pseudo", "active")}
  reward = losses(given(config.reward))
  reward = dataclasses.replace(reward, fns=tuple(given(part) for part in reward.fns))
  return dataclasses.replace(config, reward=reward, **imitating)


def _wants_counts(fn: str, args: Collection[str]) -> bool:
  name = "class_counts"
  return bool(fn) and name not in args and name in parameters_of(resolve(fn))


def _check_names(config: configs.Config, task: Task) -> None:
  """Rewards and extra losses: a typo must not come to light after hours of imitation."""
  reward = config.reward
  readers: dict[str, Callable] = {}
  several = {f"reward.fns[{place}]": part for place, part in enumerate(reward.fns)}
  for key, part in {"reward": reward, **several}.items():
    if part.fn:
      fn = resolve(part.fn)
      check_args(fn, with_known(fn, part.args, task), key, given=2, offered=(RUNNING,))
      readers[part.fn] = fn
  if "reward" in config.phases and not callable(named(reward.baseline)):
    raise UsageError(f"config.reward.baseline: {reward.baseline} is no function.")
  if "reward" in config.phases:
    follow.check(reward, task, "reward", readers)
  followed = [name for name, reader in readers.items() if follow.reads(reader)]
  if "actor_critic" in config.phases and followed:
    raise UsageError(
      f"{followed[0]} reads a running statistic, which the phase actor_critic does not follow; "
      "tune for another reward, or in the phase reward."
    )
  for name in config.phases:
    check_phase(task, config, name)


def _check_imitating(config: configs.Config, train: Source) -> None:
  """What knows a part of each answer is nothing to imitate."""
  given = ("mle",) if config.init_from else ()
  imitating = [name for name in ("mle", "control") if name in config.phases and name not in given]
  if imitating and isinstance(train, Partial):
    raise UsageError(
      f"config.data.train does not know {train.unknown}, which the phase {imitating[0]} would "
      'learn. Tune a model that knows: config.phases=("reward",) and config.init_from=its workdir.'
    )


def _check_adapting(config: configs.Config, task: Task, target: Source | None) -> None:
  """A phase that adapts needs images to adapt to, and labels that are maps."""
  for name in config.phases:
    adapt = getattr(getattr(config, name), "adapt", configs.Adapt())
    if not adapt.by:
      continue
    key = f"config.{name}.adapt"
    if target is None:
      raise UsageError(f"{key}.by is {adapt.by!r}, but config.data.target names no images.")
    if not isinstance(task.space(), Labels):
      raise UsageError(f"{key}.by is {adapt.by!r}, but answers are no label maps; leave it empty.")
    if adapt.by == "person":
      if adapt.budget > len(target):
        raise UsageError(f"{key}.budget is {adapt.budget}; data.target has {len(target)} images.")
      if not callable(choosing.named(adapt.choose)):
        raise UsageError(f"{key}.choose: {adapt.choose} is no function.")
      if adapt.labels.fn:
        labels = build_part(adapt.labels, f"{name}.adapt.labels")
        if sources.same_classes(target, labels, f"{key}.labels") is not labels:
          raise UsageError(f"{key}.labels numbers the classes of data.target otherwise.")


def _check_part(part: configs.Part | None, key: str, given: int) -> None:
  if part is not None and part.fn:
    check_args(resolve(part.fn), part.args, key, given=given)
