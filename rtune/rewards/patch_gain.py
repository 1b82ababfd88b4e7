"""What each patch gains in each pass of a restorer that is applied again and again.

Dimension key:
  K: passes
  H, W: height and width of the picture in pixels
  C: channels
  R, Q: rows and columns of patches
  T: decisions: K * R * Q, pass by pass
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.errors import UsageError
from rtune.predictions.images import Original, Passes

_LEAST = 1e-10  # mean square error that counts as none: 100 dB
_LEAST_OF_PATCH = 1e-5  # is added to that of a patch, of which some are flat: 50 dB
_DECIBEL = 10 / math.log(10)
UNITS = ("picture", "patch")


def patch_gain(
  prediction: Passes,
  truth: Original,
  *,
  side: int = 16,
  overlap: int = 4,
  discount: float = 0.0,
  unit: str = "picture",
) -> dict[str, Float[Array, "..."]]:
  """How much nearer to its original the last pass has brought the picture, in dB of PSNR.

  Credit is of each patch in each pass: by how much its pixels came nearer, those that it shares
  with its neighbors among them. What its later passes gain may be added, each less by `discount`.

  Args:
    prediction: passes [K, H, W, C], not clipped; numbers [K, R, Q, ...].
    truth: image [H, W, C], and the picture that the first pass was given, as large.
    side: of patches, as the policy has it; `overlap` likewise.
    discount: of each later pass; 0: a patch answers for its own pass alone.
    unit: of credit. "picture": what the patch adds to the PSNR of the picture, to first order;
      "patch": the gain in the PSNR of the patch by itself, which says less of what the picture
      gains but is known from the patch alone, as a critic wants it.

  Returns:
    reward, credit [T], and gain_1 and so on of each pass.

  Raises:
    UsageError: patches of this size are not those of the policy.
  """
  if not 0 <= discount <= 1:
    raise UsageError(f"patch_gain: discount is {discount}; it must lie between 0 and 1.")
  if unit not in UNITS:
    raise UsageError(f"patch_gain: unit is {unit!r}; it must be one of {UNITS}.")
  rows, columns = prediction.numbers.shape[1:3]
  before = jnp.concatenate([truth.given[None], prediction.passes])
  errors_KHW = jnp.mean((before - truth.image[None]) ** 2, axis=-1)
  errors_KRQ = by_patch(errors_KHW, rows, columns, side, overlap)
  means_K = jnp.maximum(jnp.mean(errors_KHW, axis=(1, 2)), _LEAST)
  if unit == "picture":
    # The level of a picture is no single patch's doing.
    slope_K = jax.lax.stop_gradient(_DECIBEL / means_K[1:])
    gains_KRQ = (errors_KRQ[:-1] - errors_KRQ[1:]) * slope_K[:, None, None]
  else:
    levels_KRQ = _DECIBEL * jnp.log(errors_KRQ + _LEAST_OF_PATCH)
    gains_KRQ = levels_KRQ[:-1] - levels_KRQ[1:]
  credit_KRQ = _returns(gains_KRQ, discount)
  gains_K = _DECIBEL * (jnp.log(means_K[:-1]) - jnp.log(means_K[1:]))
  parts = {f"gain_{number + 1}": gain for number, gain in enumerate(gains_K)}
  return {"reward": jnp.sum(gains_K), "credit": credit_KRQ.reshape(-1), **parts}


def latent_gain(
  prediction: Passes, truth: Original, *, discount: float = 0.0
) -> dict[str, Float[Array, "..."]]:
  """How much nearer the last pass has brought the patches' latents to those of clean patches.

  No original is read: it asks whether a picture looks clean to the autoencoder, not whether it is
  the right one. Credit and `discount` as of `patch_gain`.

  Args:
    prediction: with the distance of latents [K + 1, R, Q], as a policy with groups gives it.

  Raises:
    UsageError: the policy has no groups.
  """
  del truth
  if prediction.distance is None:
    raise UsageError(
      "latent_gain: the policy knows no groups of clean latents; set config.policy.args.groups, "
      "such as to 64."
    )
  gains_KRQ = prediction.distance[:-1] - prediction.distance[1:]
  credit = _returns(gains_KRQ, discount).reshape(-1)
  return {"reward": jnp.sum(jnp.mean(gains_KRQ, axis=(1, 2))), "credit": credit}


def by_patch(
  errors: Float[Array, "k h w"], rows: int, columns: int, side: int, overlap: int
) -> Float[Array, "k r q"]:
  """Means over patches; beyond the border there are no errors.

  Raises:
    UsageError: so many patches do not cover such pictures.
  """
  stride = side - overlap
  height, width = errors.shape[1:]
  reach = [count * stride + overlap for count in (rows, columns)]
  found = [max(1, -(-(length - overlap) // stride)) for length in (height, width)]
  if found != [rows, columns]:
    raise UsageError(
      f"patch_gain: patches of {side} pixels that overlap by {overlap} are not those of the policy;"
      " set config.reward.args.side and .overlap as in config.policy.args."
    )
  errors = jnp.pad(errors, ((0, 0), (0, reach[0] - height), (0, reach[1] - width)))
  kind = (1, side, side), (1, stride, stride), "valid"
  return jax.lax.reduce_window(errors, 0.0, jax.lax.add, *kind) / side**2


def _returns(gains: Float[Array, "k r q"], discount: float) -> Float[Array, "k r q"]:
  """Each pass with its later ones."""
  if not discount:
    return gains
  total, found = jnp.zeros_like(gains[0]), []
  for gain in gains[::-1]:
    total = gain + discount * total
    found.append(total)
  return jnp.stack(found[::-1])
