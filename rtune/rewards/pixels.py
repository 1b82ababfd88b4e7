"""Rewards of predicted pictures: pure functions of one prediction and its truth. jit, vmap.

Dimension key:
  H, W: height and width of the model's input in pixels
  K: bins of hue
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.errors import UsageError
from rtune.predictions import lab
from rtune.predictions.pixels import Pixels

_NO_HUE = 1e-4  # a^2 + b^2 of gray is up to 3e-5, by the digits of its white point


def colorfulness(
  prediction: Pixels,
  truth: Pixels,
  *,
  threshold: float = 10.0,
  bins: int = 7,
  half_circle: bool = False,
  vivid_only: bool = True,
) -> dict[str, Float[Array, ""]]:
  """Share of vivid pixels times entropy of hue, in CIE Lab (2302.08242, section on colorization).

  The first discourages gray, the second one color for all. The most there is are ln(bins) nats,
  1.946 for seven. The truth does not matter. What the paper leaves open are options:

  Args:
    prediction: rgb [H, W, 3].
    truth: any.
    threshold: a pixel is vivid if a^2 + b^2 exceeds it.
    bins: equal intervals of hue, the first from -180 degrees on.
    half_circle: hue is arctan(b / a), so that opposite colors such as red and cyan are alike; by
      default the whole circle, as all other uses of hue have it.
    vivid_only: count the hue of vivid pixels only; by default, because the others have none to
      speak of, and the noise in it would be rewarded. Without it pixels that are quite gray count
      as hue 0.

  Returns:
    reward, and its factors: vivid (share of pixels) and hue_entropy (nats; 0 if nothing is vivid).
  """
  if bins < 2:
    raise UsageError(f"config.reward.args.bins is {bins}; of hue there must be at least 2.")
  lab_HW3 = lab.lab(prediction.rgb)
  a_HW, b_HW = lab_HW3[..., 1], lab_HW3[..., 2]
  strength_HW = a_HW * a_HW + b_HW * b_HW
  vivid_HW = strength_HW > threshold
  has_hue_HW = strength_HW > _NO_HUE
  hue_HW = jnp.arctan2(jnp.where(has_hue_HW, b_HW, 0.0), jnp.where(has_hue_HW, a_HW, 1.0))
  turns_HW = hue_HW / jnp.pi if half_circle else hue_HW / (2 * jnp.pi)
  # Half a circle has its ends at 90 degrees, a whole one at 180; at the end begins the first bin.
  bin_HW = jnp.floor((turns_HW + 0.5) * bins).astype(jnp.int32) % bins
  counted_HW = vivid_HW if vivid_only else jnp.ones_like(vivid_HW)
  in_bin_HWK = (bin_HW[..., None] == jnp.arange(bins)[None, None]) & counted_HW[..., None]
  count_K = jnp.sum(in_bin_HWK, axis=(0, 1))
  share_K = count_K / jnp.maximum(jnp.sum(count_K), 1)
  entropy = -jnp.sum(share_K * jnp.log(jnp.where(count_K > 0, share_K, 1.0)))
  vivid = jnp.mean(vivid_HW.astype(jnp.float32))
  return {"reward": vivid * entropy, "vivid": vivid, "hue_entropy": entropy}
