"""What the policies over pictures share: their network, and decisions by place.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  Y, X: height and width of the restored picture
  T: blocks of a grid, row by row
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune import config as configs
from rtune.config import build, names
from rtune.errors import UsageError

PATH = "config.policy.args"
RDUNET = configs.Part("rtune.models.rdunet:rdunet")


def network_of(network: Mapping[str, Any] | configs.Part, kind: type, channels: int) -> Any:
  """What a Part names, for so many channels.

  Args:
    kind: what it must be, such as a `Restorer`.

  Raises:
    UsageError: it cannot be made, or is something else.
  """
  part = build.as_kind(configs.Part, network, f"{PATH}.network")
  make = names.resolve(part.fn)
  names.check_args(make, part.args, "policy.args.network", given=1)
  made = make(channels, **{key: names.as_tuples(value) for key, value in part.args.items()})
  if not isinstance(made, kind):
    raise UsageError(
      f"{PATH}.network.fn: {part.fn} returned {type(made).__name__}; it must return a "
      f"{kind.__name__} of {kind.__module__}."
    )
  return made


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
