"""What the policies over pictures share: checks of settings, and decisions by place.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  Y, X: height and width of the restored picture
  T: blocks of a grid, row by row
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune import config as configs
from rtune.errors import UsageError
from rtune.policies.networks import PATH

RDUNET = configs.Part("rtune.models.rdunet:rdunet")


def check_least(bound: int | float, /, **values: int | float) -> None:
  """UsageError for the first setting below `bound`."""
  for name, value in values.items():
    if value < bound:
      raise UsageError(f"{PATH}.{name} is {value}; it must be at least {bound}.")


def check_above(bound: int | float, /, **values: int | float) -> None:
  """UsageError for the first setting that is not above `bound`."""
  for name, value in values.items():
    if not value > bound:
      raise UsageError(f"{PATH}.{name} is {value}; it must be above {bound}.")


def check_choice(choices: tuple[str, ...], **values: str) -> None:
  """UsageError for the first setting that is none of the choices."""
  for name, value in values.items():
    if value not in choices:
      raise UsageError(f"{PATH}.{name} is {value!r}; it must be one of {choices}.")


def drawn(
  key: Array, mean: Float[Array, "b h w k"], samples: int, antithetic: bool
) -> Float[Array, "b s h w k"]:
  """Standard normal numbers; antithetic: sample 2i + 1 has those of sample 2i, negated."""
  batch, *rest = mean.shape
  if not antithetic:
    return jax.random.normal(key, (batch, samples, *rest))
  pairs = (samples + 1) // 2
  noise = jax.random.normal(key, (batch, pairs, *rest))
  both = jnp.stack([noise, -noise], axis=2)
  return both.reshape(batch, 2 * pairs, *rest)[:, :samples]


def grid(height: int, width: int, block: int) -> tuple[int, int]:
  """Rows and columns of blocks; the last ones may reach beyond the picture."""
  return -(-height // block), -(-width // block)


def by_block(values: Float[Array, "b s y x"], block: int) -> Float[Array, "b s t"]:
  """Sums over blocks of block x block places."""
  batch, samples, height, width = values.shape
  rows, columns = grid(height, width, block)
  below, right = rows * block - height, columns * block - width
  values = jnp.pad(values, ((0, 0), (0, 0), (0, below), (0, right)))
  parts = values.reshape(batch, samples, rows, block, columns, block)
  return jnp.sum(parts, axis=(3, 5)).reshape(batch, samples, rows * columns)
