"""How near restored pictures are to their originals: pure functions of one picture and its truth.

All have a reference: `psnr`, `negative_l1`, `negative_l2` here, `ssim`, `ms_ssim`, `gmsd` in
`rtune.rewards.structure`, `lpips` in `rtune.rewards.lpips` and `coded` in `rtune.rewards.codec` the
original; `consistency` what the model was given. Those without any are in `rtune.rewards.blind`.
They say what a picture is like, not what it should be like, and nothing but another reward keeps a
model from inventing it.

jit, vmap, and gradients by the picture. With `grid` they give `credit` by block
(`rtune.rewards.by_block`), whose mean is the reward.

Dimension key:
  H, W: height and width of the restored picture in pixels
  Y, X: those of what the model was given
  C: channels, 1 or 3
  T: blocks, row by row
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from rtune.data import resize
from rtune.errors import UsageError
from rtune.predictions.images import Original, Picture, eight_bits, studio_luma
from rtune.rewards.by_block import Grid, Span, Term, judged

Reward = dict[str, Float[Array, "..."]]

_LEAST = 1e-10  # mean square error that counts as none: 100 dB
_DECIBEL = 10 / math.log(10)


def psnr(
  prediction: Picture,
  truth: Picture | Original,
  *,
  eight_bit: bool = True,
  luma: bool = False,
  border: int = 0,
  grid: Grid = None,
) -> Reward:
  """Peak signal-to-noise ratio in dB; 100 at most, which equal pictures have.

  Args:
    prediction: image [H, W, C].
    truth: image [H, W, C].
    eight_bit: of pictures as files hold them, clipped and rounded; else as they are. The gradient
      passes the rounding.
    luma: on Y alone, as papers on super-resolution have it (`studio_luma`).
    border: pixels at each side that do not count; those papers leave out as many as the scale.
    grid: blocks for credit: rows and columns, or the pixels of a side.
  """
  made, wanted = images_of(prediction, truth)
  height, width = made.shape[:2]
  if not 0 <= 2 * border < min(height, width):
    raise UsageError(
      f"psnr: border is {border}, which leaves nothing of a picture of {height} x {width} pixels."
    )
  if eight_bit:
    made, wanted = eight_bits(made), eight_bits(wanted)
  if luma:
    made, wanted = studio_luma(made)[..., None], studio_luma(wanted)[..., None]
  error_HW = jnp.mean((made - wanted) ** 2, axis=-1)[
    border : height - border, border : width - border
  ]
  return _in_decibels(
    error_HW, grid, height, width, (border, height - border), (border, width - border)
  )


def negative_l1(prediction: Picture, truth: Picture | Original, *, grid: Grid = None) -> Reward:
  """Mean absolute error of values in 0..1, negative. Pictures [H, W, C]."""
  made, wanted = images_of(prediction, truth)
  return _mean_of(-jnp.abs(made - wanted), grid)


def negative_l2(prediction: Picture, truth: Picture | Original, *, grid: Grid = None) -> Reward:
  """Mean square error of values in 0..1, negative. Pictures [H, W, C]."""
  made, wanted = images_of(prediction, truth)
  return _mean_of(-((made - wanted) ** 2), grid)


def consistency(
  prediction: Picture,
  truth: Picture | Original,
  *,
  kind: str = "matlab",
  eight_bit: bool = True,
  grid: Grid = None,
) -> Reward:
  """PSNR in dB between what the model was given and the picture scaled down to it ("LR-PSNR").

  What a lower resolution shows is known, and a picture that is invented otherwise still has to show
  it. SRFlow (2006.14200) has 45 dB and more. The original does not matter.

  Args:
    prediction: image [H, W, C].
    truth: an `Original`, of which `given` [Y, X, C] is read. H / Y = W / X is the scale, a whole
      number above 1.
    kind: how the picture is scaled down: "matlab" or "pillow", both bicubic (`rtune.data.resize`).
    eight_bit: clip and round the smaller picture, as files are; the gradient passes rounding.
    grid: blocks for credit: rows and columns, or the pixels of a side.

  Raises:
    UsageError: the truth does not say what was given, or it is no smaller picture.
  """
  if not isinstance(truth, Original):
    raise UsageError(
      "consistency needs the picture of lower resolution: a task whose `truth` gives"
      " rtune.predictions.images.Original."
    )
  height, width, channels = prediction.image.shape
  low_height, low_width, given_channels = truth.given.shape
  scale = height // low_height
  sizes = (low_height * scale, low_width * scale, given_channels)
  if scale < 2 or sizes != (height, width, channels):
    raise UsageError(
      f"consistency: a picture of {(height, width, channels)} was made of one of"
      f" {tuple(truth.given.shape)}; sides must be 2 or more times as long, equal channels."
    )
  low = jnp.einsum(
    *("yh,hwc,xw->yxc", _downscaling(height, low_height, kind), prediction.image),
    _downscaling(width, low_width, kind),
    precision=jax.lax.Precision.HIGHEST,
  )
  low = eight_bits(low) if eight_bit else low
  return _in_decibels(jnp.mean((low - truth.given) ** 2, axis=-1), grid, height, width)


def images_of(
  prediction: Picture, truth: Picture | Original
) -> tuple[Float[Array, "h w c"], Float[Array, "h w c"]]:
  """Both images; UsageError if they are not equally large."""
  if prediction.image.shape != truth.image.shape:
    raise UsageError(
      f"A picture of {tuple(prediction.image.shape)} is compared with one of"
      f" {tuple(truth.image.shape)} (height, width, channels); they must be equal."
    )
  return prediction.image, truth.image


def _mean_of(values_HWC: Float[Array, "h w c"], grid: Grid) -> Reward:
  values_HW = jnp.mean(values_HWC, axis=-1)
  return judged(jnp.mean(values_HW), [Term(values_HW)], grid, *values_HW.shape)


def _in_decibels(
  error_YX: Float[Array, "y x"],
  grid: Grid,
  height: int,
  width: int,
  rows: Span | None = None,
  columns: Span | None = None,
) -> Reward:
  """PSNR of a map of square errors of values in 0..1.

  That of the whole picture is in the credit of each block, but to first order it cancels: where a
  block's error is like the mean, the credit of siblings differs by this block's error alone.
  """
  error = jnp.maximum(jnp.mean(error_YX), _LEAST)
  return judged(
    -_DECIBEL * jnp.log(error),
    [Term(error_YX, -_DECIBEL / error, rows, columns)],
    grid,
    height,
    width,
  )


def _downscaling(length: int, new: int, kind: str) -> Float32[np.ndarray, "{new} {length}"]:
  """One side's weights, read off what becomes of single pixels."""
  if kind not in ("matlab", "pillow"):
    raise UsageError(f"consistency: kind is {kind!r}; it must be 'matlab' or 'pillow'.")
  single = np.eye(length, dtype=np.float32)[..., None]
  return resize.bicubic(single, new, length, kind)[..., 0]
