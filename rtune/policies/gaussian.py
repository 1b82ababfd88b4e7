"""A restorer whose picture is the mean of normal pixels: the policy to tune all of it with.

What depends on the network is the mean alone, one pass of it for all samples of a picture. So
samples cost little, and many of them, in mirrored pairs and with credit for small blocks,
say nearly what the gradient of the reward itself would: with 64 samples and blocks of 4 pixels the
cosine to it is above 0.9 (docs/restoration.md). With a handful of samples and one reward for a
whole picture they say next to nothing of its thousands of numbers.

Imitation is either L1, and then the scale is the tuner's choice: small, so that samples are worth
what their mean is; or the normal likelihood itself, which learns the scale.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  Y, X: height and width of the restored picture
  C: channels
  T: blocks of pixels, row by row
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune import config as configs
from rtune.errors import UsageError
from rtune.models import restorer
from rtune.policies import heads, pictures
from rtune.policies.laplace import laplace
from rtune.policies.networks import PATH, network_of
from rtune.policies.policy import Policy, Sampled, Scored
from rtune.policies.space import Image


class _Settings(NamedTuple):
  """See `gaussian`."""

  block: int
  scale: float
  by_pixel: bool
  least: float
  antithetic: bool
  fixed: bool  # the scale, while L1 is imitated


def gaussian(
  space: Image,
  *,
  network: Mapping[str, Any] | configs.Part = pictures.RDUNET,
  block: int = 4,
  likelihood: str = "normal",
  scale: float = 0.1,
  by_pixel: bool = False,
  width: int = 16,
  least: float = 0.002,
  antithetic: bool = False,
) -> Policy:
  """The policy of a network that restores pictures.

  Its inputs are {"image": float32 [B, H, W, C], "sigma": float32 [B]}. Actions of samples are
  {"image": [B, S, Y, X, C]}; a picture by itself is imitated.

  Args:
    network: a function of the number of channels that returns a `Restorer`, with its arguments.
    block: pixels of a block's side; the pixels of a block are one decision. 1: each pixel is one.
    likelihood: of a picture that is imitated. "laplace": L1 of its pixels; the scale of samples
      stays as it is set. "normal": that of samples, whose scale is learned.
    scale: standard deviation of samples, in units of the picture; the first one if it is learned.
    by_pixel: the scale is said of each pixel, by a head on what the network sees, and not learned
      as one number for each channel.
    width: of that head.
    least: what every scale that is learned is above: half of a step of 8-bit pictures is 0.002.
    antithetic: samples come in mirrored pairs; see `rtune.policies.gains` for what it means.

  Raises:
    UsageError: a setting that is out of its range, or the network cannot be made.
  """
  pictures.check_least(1, block=block, width=width)
  pictures.check_above(0, least=least)
  pictures.check_choice(("normal", "laplace"), likelihood=likelihood)
  fixed = likelihood == "laplace"
  pictures.check_above(0 if fixed else least, scale=scale)
  if fixed and by_pixel:
    raise UsageError(f"{PATH}.by_pixel learns the scale; set {PATH}.likelihood='normal' with it.")
  made = network_of(network, restorer.Restorer, space.channels)
  head = restorer.block_head(space.channels, width)
  return _policy(made, head, _Settings(block, float(scale), by_pixel, least, antithetic, fixed))


def _policy(network: restorer.Restorer, head: restorer.Head, settings: _Settings) -> Policy:
  first = 0.0 if settings.fixed else math.log(settings.scale - settings.least)

  def init(key, inputs):
    one, other = jax.random.split(key)
    params = {"restorer": network.init(one, inputs["image"], inputs["sigma"])}
    if settings.fixed:
      return params
    if settings.by_pixel:
      found = network.apply(params["restorer"], inputs["image"], inputs["sigma"])
      return params | {"head": head.init(other, found.features)}
    return params | {"log_scale": jnp.full(inputs["image"].shape[-1], first)}

  def normal(params, inputs) -> heads.Normal:
    """For all samples of a picture, [B, 1, Y, X, C]."""
    found = network.apply(params["restorer"], inputs["image"], inputs["sigma"])
    mean_B1YXC = found.image[:, None]
    if settings.fixed:
      return heads.Normal(mean_B1YXC, jnp.full_like(mean_B1YXC, settings.scale))
    if settings.by_pixel:
      log_scale = first + head.apply(params["head"], found.features)
    else:
      log_scale = jnp.broadcast_to(params["log_scale"][None, None, None], found.image.shape)
    return heads.Normal(mean_B1YXC, settings.least + jnp.exp(log_scale)[:, None])

  def sample(params, inputs, key, num_samples: int) -> Sampled:
    at = normal(params, inputs)
    noise = pictures.drawn(key, at.mean[:, 0], num_samples, settings.antithetic)
    image = at.mean + at.scale * noise
    return Sampled({"image": image}, _by_block(heads.normal.log_prob(at, image), settings.block))

  def score(params, inputs, actions, key=None) -> Scored:
    at = normal(params, inputs)
    drawn = isinstance(actions, Mapping)
    if drawn or not settings.fixed:
      image = actions["image"] if drawn else actions
      log_prob_BST = _by_block(heads.normal.log_prob(at, image), settings.block)
      return Scored(log_prob_BST, jnp.ones_like(log_prob_BST), {"drawn": at})
    at = at._replace(scale=jnp.ones_like(at.mean))
    log_prob_BST = _by_block(laplace.log_prob(at, actions), 1)
    return Scored(log_prob_BST, jnp.ones_like(log_prob_BST), {"imitated": at})

  def best(params, inputs, effort: int = 1):
    return {"image": heads.normal.mode(normal(params, inputs))[:, 0]}

  def entropy(scored: Scored) -> Float[Array, "b s t"]:
    head, at, block = _of_kind(scored, settings.block)
    return jnp.broadcast_to(_by_block(head.entropy(at), block), scored.mask.shape)

  def divergence(scored: Scored, reference: Scored) -> Float[Array, "b s t"]:
    head, at, block = _of_kind(scored, settings.block)
    (other,) = reference.outputs.values()
    return jnp.broadcast_to(_by_block(head.kl(at, other), block), scored.mask.shape)

  return Policy(
    init, sample, score, best, entropy, divergence, describe=_describe, sequential=False
  )


def _of_kind(scored: Scored, block: int) -> tuple[heads.Head, heads.Normal, int]:
  """Of samples or of what is imitated: the distribution, and the side of a decision."""
  ((kind, at),) = scored.outputs.items()
  return (heads.normal, at, block) if kind == "drawn" else (laplace, at, 1)


def _by_block(values: Float[Array, "b s y x c"], block: int) -> Float[Array, "b s t"]:
  """Sums over channels and blocks."""
  return pictures.by_block(jnp.sum(values, axis=-1), block)


def _describe(scored: Scored) -> dict[str, Float[Array, "b s"]]:
  """Of samples: the mean scale, in units of the picture."""
  if "drawn" not in scored.outputs:
    return {}
  scale_B1 = jnp.mean(scored.outputs["drawn"].scale, axis=(2, 3, 4))
  return {"pixel_scale": jnp.broadcast_to(scale_B1, scored.mask.shape[:2])}
