"""SRFlow, super-resolution as a conditional normalizing flow (Lugmayr et al. 2020, 2006.14200).

An invertible map between high resolutions and latents, given features of the low resolution. Each
level halves the resolution (squeeze), mixes channels a few times without the features ("transition
steps"), and goes through steps of actnorm, 1 x 1 convolution, affine injector and conditional
affine coupling; after the first levels half of the channels leave as latents. Other than published:
what flows is the picture minus the enlarged low resolution, over its usual deviation (`residual`);
the small networks of a step have biases where the authors have actnorm, and no extra log-scales.

Published sizes for x4: filters 64, blocks 23, growth 32, stacked (1, 8, 15, 22), levels 3, steps
16, hidden 64, splits 1, transitions 2, residual False. There is no published x2.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  H, W: height and width of the low resolution
  Y, X: those of the high one
  h, w: places of a level
  C: channels
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.models import dense, flow_levels, restorer
from rtune.models.flow_levels import Latents, Seen
from rtune.models.rrdb import Features

_SPREAD = 0.1, 0.25  # about the deviation of a residual, and of a picture, in [0, 1]


class Flow(NamedTuple):
  """An invertible network, as pure functions of parameters, which are nested dicts.

  Attributes:
    init: (key, image [B, H, W, C]) -> parameters, float32.
    see: (parameters, image) -> `Seen`, once for all samples; sides such that the high resolution
      has multiples of `multiple`.
    encode: (parameters, seen, pictures [B, S, Y, X, C]) -> `Latents`.
    decode: (parameters, seen, z) -> (pictures, log_det as `encode` has it).
    shapes: (Y, X, channels) -> shapes (h, w, C) of z.
    scale: how much larger the high resolution is.
    multiple: what its sides are multiples of.
  """

  init: Callable[..., dict[str, Any]]
  see: Callable[..., Seen]
  encode: Callable[..., Latents]
  decode: Callable[..., tuple[Array, tuple[Array, ...]]]
  shapes: Callable[..., tuple[tuple[int, int, int], ...]]
  scale: int
  multiple: int


def srflow(
  channels: int,
  *,
  scale: int = 2,
  filters: int = 16,
  blocks: int = 2,
  growth: int = 8,
  stacked: Sequence[int] = (),
  levels: int = 2,
  steps: int = 4,
  hidden: int = 32,
  splits: int = 1,
  transitions: int = 1,
  residual: bool = True,
) -> Flow:
  """An SRFlow. It computes in float32: halves cannot be inverted.

  Args:
    channels: of pictures.
    scale: 2, 4 or 8.
    filters, blocks, growth: of the RRDB network, see rrdb.py.
    stacked: blocks of it whose output is seen too, counted from 0.
    levels: how often the resolution is halved.
    steps: of each level.
    hidden: channels within a step's networks.
    splits: after so many of the first levels half of the channels leave.
    transitions: steps of each level that do not see the low resolution.
    residual: what flows is the picture minus the bicubic enlargement.

  Raises:
    UsageError: a setting that is out of its range.
  """
  dense.check_choice((2, 4, 8), scale=scale)
  dense.check_least(1, filters=filters, blocks=blocks, growth=growth, levels=levels, hidden=hidden)
  dense.check_least(0, steps=steps, transitions=transitions, splits=splits)
  dense.check_choice(range(levels), splits=splits)
  for block in stacked:
    dense.check_choice(range(blocks), stacked=block)
  features = Features(scale, levels, filters, blocks, growth, tuple(stacked))
  width = filters * (1 + len(stacked))
  plan = flow_levels.plan(channels, levels, splits)

  def init(key: Array, image: Float[Array, "b h w c"]) -> dict[str, Any]:
    see_key, *keys = jax.random.split(key, levels + 1)
    sizes = steps, transitions, width, hidden
    made = {f"level_{i}": flow_levels.init_level(keys[i], plan[i], *sizes) for i in range(levels)}
    image = restorer.mirrored(image, max(2**levels // scale, 1))
    return {"features": features.init(see_key, image)["params"], **made}

  def see(params: dict[str, Any], image: Float[Array, "b h w c"]) -> Seen:
    larger = restorer.enlarged(image, scale)
    center = larger if residual else jnp.full_like(larger, 0.5)
    return Seen(features.apply({"params": params["features"]}, image), center)

  unit = _SPREAD[0 if residual else 1]

  def encode(params: dict[str, Any], seen: Seen, pictures: Float[Array, "b s y x c"]) -> Latents:
    return flow_levels.encode(params, plan, seen, pictures, unit)

  def decode(
    params: dict[str, Any], seen: Seen, z: tuple[Array, ...]
  ) -> tuple[Float[Array, "b s y x c"], tuple[Array, ...]]:
    return flow_levels.decode(params, plan, seen, z, unit)

  def shapes(height: int, width: int, channels: int) -> tuple[tuple[int, int, int], ...]:
    del channels
    return tuple(
      (height >> (i + 1), width >> (i + 1), level.leaving) for i, level in enumerate(plan)
      if level.leaving
    )  # fmt: skip

  return Flow(init, see, encode, decode, shapes, scale, 2**levels)
