"""Corruptions one after the other, as a config names them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rtune.config import names
from rtune.data.corrupt import Noisy, Picture, as_noisy
from rtune.errors import DataError, UsageError

_TRIAL = 240  # side of a picture that most scales divide


class Chain(NamedTuple):
  """What is done to clean pictures.

  Attributes:
    apply: (picture float32 [H, W, C], rng) -> the corrupted one, with the level of all noise that
      was added: the root of the sum of variances, whatever came after it.
    scale: how many times smaller the result is.
  """

  apply: Callable[[Picture, np.random.Generator], Noisy]
  scale: int


def chain(steps: Sequence[Mapping[str, Any]], path: str = "task.args.corruptions") -> Chain:
  """Names of functions, such as those of `rtune.data.corrupt`, with their arguments.

  All are tried once on a gray picture, so that what cannot work fails before any data are read.

  Args:
    steps: as {"fn": "rtune.data.corrupt:gaussian", "args": {"sigma": [5, 50]}}; (): none.
    path: where they stand in the config, for messages.

  Raises:
    UsageError: a name, an argument or a strength that makes no sense, or a size that does not
      follow from that of the clean picture.
  """
  built = [_step(step, f"{path}[{place}]") for place, step in enumerate(steps)]

  def apply(image: Picture, rng: np.random.Generator) -> Noisy:
    variance = 0.0
    for corrupt, args in built:
      image, level = as_noisy(corrupt(image, rng, **args))
      variance += level**2
    return Noisy(image, variance**0.5)

  return Chain(apply, _scale(apply, path))


def _step(step: Mapping[str, Any], path: str) -> tuple[Callable, dict[str, Any]]:
  if not isinstance(step, Mapping) or not step.get("fn") or not set(step) <= {"fn", "args"}:
    raise UsageError(f"config.{path} is {step!r}; write {{'fn': ..., 'args': {{...}}}}.")
  fn, args = names.resolve(step["fn"]), dict(step.get("args", {}))
  names.check_args(fn, args, path, given=2)
  return fn, {key: names.as_tuples(value) for key, value in args.items()}


def _scale(apply: Callable[..., Noisy], path: str) -> int:
  """How many times smaller a picture becomes."""
  trial = np.full((_TRIAL, _TRIAL, 3), 0.5, np.float32)
  try:
    height, width, channels = apply(trial, np.random.default_rng(0)).image.shape
  except DataError as error:
    raise UsageError(f"config.{path}: {error}") from error
  if height != width or channels != 3 or _TRIAL % height:
    raise UsageError(
      f"config.{path} makes {width} x {height} x {channels} of {_TRIAL} x {_TRIAL} x 3; the result"
      " must be a whole number of times smaller."
    )
  return _TRIAL // height
