"""What a recursive restorer does to all patches of a picture in one pass, and what its agent sees.

A patch is encoded, its latent goes a step towards what the transform says a clean patch has, it is
decoded, mixed with what it was, and blended with its neighbors. The agent chooses the step and the
mix, or as published the multipliers of the transform's weights.

Dimension key:
  N: pictures: images, or images times samples
  H, W: height and width in pixels
  C: channels; inside Y, U, V of three
  R, Q: rows and columns of patches
  D: pixels of a patch
  L: numbers of a latent
  A: numbers that are chosen for a patch: 2 * C, or 3 * L * C
  F: features of a patch that the agent sees: 2 * L * C + C + 1
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rtune.models import blend
from rtune.models.patch_autoencoder import LAYERS, PatchAutoencoder

# Rec. 601, as the published code has it by skimage.color.rgb2yuv.
_TO_YUV = np.array(
  [
    [0.299, 0.587, 0.114],
    [-0.14714119, -0.28886916, 0.43601035],
    [0.61497538, -0.51496512, -0.10001026],
  ],
  np.float32,
)
_FROM_YUV = np.linalg.inv(_TO_YUV.astype(np.float64)).astype(np.float32)
_TENTHS = 10.0  # noise is seen in tenths of white
_PASSES = 4.0  # and the number of the pass in parts of four


class Setting(NamedTuple):
  """What a pass is made of.

  Attributes:
    side: of a patch in pixels.
    overlap: pixels that neighbors share.
    reach: how far chosen numbers go: of the step around 1 and of the mix around 0, or of
      multipliers around 1.
    multipliers: the agent multiplies the weights of the transform instead.
    done_at: a patch whose mix is above this is done.
  """

  side: int
  overlap: int
  reach: float
  multipliers: bool
  done_at: float


class Seen(NamedTuple):
  """A picture before a pass.

  Attributes:
    patches: [N, R, Q, C, D].
    latents: [N, R, Q, C, L].
    toward: of the clean patches, as the transform has them.
    state: what the agent sees [N, R, Q, F].
  """

  patches: Float[Array, "n r q c d"]
  latents: Float[Array, "n r q c l"]
  toward: Float[Array, "n r q c l"]
  state: Float[Array, "n r q f"]


class Made(NamedTuple):
  """A picture after a pass.

  Attributes:
    image: [N, H, W, C].
    numbers: what was done to each patch: (step, mix) of each channel in turn, or the mean
      multiplier of each channel.
    done: patches that stay as they are from now on.
  """

  image: Float[Array, "n h w c"]
  numbers: Float[Array, "n r q k"]
  done: Bool[Array, "n r q"]


def numbers_of(setting: Setting, channels: int, latent: int) -> int:
  """A: how many numbers the agent chooses for a patch."""
  return channels * (LAYERS * latent if setting.multipliers else 2)


def features_of(channels: int, latent: int) -> int:
  """F: how many features of a patch the agent sees."""
  return channels * (2 * latent + 1) + 1


def grid_of(setting: Setting, image: Float[Array, "n h w c"]) -> blend.Grid:
  """How a picture is cut."""
  return blend.grid(*image.shape[1:3], setting.side, setting.overlap)


def patches_of(setting: Setting, image: Float[Array, "n h w c"]) -> Float[Array, "n r q c d"]:
  """The patches of a picture, of three channels as Y, U, V."""
  cut = blend.cut(_yuv(image, _TO_YUV), grid_of(setting, image))
  patches = jnp.moveaxis(cut, -1, 3)
  return patches.reshape(*patches.shape[:4], -1)


def picture_of(
  setting: Setting, patches: Float[Array, "n r q c d"], height: int, width: int
) -> Float[Array, "n h w c"]:
  """The picture of patches, blended."""
  batch, rows, columns, channels, _ = patches.shape
  grid = blend.Grid(rows, columns, setting.side, setting.overlap)
  square = patches.reshape(batch, rows, columns, channels, setting.side, setting.side)
  image = blend.blended(jnp.moveaxis(square, 3, -1), grid, height, width)
  return _yuv(image, _FROM_YUV)


def see(
  setting: Setting,
  model: PatchAutoencoder,
  params: Any,
  image: Float[Array, "n h w c"],
  number: int,
) -> Seen:
  """The picture before pass `number`, 0 the first."""
  patches = patches_of(setting, image)
  latents = model.encode(params, patches).mean
  toward = model.transform(params, latents)
  level = _TENTHS * noise(patches, setting.side)
  parts = (latents, toward - latents, level[..., None])
  flat = [x.reshape(*x.shape[:3], -1) for x in parts]
  turn = jnp.full((*patches.shape[:3], 1), number / _PASSES)
  return Seen(patches, latents, toward, jnp.concatenate([*flat, turn], axis=-1))


def go(
  setting: Setting,
  model: PatchAutoencoder,
  params: Any,
  seen: Seen,
  choices: Float[Array, "n r q a"],
  done: Bool[Array, "n r q"],
  size: tuple[int, int],
) -> Made:
  """One pass.

  Args:
    choices: before they are squashed; 0 is what the autoencoder and its transform do by themselves.
    done: patches that stay as they are.
    size: height and width of the picture.
  """
  channels = seen.patches.shape[3]
  chosen = setting.reach * jnp.tanh(choices.reshape(*choices.shape[:3], channels, -1))
  if setting.multipliers:
    toward = model.transform(params, seen.latents, 1 + chosen)
    mix = jnp.zeros_like(chosen[..., :1])
    numbers = 1 + jnp.mean(chosen, axis=-1)
  else:
    step, mix = 1 + chosen[..., :1], chosen[..., 1:]
    toward = seen.latents + step * (seen.toward - seen.latents)
    numbers = jnp.concatenate([step, mix], axis=-1)
    numbers = numbers.reshape(*choices.shape[:3], -1)
  done = done | _ends(setting, mix[..., 0])
  made = model.decode(params, toward)
  mixed = made + mix * (seen.patches - made)
  patches = jnp.where(done[..., None, None], seen.patches, mixed)
  return Made(picture_of(setting, patches, *size), numbers, done)


def done_before(
  setting: Setting, choices: Float[Array, "b s k r q a"], channels: int
) -> Bool[Array, "b s k r q"]:
  """Which patches were done before each pass of those with these choices."""
  if setting.multipliers:
    return jnp.zeros(choices.shape[:-1], bool)
  mix = setting.reach * jnp.tanh(choices.reshape(*choices.shape[:-1], channels, 2)[..., 1])
  ended = jax.lax.cummax(_ends(setting, mix).astype(jnp.int32), axis=2) > 0
  return jnp.concatenate([jnp.zeros_like(ended[:, :, :1]), ended[:, :, :-1]], axis=2)


def _ends(setting: Setting, mix: Float[Array, "*n c"]) -> Bool[Array, "*n"]:
  """Whether a patch is left as it is: in all of its channels."""
  return jnp.all(mix > setting.done_at, axis=-1)


def distance(
  model: PatchAutoencoder, params: Any, latents: Float[Array, "n r q c l"]
) -> Float[Array, "n r q"]:
  """Mean squared distance of latents from the nearest centers of clean ones."""
  return jnp.mean((latents - model.nearest(params, latents)) ** 2, axis=(-1, -2))


def noise(patches: Float[Array, "n r q c d"], side: int) -> Float[Array, "n r q c"]:
  """Standard deviation of the noise of each patch (Immerkaer 1996): a mask that is blind to planes.

  Texture counts too.
  """
  x = patches.reshape(*patches.shape[:4], side, side)
  for axis in (-1, -2):
    left, middle, right = (
      jax.lax.slice_in_dim(x, at, x.shape[axis] - 2 + at, axis=axis) for at in range(3)
    )
    x = left - 2 * middle + right
  return math.sqrt(math.pi / 2) / 6 * jnp.mean(jnp.abs(x), axis=(-1, -2))


def _yuv(image: Float[Array, "n h w c"], matrix: np.ndarray) -> Float[Array, "n h w c"]:
  """Another three channels; of one it stays as it is."""
  if image.shape[-1] == 1:
    return image
  return jnp.einsum("nhwc,kc->nhwk", image, matrix, precision=jax.lax.Precision.HIGHEST)
