"""The optimizer of a phase: one optax chain with schedule, weight decay, freezing and multipliers.

A parameter p with scaled gradient u moves, at step t of the phase, by

  p <- p - schedule(t) * (lr * multiplier(p) * u + weight_decay * p)

so weight decay follows the schedule but is not scaled by lr (big_vision's convention: its 1e-6 is
comparable with lr * weight_decay elsewhere). Parameters go by names such as 'encoder/kernel'.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from rtune.config import Optim
from rtune.config.optim_checks import check_optim
from rtune.errors import UsageError
from rtune.training import stacks

Schedule = Callable[[int | Int[Array, ""]], np.floating | Float[Array, ""]]


class Optimizer(NamedTuple):
  """The update rule of a phase.

  Attributes:
    init: parameters -> state, as optax has it.
    update: (gradients, state, parameters) -> (updates, state), as optax has it.
    norm: gradients or updates -> the norm of all that are trained together.
  """

  init: Callable[[PyTree], PyTree]
  update: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
  norm: Callable[[PyTree], Float[Array, ""]]


def make_optimizer(
  config: Optim, total_steps: int, params: PyTree, key: str = "optim"
) -> tuple[Optimizer, Schedule]:
  """Build the update rule of one phase.

  Args:
    config: the settings; `key` is what error messages call them.
    total_steps: updates in the phase; the schedule ends there.
    params: the parameters, or their shapes; only names and shapes are read.

  Returns:
    The optimizer, whose state is arrays, stacks of what belongs to parameters, and the learning
    rate by step for logging, where an int gives a numpy scalar without using a device.

  Raises:
    UsageError: a field is out of range, a pattern matches no parameter, or none is trained.
  """
  check_optim(config, total_steps, key)
  _check_patterns(config, params, trainable(config, params), key)

  def factor(step: int | Int[Array, ""]) -> np.floating | Float[Array, ""]:
    return schedule_factor(config, total_steps, step)

  groups, factors, decayed = zip(*_alike(config, params), strict=True)
  chain = optax.chain(
    optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
    of_mixed_types(_scale_gradients(config)),
    optax.stateless(lambda u, _: [x * (config.lr * f) for x, f in zip(u, factors, strict=True)]),
    optax.add_decayed_weights(config.weight_decay, list(decayed))
    if config.weight_decay
    else optax.identity(),
    optax.scale_by_schedule(factor),
    optax.scale(-1.0),
  )
  init, update = stacks.of_stacks(chain, groups)

  def norm(tree: PyTree) -> Float[Array, ""]:
    return optax.tree.norm(stacks.stack(tree, groups))

  return Optimizer(init, update, norm), lambda step: config.lr * factor(step)


def _alike(config: Optim, params: PyTree) -> Iterator[tuple[Sequence[int], float, bool]]:
  """Places of parameters that are updated together, their multiplier, and whether they decay."""
  decays = _map_names(lambda name: bool(re.fullmatch(config.weight_decay_pattern, name)), params)
  kinds = list(zip(*map(jax.tree.leaves, (_multipliers(config, params), decays)), strict=True))
  for group in stacks.groups_of(params, kinds):
    multiplier, decayed = kinds[group[0]]
    if multiplier > 0:
      yield group, multiplier, decayed


def trainable(config: Optim, params: PyTree) -> PyTree[bool]:
  """Which parameters are trained, as a tree of the structure of `params`."""
  return jax.tree.map(lambda factor: factor > 0, _multipliers(config, params))


def schedule_factor(
  config: Optim, total_steps: int, step: int | Int[Array, ""]
) -> np.floating | Float[Array, ""]:
  """The rate at `step` (0 is the first update) over the peak rate, in float32.

  Source: big_vision's create_learning_rate_schedule, to which end_factor of cosine is added.
  """
  # Logging passes an int and must not launch anything on the device.
  xp = jnp if isinstance(step, jax.Array) else np
  after = xp.maximum(xp.float32(step) - config.warmup_steps, 0.0)
  progress = xp.minimum(after / max(total_steps - config.warmup_steps, 1), 1.0)
  shape = {
    "cosine": lambda: 0.5 * (1.0 + xp.cos(np.pi * progress)),
    "linear": lambda: 1.0 - progress,
    "rsqrt": lambda: 1.0 / xp.sqrt(1.0 + after / config.timescale),
    "constant": lambda: xp.ones_like(progress),
  }[config.schedule]()
  if config.schedule in ("cosine", "linear"):
    shape = config.end_factor + (1.0 - config.end_factor) * shape
  if config.warmup_steps:
    shape = shape * xp.minimum(xp.float32(step) / config.warmup_steps, 1.0)
  if config.cooldown_steps:
    left = xp.clip((total_steps - xp.float32(step)) / config.cooldown_steps, 0.0, 1.0)
    shape = shape * (config.end_factor + (1.0 - config.end_factor) * left)
  return xp.asarray(shape, dtype=xp.float32)[()]


def _scale_gradients(config: Optim) -> optax.GradientTransformation:
  dtype = jnp.dtype(config.momentum_dtype)
  if config.name == "adam":
    return optax.scale_by_adam(config.b1, config.b2)
  if config.name == "sgd":
    return optax.trace(config.b1, accumulator_dtype=dtype) if config.b1 else optax.identity()
  # Neither update clipping nor a rate relative to the parameter's scale, unlike the original
  # Adafactor; the momentum is taken of the scaled gradient and starts at 0 without correction.
  second = optax.scale_by_factored_rms(
    decay_rate=0.8,
    min_dim_size_to_factor=32,
    epsilon=1e-30,
    decay_rate_fn=lambda count, power: jnp.minimum(
      config.b2, 1.0 - (jnp.float32(count) + 1.0) ** -power
    ),
  )
  first = optax.ema(config.b1, debias=False, accumulator_dtype=dtype)
  second = _of_each(second)
  return optax.chain(second, first) if config.b1 else second


def _of_each(factored: optax.GradientTransformation) -> optax.GradientTransformation:
  """Takes the arrays of a stack one by one, since it looks at their shapes."""
  axes = optax.FactoredState(None, 0, 0, 0)  # they share the count

  def joined(states):
    counts, *moments = zip(*states, strict=True)
    return optax.FactoredState(counts[0], *map(list, moments))

  def init(params):
    return joined([jax.vmap(factored.init, out_axes=axes)(stack) for stack in params])

  def update(updates, state, params):
    of_stack = jax.vmap(factored.update, in_axes=(0, axes, 0), out_axes=(0, axes))
    each = zip(*state[1:], strict=True)
    states = [optax.FactoredState(state.count, *moments) for moments in each]
    found = list(map(of_stack, updates, states, params))
    return [scaled for scaled, _ in found], joined([new for _, new in found])

  return optax.GradientTransformation(init, update)


def of_mixed_types(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
  """The same where JAX's promotion is strict: optax mixes counts and moments of other types."""

  def update(updates, state, params=None):
    with jax.numpy_dtype_promotion("standard"):
      return transformation.update(updates, state, params)

  return optax.GradientTransformation(transformation.init, update)


def _multipliers(config: Optim, params: PyTree) -> PyTree[float]:
  """What the learning rate of each parameter is multiplied with."""

  def of_name(name: str) -> float:
    matches = (m for pattern, m in config.lr_multipliers if re.fullmatch(pattern, name))
    return next(matches, 1.0)

  return _map_names(of_name, params)


def _map_names(function: Callable[[str], object], tree: PyTree) -> PyTree:
  def of_path(path, _):
    return function(jax.tree_util.keystr(path, simple=True, separator="/"))

  return jax.tree_util.tree_map_with_path(of_path, tree)


def _check_patterns(config: Optim, params: PyTree, trained: PyTree[bool], key: str) -> None:
  names = jax.tree.leaves(_map_names(lambda name: name, params))
  patterns = [("lr_multipliers", pattern) for pattern, _ in config.lr_multipliers]
  if config.weight_decay:
    patterns.append(("weight_decay_pattern", config.weight_decay_pattern))
  for field, pattern in patterns:
    # A pattern with a typing error would otherwise train what should stay, in silence.
    if not any(re.fullmatch(pattern, name) for name in names):
      raise UsageError(
        f"{key}.{field}: {pattern!r} matches the whole name of no parameter; "
        f"they are named like {', '.join(names[:3])}"
      )
  if not any(jax.tree.leaves(trained)):
    raise UsageError(f"{key}.lr_multipliers freezes every parameter; nothing is left to train")
