"""From rewards of one prediction to the rewards of a batch of sampled answers.

Dimension key:
  B: batch of images
  S: samples for each image
  T: decisions of an answer
"""

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from rtune import config as configs
from rtune.config.names import one_line, parameters_of, resolve
from rtune.devices import processes, sharding
from rtune.errors import RewardError, RtuneError, UsageError
from rtune.rewards.mark import host_options
from rtune.tasks.task import Task, knowledge
from rtune.training import workers
from rtune.training.host import Helpers, HostReward
from rtune.training.returned import CREDIT, check_keys
from rtune.training.worker import Reward

RUNNING = "running"  # the parameter of rewards that read a running statistic
_LONGEST = 300  # characters of somebody's error
_NEEDS_VALUES = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)


class Scores(NamedTuple):
  """Rewards of sampled answers; where `valid` is false the reward could not be computed.

  `credit` is what each decision earned, where a reward says so.
  """

  reward: Float[Array, "b s"]
  valid: Bool[Array, "b s"]
  parts: Mapping[str, Float[Array, "b s"]]
  credit: Float[Array, "b s t"] | None = None


class Scoring(NamedTuple):
  """How answers are judged.

  Attributes:
    score: (frozen, actions [B, S, ...], batch, running=None) -> Scores.
    on_device: whether `score` is one jitted program.
    running: whether a reward reads a running statistic, so that none but training can score.
  """

  score: Callable[..., Scores]
  on_device: bool
  running: bool = False


class Named(NamedTuple):
  """One of the rewards of a config."""

  name: str
  weight: float
  call: Callable[..., Any]
  args: dict[str, Any]
  key: str  # what messages call it
  running: bool  # whether it reads a running statistic


def make_scoring(reward: configs.Reward, task: Task, mesh: Mesh) -> Scoring:
  """The scoring that a config names: on the device, or on the host where a reward is marked so."""
  rewards = named_rewards(reward, task)
  hosted = [one for one in rewards if host_options(one.call) is not None]
  inside = [one for one in rewards if host_options(one.call) is None]
  device = rewards_on_device(inside, task) if inside else None
  reads = any(one.running for one in rewards)
  if not hosted:
    return Scoring(jax.jit(lambda *given: _scores(rewards, device(*given))), True, reads)
  # A mesh of one process is that of a command, or of a report that one process writes alone.
  shared = len({device.process_index for device in mesh.devices.flat}) > 1
  gather = processes.gather_objects if shared else list
  host = _on_host(host_rewards(hosted, reward, gather), task, mesh)
  device = jax.jit(device) if device else lambda *given: {}
  return Scoring(lambda *given: _scores(rewards, device(*given) | host(*given)), False, reads)


def host_rewards(
  hosted: Sequence[Named], reward: configs.Reward, gather: Callable[[list], list] = list
) -> dict[str, HostReward]:
  """The calls of rewards that are marked `@on_host`, by name; see `HostReward` for `gather`."""
  helpers = dict.fromkeys((one.name for one in hosted), None)
  singly = [one for one in hosted if not host_options(one.call).batched]
  if reward.workers and singly:
    started = workers.shared(reward.workers, [Reward(one.key, one.args) for one in singly])
    helpers |= {one.name: Helpers(started, place) for place, one in enumerate(singly)}
  skip, limit = reward.on_error == "skip", reward.timeout_s
  return {
    one.name: HostReward(one.call, one.key, one.args, skip, limit, gather, helpers[one.name])
    for one in hosted
  }


def named_rewards(reward: configs.Reward, task: Task) -> list[Named]:
  """The rewards of a config with their arguments, those that the task knows among them."""
  parts = reward.fns or (configs.Weighted(reward.fn, reward.args),)
  found: list[Named] = []
  for part in parts:
    call = resolve(part.fn)
    stem = name = part.fn.rpartition(":")[2]
    count = 1
    while name in {one.name for one in found}:
      count += 1
      name = f"{stem}_{count}"
    args = with_known(call, part.args, task)
    reads = RUNNING in parameters_of(call)
    found.append(Named(name, part.weight, call, args, part.fn, reads))
  return found


def with_known(fn: Any, args: Mapping[str, Any], task: Task) -> dict[str, Any]:
  """Arguments for a function, and with them what the task knows and the function has a name for."""
  known = knowledge(task).knows(parameters_of(fn))
  return {**known, **args}


def rewards_on_device(rewards: Sequence[Named], task: Task):
  """Decode, then all rewards mapped over B and S: {name: {part: [B, S]}}; to be traced."""

  def score(frozen, actions, batch, running=None):
    def one(prediction, truth):
      return {reward.name: _call(reward, prediction, truth, running) for reward in rewards}

    predictions = task.decode(frozen, actions, batch, None)
    over_samples = jax.vmap(one, in_axes=(0, None))
    return jax.vmap(over_samples)(predictions, task.truth(batch))

  return score


def _call(reward: Named, prediction, truth, running) -> dict[str, Array]:
  args = {**reward.args, RUNNING: running} if reward.running else reward.args
  try:
    return _as_parts(reward.call(prediction, truth, **args), reward.key)
  except _NEEDS_VALUES as error:
    raise UsageError(
      f"{reward.key} needs concrete numbers (numpy, if, float()). Mark it with @on_host from "
      "rtune.rewards.mark, or write it in jax.numpy."
    ) from error
  except RtuneError:
    raise
  except (Exception, SystemExit) as error:
    if isinstance(error, TypeError) and error.__traceback__.tb_next is None:
      raise UsageError(
        f"{reward.key} cannot be called so: {error}. See config.reward.args."
      ) from error
    raise RewardError(_in_users_file(reward, error)) from error


def _in_users_file(reward: Named, error: BaseException) -> str:
  """One line for an error of a reward: the last line of its own file, and what was wrong."""
  file = getattr(getattr(inspect.unwrap(reward.call), "__code__", None), "co_filename", "")
  lines = [line for frame, line in traceback.walk_tb(error.__traceback__)
           if frame.f_code.co_filename == file]  # fmt: skip
  where = f"{file}, line {lines[-1]}: " if lines else ""
  return f"the reward {reward.key} raised: {where}{one_line(error)[:_LONGEST]}"


def _on_host(calls: Mapping[str, HostReward], task: Task, mesh: Mesh):
  """Decode on the device, judge on the host, every process its own images."""

  @jax.jit
  def decode(frozen, actions, batch):
    return task.decode(frozen, actions, batch, None), task.truth(batch)

  def score(frozen, actions, batch, running=None):
    predictions, truths = jax.tree.map(sharding.local_rows, decode(frozen, actions, batch))
    return {
      name: sharding.put_batch(mesh, call(predictions, truths)) for name, call in calls.items()
    }

  return score


def _scores(rewards: Sequence[Named], found: Mapping[str, Mapping[str, Array]]) -> Scores:
  """Weighted sums over the rewards; of several each is a part, with its own parts below it."""
  single = len(rewards) == 1 and rewards[0].weight == 1
  total, credit, parts = 0.0, 0.0, {}
  has_credit = any(CREDIT in values for values in found.values())
  for reward in rewards:
    values = dict(found[reward.name])
    own = values.pop("reward")
    earned = values.pop(CREDIT, own[..., None])
    total = own if single else total + reward.weight * own
    credit = earned if single else credit + reward.weight * earned
    prefix = "" if len(rewards) == 1 else f"{reward.name}/"
    parts |= {f"{prefix}{name}": value for name, value in values.items()}
    if len(rewards) > 1:
      parts[reward.name] = own
  valid = jnp.isfinite(total)
  if not has_credit:
    return Scores(total, valid, parts)
  return Scores(total, valid & jnp.all(jnp.isfinite(credit), axis=-1), parts, credit)


def _as_parts(result: Any, name: str) -> dict[str, Array]:
  """A reward's scalar or dict as a dict of float32 scalars, and of credit [T] where it is given."""
  parts = dict(result) if isinstance(result, Mapping) else {"reward": result}
  if "reward" not in parts:
    raise UsageError(f"{name} returned a dict without 'reward'; its keys are {list(parts)}.")
  check_keys(parts, name)
  parts = {key: jnp.asarray(value, jnp.float32) for key, value in parts.items()}
  for key, value in parts.items():
    if value.ndim != (1 if key == CREDIT else 0):
      what = "one number for each decision" if key == CREDIT else "one number for one prediction"
      raise UsageError(
        f"{name} must return {what}; {key!r} has shape {value.shape}. "
        "rtune maps it over images and samples itself."
      )
  return parts
