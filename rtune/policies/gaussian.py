"""A normal number for each channel of each pixel: the plain policy over pictures.

The network's picture is the mean; the scale is learned. Thousands of independent numbers share what
a reward says: with few samples tuning learns little, with rewards for whole pictures least of all.
`gains` is the policy to tune with; this one is what a likelihood with a learned scale comes to, and
shows the difference.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  Y, X: height and width of the restored picture
  C: channels
  T: blocks of pixels, row by row
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune import config as configs
from rtune.models import restorer
from rtune.policies import heads, pictures
from rtune.policies.networks import network_of
from rtune.policies.policy import Policy, Sampled, Scored
from rtune.policies.space import Image


def gaussian(
  space: Image,
  *,
  network: Mapping[str, Any] | configs.Part = pictures.RDUNET,
  block: int = 8,
  scale: float = 0.1,
  by_pixel: bool = False,
  width: int = 16,
  least: float = 0.002,
) -> Policy:
  """The policy of a network that restores pictures.

  Its inputs are {"image": float32 [B, H, W, C], "sigma": float32 [B]}, its actions pictures
  [B, S, Y, X, C].

  Args:
    network: a function of the number of channels that returns a `Restorer`, with its arguments.
    block: pixels of a block's side; the pixels of a block are one decision. 1: each pixel is one.
    scale: first standard deviation, in units of the picture.
    by_pixel: the scale is said of each pixel, by a head on what the network sees, and not learned
      as one number for each channel.
    width: of that head.
    least: what every scale is above: half of a step of 8-bit pictures is 0.002.

  Raises:
    UsageError: a setting that is out of its range, or the network cannot be made.
  """
  pictures.check_least(1, block=block, width=width)
  pictures.check_above(0, least=least)
  pictures.check_above(least, scale=scale)
  made = network_of(network, restorer.Restorer, space.channels)
  return _policy(made, restorer.block_head(space.channels, width), block, scale, by_pixel, least)


def _policy(
  network: restorer.Restorer,
  head: restorer.Head,
  block: int,
  scale: float,
  by_pixel: bool,
  least: float,
) -> Policy:
  first = math.log(scale - least)

  def init(key, inputs):
    one, other = jax.random.split(key)
    params = {"restorer": network.init(one, inputs["image"], inputs["sigma"])}
    if by_pixel:
      found = network.apply(params["restorer"], inputs["image"], inputs["sigma"])
      return params | {"head": head.init(other, found.features)}
    return params | {"log_scale": jnp.full(inputs["image"].shape[-1], first)}

  def normal(params, inputs) -> heads.Normal:
    """For all samples of a picture, [B, 1, Y, X, C]."""
    found = network.apply(params["restorer"], inputs["image"], inputs["sigma"])
    if by_pixel:
      log_scale = first + head.apply(params["head"], found.features)
    else:
      log_scale = jnp.broadcast_to(params["log_scale"][None, None, None], found.image.shape)
    return heads.Normal(found.image[:, None], least + jnp.exp(log_scale)[:, None])

  def by_block(values: Float[Array, "b s y x c"]) -> Float[Array, "b s t"]:
    return pictures.by_block(jnp.sum(values, axis=-1), block)

  def sample(params, inputs, key, num_samples: int) -> Sampled:
    at = normal(params, inputs)
    shape = (len(at.mean), num_samples, *at.mean.shape[2:])
    picture = at.mean + at.scale * jax.random.normal(key, shape)
    return Sampled(picture, by_block(heads.normal.log_prob(at, picture)))

  def score(params, inputs, actions, key=None) -> Scored:
    at = normal(params, inputs)
    log_prob_BST = by_block(heads.normal.log_prob(at, actions))
    return Scored(log_prob_BST, jnp.ones_like(log_prob_BST), at)

  def best(params, inputs, effort: int = 1):
    return heads.normal.mode(normal(params, inputs))[:, 0]

  def entropy(scored: Scored) -> Float[Array, "b s t"]:
    found = by_block(heads.normal.entropy(scored.outputs))
    return jnp.broadcast_to(found, scored.mask.shape)

  def divergence(scored: Scored, reference: Scored) -> Float[Array, "b s t"]:
    found = by_block(heads.normal.kl(scored.outputs, reference.outputs))
    return jnp.broadcast_to(found, scored.mask.shape)

  return Policy(
    init, sample, score, best, entropy, divergence, describe=_describe, sequential=False
  )


def _describe(scored: Scored) -> dict[str, Float[Array, "b s"]]:
  """The mean scale, in units of the picture."""
  scale_B1 = jnp.mean(scored.outputs.scale, axis=(2, 3, 4))
  return {"pixel_scale": jnp.broadcast_to(scale_B1, scored.mask.shape[:2])}
