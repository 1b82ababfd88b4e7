"""What pictures are like by themselves: rewards without a reference. jit, vmap, and gradients.

Nothing here asks whether the picture is right. Tuned alone, the first ends in a flat picture and
the second in noise; add another reward, or a KL term, that holds on to what was given.
`rtune.rewards.codec.file_size` is of this kind, too. With a reference: `rtune.rewards.quality`.

Dimension key:
  H, W: height and width of the picture in pixels
  C: channels, 1 or 3
  T: blocks, row by row
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.errors import UsageError
from rtune.predictions.images import Picture, luma
from rtune.rewards.by_block import Grid, Term, judged
from rtune.rewards.quality import Reward


def total_variation(prediction: Picture, truth: object, *, grid: Grid = None) -> Reward:
  """Mean absolute difference of neighboring pixels, across plus down, negative: 0 is flat.

  Args:
    prediction: image [H, W, C], values in 0..1.
    truth: any.
    grid: blocks for credit: rows and columns, or the pixels of a side. A difference belongs to its
      upper or left pixel.
  """
  image = prediction.image
  height, width = _checked("total_variation", image, 2)
  # The last pixel of a side has no neighbor there.
  down = jnp.pad(jnp.abs(image[1:] - image[:-1]), ((0, 1), (0, 0), (0, 0)))
  across = jnp.pad(jnp.abs(image[:, 1:] - image[:, :-1]), ((0, 0), (0, 1), (0, 0)))
  scale = height / (height - 1), width / (width - 1)
  values_HW = -jnp.mean(scale[0] * down + scale[1] * across, axis=-1)
  return judged(jnp.mean(values_HW), [Term(values_HW)], grid, height, width)


def sharpness(prediction: Picture, truth: object, *, grid: Grid = None) -> Reward:
  """Variance of the Laplacian of luma, with values in 0..255, in thousands (Pech-Pacheco 2000).

  Higher is sharper, or noisier: it cannot tell.

  Args:
    prediction: image [H, W, C], values in 0..1.
    truth: any.
    grid: blocks for credit: rows and columns, or the pixels of a side.
  """
  height, width = _checked("sharpness", prediction.image, 3)
  image = 255 * luma(prediction.image)
  middle = image[1:-1, 1:-1]
  around = image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]
  laplacian = around - 4 * middle
  values = (laplacian - jnp.mean(laplacian)) ** 2 / 1000
  term = Term(values, 1.0, (1, height - 1), (1, width - 1))
  return judged(jnp.mean(values), [term], grid, height, width)


def _checked(who: str, image: Float[Array, "h w c"], least: int) -> tuple[int, int]:
  height, width = image.shape[:2]
  if min(height, width) < least:
    raise UsageError(f"{who}: a picture of {height} x {width} pixels is below {least} x {least}.")
  return height, width
