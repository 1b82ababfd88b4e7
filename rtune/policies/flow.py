"""Pictures from a conditional normalizing flow, with their exact likelihood.

Two distributions of one network. A picture by itself is imitated: its log-density is that of the
flow whose latents are standard normal. Samples are drawn with latents of standard deviation
`temperature`, and their score is the log-density of just that distribution, so that tuning changes
what is sampled. `best` is the picture of z = 0, where the density of latents is highest.

A log-density belongs to all of a picture: what is said of a block, its latents' and its volume's
share, sums to it, but a block's pixels also depend on latents around it. With rewards for whole
pictures the gradient is exact for any grid. With credit for each block it is exact only as far as
blocks do not see each other; at their borders it is an approximation, which in return asks each
block to answer for what it can change.

Entropy and divergence are estimators: minus the log-density of the answers given, and its distance
to the reference. Their values are by block; their gradient is that of the expectation over whole
answers (score function, compared with siblings).

Dimension key:
  B: batch of pictures
  S: samples for each picture
  H, W: height and width of the low resolution
  Y, X: those of the high one
  C: channels
  T: blocks, row by row
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune import config as configs
from rtune.errors import UsageError
from rtune.models import restorer
from rtune.models.flow_levels import Latents
from rtune.models.srflow import Flow
from rtune.policies import heads, pictures
from rtune.policies.networks import PATH, network_of
from rtune.policies.policy import Policy, Sampled, Scored
from rtune.policies.space import Image

SRFLOW = configs.Part("rtune.models.srflow:srflow")
_LEVELS = 255  # steps of 8-bit pictures between 0 and 1
_LEVELS_IN_BITS = math.log2(_LEVELS)


def flow(
  space: Image,
  *,
  network: Mapping[str, Any] | configs.Part = SRFLOW,
  temperature: float = 0.8,
  block: int = 8,
  dequantize: bool = True,
) -> Policy:
  """The policy of an invertible network.

  Its inputs are {"image": float32 [B, H, W, C], ...}. Actions of samples are
  {"image": [B, S, Y, X, C]}, not clipped; a picture by itself is imitated.

  Args:
    network: a function of the number of channels that returns a `Flow`, with its arguments.
    temperature: standard deviation of the latents of samples.
    block: pixels of a block's side, a multiple of 2**levels of the network; the numbers of a block
      are one decision. 0: the picture is one.
    dequantize: pictures that are imitated get uniform noise of one step of 8 bits, where a key is
      given: a density of numbers on a grid has no bound.

  Raises:
    UsageError: a setting that is out of its range, or the network cannot be made.
  """
  pictures.check_above(0, temperature=temperature)
  pictures.check_least(0, block=block)
  made = network_of(network, Flow, space.channels)
  if block % made.multiple:
    raise UsageError(
      f"{PATH}.block is {block}; it must be a multiple of {made.multiple}, the pixels of "
      "the flow's coarsest places, or 0."
    )
  return _policy(made, float(temperature), block, dequantize)


def _policy(network: Flow, temperature: float, block: int, dequantize: bool) -> Policy:
  def init(key, inputs):
    return network.init(key, inputs["image"])

  def sample(params, inputs, key, num_samples: int) -> Sampled:
    image = inputs["image"]
    height, width = (network.scale * side for side in image.shape[1:3])
    _check_sides(height, width, network)
    shapes = network.shapes(height, width, image.shape[-1])
    keys = jax.random.split(key, len(shapes))
    z = tuple(
      temperature * jax.random.normal(one, (len(image), num_samples, *shape))
      for one, shape in zip(keys, shapes, strict=True)
    )
    picture, log_det = network.decode(params, network.see(params, image), z)
    log_prob_BST = _log_prob(network, Latents(z, log_det), temperature, block)
    return Sampled({"image": picture}, log_prob_BST)

  def score(params, inputs, actions, key=None) -> Scored:
    drawn = isinstance(actions, Mapping)
    picture = actions["image"] if drawn else actions
    _check_sides(*picture.shape[2:4], network)
    if dequantize and key is not None and not drawn:
      picture += (jax.random.uniform(key, picture.shape) - 0.5) / _LEVELS
    seen = network.see(params, inputs["image"])
    latents = network.encode(params, seen, picture)
    log_prob_BST = _log_prob(network, latents, temperature if drawn else 1.0, block)
    numbers = math.prod(picture.shape[2:])
    bits = _LEVELS_IN_BITS - jnp.sum(log_prob_BST, axis=-1) / (numbers * math.log(2))
    outputs = {"drawn_bits" if drawn else "bits": bits, "log_prob": log_prob_BST}
    return Scored(log_prob_BST, jnp.ones_like(log_prob_BST), outputs)

  def best(params, inputs, effort: int = 1):
    image = inputs["image"]
    height, width = (network.scale * side for side in image.shape[1:3])
    # Low resolutions of any size: mirrored until the high one has whole places.
    low = restorer.mirrored(image, max(network.multiple // network.scale, 1))
    sides = (network.scale * side for side in low.shape[1:3])
    shapes = network.shapes(*sides, image.shape[-1])
    z = tuple(jnp.zeros((image.shape[0], 1, *shape)) for shape in shapes)
    picture, _ = network.decode(params, network.see(params, low), z)
    return {"image": picture[:, 0, :height, :width]}

  return Policy(
    *(init, sample, score, best, _entropy, _divergence),
    describe=_describe,
    sequential=False,
    describes_truth=True,
  )


def _check_sides(height: int, width: int, network: Flow) -> None:
  if height % network.multiple or width % network.multiple:
    raise UsageError(
      f"pictures of {height} x {width} pixels: the flow halves them until sides are multiples of "
      f"{network.multiple}; take patches that are."
    )


def _log_prob(network: Flow, latents: Latents, scale: float, block: int) -> Float[Array, "b s t"]:
  """Of a picture whose latents are normal with this scale, by the blocks in which places are."""
  own = list(latents.log_det)
  at = heads.Normal(jnp.zeros(()), jnp.asarray(scale))
  by_height = {x.shape[2]: level for level, x in enumerate(own)}
  for z in latents.z:
    own[by_height[z.shape[2]]] += jnp.sum(heads.normal.log_prob(at, z), axis=-1)
  if not block:
    return sum(jnp.sum(x, axis=(2, 3)) for x in own)[..., None]
  return sum(pictures.by_block(x, block >> (level + 1)) for level, x in enumerate(own))


def _of_expectation(
  values: Float[Array, "b s t"], log_prob: Float[Array, "b s t"]
) -> Float[Array, "b s t"]:
  """The same values, with the gradient of the expectation of their sum over T.

  Answers are drawn from the policy: what an answer is worth pushes its log-density.
  """
  values = jax.lax.stop_gradient(values)
  total = jnp.sum(values, axis=-1, keepdims=True)
  samples = total.shape[1]
  if samples > 1:
    total = (total - jnp.mean(total, axis=1, keepdims=True)) * (samples / (samples - 1))
  term = total * log_prob
  return values + term - jax.lax.stop_gradient(term)


def _entropy(scored: Scored) -> Float[Array, "b s t"]:
  log_prob_BST = scored.outputs["log_prob"]
  return _of_expectation(-log_prob_BST, log_prob_BST)


def _divergence(scored: Scored, reference: Scored) -> Float[Array, "b s t"]:
  log_prob_BST = scored.outputs["log_prob"]
  return _of_expectation(log_prob_BST - reference.outputs["log_prob"], log_prob_BST)


def _describe(scored: Scored) -> dict[str, Float[Array, "b s"]]:
  """Bits for each number of an 8-bit picture; of samples under the distribution they are from."""
  named = {"bits": "bits_per_dim", "drawn_bits": "sample_bits_per_dim"}
  return {name: scored.outputs[key] for key, name in named.items() if key in scored.outputs}
