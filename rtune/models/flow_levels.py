"""The levels of a conditional normalizing flow, from a picture to its latents and back.

What a flow of SRFlow's kind (srflow.py) does, as plain functions of its parameters.

Dimension key: that of srflow.py.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models import flow_steps, restorer


class Seen(NamedTuple):
  """What a flow knows of a low resolution.

  Attributes:
    levels: features of each level, the finest first, [B, h, w, F].
    center: what pictures are counted from [B, Y, X, C].
  """

  levels: tuple[Array, ...]
  center: Float[Array, "b y x c"]


class Latents(NamedTuple):
  """A picture as a flow sees it.

  Attributes:
    z: standard normal under the model, the finest first, [B, S, h, w, C].
    log_det: log |dz / dpicture|, in nats, by the places of each level [B, S, h, w].
  """

  z: tuple[Array, ...]
  log_det: tuple[Array, ...]


class Level(NamedTuple):
  """Channels after the squeeze, and how many of them leave after the steps."""

  channels: int
  leaving: int


def plan(channels: int, levels: int, splits: int) -> tuple[Level, ...]:
  found = []
  for number in range(levels):
    channels *= 4
    last = number == levels - 1
    leaving = channels if last else channels // 2 if number < splits else 0
    found.append(Level(channels, leaving))
    channels -= leaving
  return tuple(found)


def init_level(
  key: Array, level: Level, steps: int, transitions: int, features: int, hidden: int
) -> dict[str, Any]:
  first, second, third, last = jax.random.split(key, 4)
  channels, leaving = level
  params = {
    "transitions": flow_steps.init_mix(first, transitions, channels),
    "mix": flow_steps.init_mix(second, steps, channels),
    "couplings": flow_steps.init_couplings(third, steps, channels, features, hidden),
  }
  if 0 < leaving < channels:
    staying = jnp.zeros((1, 1, 1, 1, channels - leaving))
    params["prior"] = flow_steps.Prior(2 * leaving).init(last, staying)["params"]
  return params


def encode(
  params: dict[str, Any], plan: tuple[Level, ...], seen: Seen, pictures: Array, unit: float
) -> Latents:
  z, log_dets = [], []
  x = (pictures - seen.center[:, None]) / unit
  for number, level in enumerate(plan):
    own, features = params[f"level_{number}"], seen.levels[number]
    x = flow_steps.squeezed(x)
    log_det = jnp.broadcast_to(_constant(own, number, level, unit), x.shape[:-1])
    x = _scanned(_mix, x, flow_steps.Mix(**own["transitions"]))

    def step(carry, given, features=features):
      x, log_det = carry
      mix, couplings = given
      x, more = flow_steps.coupled(couplings, features, flow_steps.mixed(mix, x))
      return (x, log_det + more), None

    given = flow_steps.Mix(**own["mix"]), own["couplings"]
    x, log_det = _scanned(step, (x, log_det), given)
    if 0 < level.leaving < level.channels:
      x, leaving = jnp.split(x, [level.channels - level.leaving], axis=-1)
      mean, log_scale = _prior(own["prior"], x)
      z.append((leaving - mean) * jnp.exp(-log_scale))
      log_det -= jnp.sum(log_scale, axis=-1)
    log_dets.append(log_det)
  return Latents((*z, x), tuple(log_dets))


def decode(
  params: dict[str, Any], plan: tuple[Level, ...], seen: Seen, z: Sequence[Array], unit: float
) -> tuple[Array, tuple[Array, ...]]:
  *left, x = z
  log_dets = []
  for number, level in reversed([*enumerate(plan)]):
    own, features = params[f"level_{number}"], seen.levels[number]
    log_det = jnp.broadcast_to(_constant(own, number, level, unit), x.shape[:-1])
    if 0 < level.leaving < level.channels:
      mean, log_scale = _prior(own["prior"], x)
      x = jnp.concatenate([x, mean + jnp.exp(log_scale) * left.pop()], axis=-1)
      log_det -= jnp.sum(log_scale, axis=-1)

    def step(carry, given, features=features):
      x, log_det = carry
      mix, couplings = given
      x, more = flow_steps.uncoupled(couplings, features, x)
      return (flow_steps.unmixed(mix, x), log_det + more), None

    given = _inverse(own["mix"]), own["couplings"]
    x, log_det = _scanned(step, (x, log_det), given, reverse=True)
    x = _scanned(_unmix, x, _inverse(own["transitions"]), reverse=True)
    x = flow_steps.unsqueezed(x)
    log_dets.insert(0, log_det)
  return seen.center[:, None] + unit * x, tuple(log_dets)


def _scanned(step: Callable[..., Any], carry: Any, params: Any, reverse: bool = False) -> Any:
  """What is left of `carry` after a step with each of the parameters, leaves [N, ...]."""
  unroll = restorer.unrolled(len(jax.tree.leaves(params)[0]))
  return jax.lax.scan(step, carry, params, reverse=reverse, unroll=unroll)[0]


def _mix(x: Array, mix: flow_steps.Mix) -> tuple[Array, None]:
  return flow_steps.mixed(mix, x), None


def _unmix(x: Array, mix: flow_steps.Mix) -> tuple[Array, None]:
  return flow_steps.unmixed(mix, x), None


def _inverse(params: dict[str, Array]) -> flow_steps.Mix:
  mix = flow_steps.Mix(**params)
  return mix._replace(kernel=jnp.linalg.inv(mix.kernel))


def _constant(own: dict[str, Any], number: int, level: Level, unit: float) -> Float[Array, ""]:
  """What of the log-determinant of a level is the same at each place, whatever the picture.

  The unit in which pictures are counted counts at the first level, which has all of their numbers.
  """
  of_unit = -math.log(unit) * level.channels if number == 0 else 0.0
  return of_unit + sum(flow_steps.mix_log_det(own[name]) for name in ("transitions", "mix"))


def _prior(params: dict[str, Any], x: Array) -> tuple[Array, Array]:
  """Mean and log-scale of the channels that leave."""
  outputs = params["last"]["bias"].shape[-1]
  said = flow_steps.Prior(outputs).apply({"params": params}, x)
  mean, log_scale = jnp.split(said, 2, axis=-1)
  return mean, log_scale
