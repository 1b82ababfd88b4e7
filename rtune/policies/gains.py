"""A restorer that is imitated, and a few numbers for each block that are tuned.

What is imitated is a picture: its log-likelihood is Laplace (L1) or normal (L2) around the restored
one. What is sampled are gains, K normal numbers for each block: how much of each band of detail is
kept. Tuning learns them, with a small head on what the restorer sees, which gives 1 for all at
first: the picture as it was restored. Thousands of pixels would be too many decisions to learn from
a few rewards.

REINFORCE sees how likely gains are, and nothing of how the picture depends on the restorer: tuned
without `frozen` the restorer would change as a side effect of what its features are good for.

Mirrored samples (`antithetic`) come in pairs, mean + noise and mean - noise. What is even in the
noise, such as the level of rewards, falls out of the gradient of means. Each sample by itself is
distributed as it was, so log-probabilities, and gradients without a baseline or with that of greedy
decoding, stay right; but siblings are no longer independent: in a baseline of S of them the twin of
a sample has its noise, negated. With `leave_one_out` the expected gradient of means is S / (S - 1)
times the true one, and that of a learned scale (S - 2) / (S - 1) times; with `group_mean` 1 and
(S - 2) / S times. Unless `learn_noise`, only the length changes, which Adam does not see.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  Y, X: height and width of the restored picture
  C: channels
  H, W: rows and columns of blocks
  T: decisions: blocks of gains, row by row; of a picture that is imitated, pixels
  K: bands
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune import config as configs
from rtune.models import restorer
from rtune.policies import detail, heads, pictures
from rtune.policies.laplace import laplace
from rtune.policies.networks import network_of
from rtune.policies.policy import Policy, Sampled, Scored
from rtune.policies.space import Image

_LIKELIHOODS = {"laplace": laplace, "normal": heads.normal}


class _Known(NamedTuple):
  """What is known before anything is sampled."""

  image: Float[Array, "b y x c"]
  bands: Float[Array, "b y x c k"]
  gains: heads.Normal  # [B, 1, H, W, K]


class _Settings(NamedTuple):
  """See `gains`."""

  block: int
  bands: int
  of: str
  between: str
  constant: bool
  noise: float
  learn_noise: bool
  antithetic: bool
  frozen: bool
  likelihood: str
  spread: float


def gains(
  space: Image,
  *,
  network: Mapping[str, Any] | configs.Part = pictures.RDUNET,
  block: int = 8,
  bands: int = 4,
  of: str = "change",
  between: str = "linear",
  width: int = 32,
  head: str = "blocks",
  noise: float = 0.5,
  learn_noise: bool = False,
  antithetic: bool = True,
  frozen: bool = True,
  likelihood: str = "laplace",
  spread: float = 1.0,
) -> Policy:
  """The policy of a network that restores pictures.

  Its inputs are {"image": float32 [B, H, W, C], "sigma": float32 [B]}. Actions of samples are
  {"image": [B, S, Y, X, C], "gains": [B, S, H, W, K]}; a picture by itself is imitated.

  Args:
    network: a function of the number of channels that returns a `Restorer`, with its arguments.
    block: pixels of a block's side.
    bands: gains of a block.
    of: what the bands are of: "change", what the restorer added to the degraded picture (enlarged
      where it is smaller), all of it; or "restored", the details of the restored picture.
    between: how gains go from block to block: "linear", or "nearest", with which a block's gains
      change that block only.
    width: of the head.
    head: what gains' means depend on: "blocks", on what the restorer sees of a block; "constant",
      on nothing: one number for each band of all blocks, what a head must beat.
    noise: standard deviation of gains.
    learn_noise: it is learned, one number for each band, and begins there.
    antithetic: samples come in mirrored pairs, see above; an odd one is by itself.
    frozen: tuning changes the head only. Set weight decay to 0 then: it needs no gradient.
    likelihood: of a picture that is imitated: "laplace" or "normal".
    spread: its scale, in units of the picture; it scales the loss.

  Raises:
    UsageError: a setting that is out of its range, or the network cannot be made.
  """
  pictures.check_least(1, block=block, bands=bands, width=width)
  pictures.check_above(0, noise=noise, spread=spread)
  pictures.check_choice(("change", "restored"), of=of)
  pictures.check_choice(("linear", "nearest"), between=between)
  pictures.check_choice(("blocks", "constant"), head=head)
  pictures.check_choice(tuple(_LIKELIHOODS), likelihood=likelihood)
  made = network_of(network, restorer.Restorer, space.channels)
  rendering = block, bands, of, between, head == "constant"
  drawing = float(noise), learn_noise, antithetic, frozen
  settings = _Settings(*rendering, *drawing, likelihood, float(spread))
  return _policy(made, restorer.block_head(bands, width), settings)


def _policy(network: restorer.Restorer, head: restorer.Head, settings: _Settings) -> Policy:
  likelihood = _LIKELIHOODS[settings.likelihood]

  def init(key, inputs):
    first, second = jax.random.split(key)
    params = {"restorer": network.init(first, inputs["image"], inputs["sigma"])}
    found = network.apply(params["restorer"], inputs["image"], inputs["sigma"])
    _, seen = _seen(network, settings, found, inputs)
    params["head"] = head.init(second, seen)
    if settings.learn_noise:
      params["log_noise"] = jnp.full(settings.bands, math.log(settings.noise))
    return params

  def known(params, inputs) -> _Known:
    found = network.apply(params["restorer"], inputs["image"], inputs["sigma"])
    if settings.frozen:
      found = jax.lax.stop_gradient(found)
    bands_BYXCK, seen = _seen(network, settings, found, inputs)
    mean_BHWK = 1.0 + head.apply(params["head"], seen)
    scale_K = jnp.full(settings.bands, settings.noise)
    if settings.learn_noise:
      scale_K = jnp.exp(params["log_noise"])
    scale_BHWK = jnp.broadcast_to(scale_K, mean_BHWK.shape)
    at = heads.Normal(mean_BHWK[:, None], scale_BHWK[:, None])
    return _Known(found.image, bands_BYXCK, at)

  def rendered(seen: _Known, gains_BSHWK):
    given = seen.image, seen.bands, gains_BSHWK, settings.block, settings.between
    return {"image": detail.scaled(*given), "gains": gains_BSHWK}

  def sample(params, inputs, key, num_samples: int) -> Sampled:
    seen = known(params, inputs)
    mean_B1HWK, scale_B1HWK = seen.gains
    noise_BSHWK = pictures.drawn(key, mean_B1HWK[:, 0], num_samples, settings.antithetic)
    gains_BSHWK = mean_B1HWK + scale_B1HWK * noise_BSHWK
    log_prob_BST = _by_place(heads.normal.log_prob(seen.gains, gains_BSHWK))
    return Sampled(rendered(seen, gains_BSHWK), log_prob_BST)

  def score(params, inputs, actions, key=None) -> Scored:
    if isinstance(actions, Mapping):
      at = known(params, inputs).gains
      log_prob_BST = _by_place(heads.normal.log_prob(at, actions["gains"]))
      return Scored(log_prob_BST, jnp.ones_like(log_prob_BST), {"gains": at})
    found = network.apply(params["restorer"], inputs["image"], inputs["sigma"])
    mean_B1YXC = found.image[:, None]
    at = heads.Normal(mean_B1YXC, jnp.full_like(mean_B1YXC, settings.spread))
    log_prob_BST = _by_place(likelihood.log_prob(at, actions))
    return Scored(log_prob_BST, jnp.ones_like(log_prob_BST), {"picture": at})

  def best(params, inputs, effort: int = 1):
    seen = known(params, inputs)
    actions = rendered(seen, heads.normal.mode(seen.gains))
    return jax.tree.map(lambda x: x[:, 0], actions)

  def entropy(scored: Scored) -> Float[Array, "b s t"]:
    (kind, at), *_ = scored.outputs.items()
    found = heads.normal.entropy(at) if kind == "gains" else likelihood.entropy(at)
    return jnp.broadcast_to(_by_place(found), scored.mask.shape)

  def divergence(scored: Scored, reference: Scored) -> Float[Array, "b s t"]:
    (kind, at), *_ = scored.outputs.items()
    kl = heads.normal.kl if kind == "gains" else likelihood.kl
    return jnp.broadcast_to(_by_place(kl(at, reference.outputs[kind])), scored.mask.shape)

  return Policy(
    init, sample, score, best, entropy, divergence, describe=_describe, sequential=False
  )


def _seen(network, settings, found: restorer.Restored, inputs) -> tuple[Array, Array]:
  """The bands [B, Y, X, C, K], and what the head sees of each block [B, H, W, F]."""
  degraded = restorer.enlarged(inputs["image"], network.scale)
  if settings.of == "change":
    parts = detail.split(found.image - degraded, settings.bands - 1)
  else:
    parts = detail.split(found.image, settings.bands)[:-1]
  bands_BYXCK = jnp.stack(parts, axis=-1)
  features = detail.pooled(found.features, settings.block)
  energies = detail.energies(bands_BYXCK, settings.block)
  sigma = jnp.broadcast_to(inputs["sigma"][:, None, None, None], (*features.shape[:3], 1))
  seen = jnp.concatenate([features, energies, sigma], axis=-1)
  # Of zeros nothing but the last bias gets a gradient; parameters stay those of the other head.
  return bands_BYXCK, jnp.zeros_like(seen) if settings.constant else seen


def _by_place(values: Float[Array, "b s y x c"]) -> Float[Array, "b s t"]:
  return jnp.sum(values, axis=-1).reshape(*values.shape[:2], -1)


def _describe(scored: Scored) -> dict[str, Float[Array, "b s"]]:
  """While tuning: the mean gain of each band, the finest first, and the mean noise."""
  if "gains" not in scored.outputs:
    return {}
  mean_BK, scale_BK = (jnp.mean(x, axis=(1, 2, 3)) for x in scored.outputs["gains"])
  found = {f"gain_{band}": mean_BK[:, band] for band in range(mean_BK.shape[1])}
  found["gain_noise"] = jnp.mean(scale_BK, axis=1)
  shape = scored.mask.shape[:2]
  return {name: jnp.broadcast_to(value_B[:, None], shape) for name, value_B in found.items()}
