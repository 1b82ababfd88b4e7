"""A policy over label maps: a class for each pixel, each drawn by itself.

The network sees an image once, whatever the number of samples, and all of them share its logits.
Nothing of B x S x H x W x K numbers is ever made: samples are compared with classes one class at a
time.

Dimension key:
  B: batch of images
  S: samples for each image
  H, W: height and width in pixels
  T: pixels, row by row
  K: classes
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rtune import config as configs
from rtune.config import build
from rtune.errors import UsageError
from rtune.models.dense import Dense
from rtune.policies import heads, windows
from rtune.policies.networks import PATH, network_of
from rtune.policies.policy import Policy, Sampled, Scored
from rtune.policies.space import Labels

UNET = configs.Part("rtune.models.unet:unet")


def labels(
  space: Labels,
  *,
  network: Mapping[str, Any] | configs.Part = UNET,
  window: Sequence[int] = (),
  stride: Sequence[int] = (),
) -> Policy:
  """The policy of a network that gives logits for each pixel.

  Its inputs are {"image": uint8 [B, H, W, 3], "ignored": bool [B, H, W]}. A pixel that is ignored
  is class 0 in every sample, with log-probability 0 and mask 0; `best` says what it would say there
  too, for those who look at it. Outputs are {"logits": [B, 1, H, W, K]} and, where the network has
  it, "auxiliary": one for all samples of an image, hence the 1.

  Args:
    network: a function of the number of classes that returns a `Dense`, with its arguments.
    window: height and width in pixels; an image that is larger in either is seen through windows
      of this size, one after the other, and where they overlap their logits are averaged. (): an
      image is always seen as a whole.
    stride: rows and columns between windows; (): two thirds of the window. The last ones end where
      the image does.

  Raises:
    UsageError: the network cannot be made, or windows leave gaps.
  """
  window, stride = _windows(window, stride)
  seen = network_of(network, Dense, space.classes)
  return independent(windows.windowed(seen, window, stride) if window else seen)


def independent(network: Dense) -> Policy:
  """The policy of a network over label maps; see `labels`."""

  def init(key, inputs):
    return network.init(key, inputs["image"])

  def sample(params, inputs, key, num_samples: int) -> Sampled:
    logits_BHWK = network.apply(params, inputs["image"])["logits"]
    ignored_B1HW = inputs["ignored"][:, None]
    labels_SBHW = drawn(key, logits_BHWK, num_samples)
    labels_BSHW = jnp.where(ignored_B1HW, 0, jnp.swapaxes(labels_SBHW, 0, 1))
    return Sampled(labels_BSHW, _log_prob(logits_BHWK, labels_BSHW, ignored_B1HW))

  def score(params, inputs, actions, key=None) -> Scored:
    outputs = network.apply(params, inputs["image"], key)
    ignored_B1HW = inputs["ignored"][:, None]
    log_prob_BST = _log_prob(outputs["logits"], actions, ignored_B1HW)
    mask_BST = jnp.broadcast_to(~ignored_B1HW, actions.shape).reshape(log_prob_BST.shape)
    outputs = {name: x_BHWK[:, None] for name, x_BHWK in outputs.items()}
    return Scored(log_prob_BST, mask_BST.astype(jnp.float32), outputs)

  def best(params, inputs, effort: int = 1):
    logits_BHWK = network.apply(params, inputs["image"])["logits"]
    return heads.categorical.mode(logits_BHWK).astype(jnp.int32)

  return Policy(init, sample, score, best, entropy=_entropy, divergence=_kl, sequential=False)


def drawn(key: Array, logits: Float[Array, "b h w k"], samples: int) -> Int[Array, "s b h w"]:
  """What `heads.categorical.sample` draws, the same labels, with one class after the other.

  On one core 13 classes take 0.4 of its time and 150 a twelfth, and no array has all classes of all
  samples.
  """
  shares_KBHW = jnp.moveaxis(jax.nn.softmax(logits), -1, 0)
  never = jnp.zeros(logits.shape[:-1])
  groups = range(len(heads.RARE), -1, -1)  # the rarest classes come first, see there

  def further(cdfs, share_BHW):
    level = sum((share_BHW < least).astype(jnp.int32) for least in heads.RARE)
    pairs = zip(groups, cdfs, strict=True)
    return tuple(cdf + jnp.where(level == group, share_BHW, 0.0) for group, cdf in pairs)

  def end(starts):
    return jax.lax.scan(lambda cdfs, share: (further(cdfs, share), None), starts, shares_KBHW)[0]

  # A group starts where the one before it ends; each turn gives one more of them its start.
  starts = ends = (never,) * len(groups)
  for _ in groups:
    starts, ends = (never, *ends[:-1]), end((never, *ends[:-1]))
  number_SBHW = heads.fine_uniform(key, (samples, *never.shape)) * ends[-1][None]
  before = [number_SBHW < end_BHW[None] for end_BHW in ends[:-1]]

  def passed(carry, share_BHW):
    cdfs, labels_SBHW = carry
    cdfs = further(cdfs, share_BHW)
    # The CDF of the group that the number falls into.
    cdf_SBHW = cdfs[-1][None]
    for is_before, cdf in zip(reversed(before), reversed(cdfs[:-1]), strict=True):
      cdf_SBHW = jnp.where(is_before, cdf[None], cdf_SBHW)
    return (cdfs, labels_SBHW + (cdf_SBHW <= number_SBHW).astype(jnp.int32)), None

  first = starts, jnp.zeros(number_SBHW.shape, jnp.int32)
  return jax.lax.scan(passed, first, shares_KBHW)[0][1]


def _log_prob(
  logits: Float[Array, "b h w k"], labels: Int[Array, "b s h w"], ignored: Bool[Array, "b 1 h w"]
) -> Float[Array, "b s t"]:
  """Of the class of each pixel; 0 where it is ignored, whatever its label."""
  log_prob_BSHW = heads.categorical.log_prob(logits[:, None], labels)
  return jnp.where(ignored, 0.0, log_prob_BSHW).reshape(*labels.shape[:2], -1)


def _entropy(scored: Scored) -> Float[Array, "b s t"]:
  return _of_samples(heads.categorical.entropy(scored.outputs["logits"]), scored)


def _kl(scored: Scored, reference: Scored) -> Float[Array, "b s t"]:
  logits, others = (x.outputs["logits"] for x in (scored, reference))
  return _of_samples(heads.categorical.kl(logits, others), scored)


def _of_samples(values_B1HW: Float[Array, "b 1 h w"], scored: Scored) -> Float[Array, "b s t"]:
  """What samples of an image have in common, said of each of them."""
  batch, samples, pixels = scored.mask.shape
  return jnp.broadcast_to(values_B1HW.reshape(batch, 1, pixels), (batch, samples, pixels))


def _windows(window: Sequence[int], stride: Sequence[int]) -> tuple[tuple[int, ...], ...]:
  """Both as pairs, checked; (), () for no windows."""
  given = {"window": window, "stride": stride}
  pairs = {k: build.as_kind(tuple[int, ...], v, f"{PATH}.{k}") for k, v in given.items()}
  for name, pair in pairs.items():
    if pair and (len(pair) != 2 or min(pair) < 1):
      raise UsageError(f"{PATH}.{name} is {pair}; give height and width in pixels, or ().")
  window, stride = pairs["window"], pairs["stride"]
  if stride and not window:
    raise UsageError(f"{PATH}.stride is {stride}, but there is no {PATH}.window; give both.")
  stride = stride or tuple(-(-2 * side // 3) for side in window)
  if any(step > side for step, side in zip(stride, window, strict=True)):
    raise UsageError(
      f"{PATH}.stride={stride} is larger than {PATH}.window={window}: pixels between windows "
      "would not be seen."
    )
  return window, stride
