"""What one call of a host reward has returned or raised; without jax, since workers read it too."""

import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from rtune.errors import UsageError

CREDIT = "credit"  # what a reward says of each decision


def check_keys(parts: Mapping[Any, Any], name: str) -> None:
  """UsageError for a part of a reward whose name is no text: the log could not hold it."""
  for key in parts:
    if not isinstance(key, str):
      raise UsageError(f"{name} returned a part named {key!r}; names of parts are text.")


def parts_of(result: Any, name: str) -> dict[str, np.ndarray]:
  """One result of the reward `name` as float64: scalars, of credit [T]; {} where it gives none.

  Raises:
    UsageError: the result is not what a reward may return.
  """
  if result is None:
    return {}
  parts = dict(result) if isinstance(result, Mapping) else {"reward": result}
  if "reward" not in parts:
    raise UsageError(f"{name} returned a dict without 'reward'; its keys are {list(parts)}.")
  check_keys(parts, name)
  given = {k: v for k, v in parts.items() if k != CREDIT or v is not None}
  return {key: _numbers(key, value, name) for key, value in given.items()}


def _numbers(key: str, value: Any, name: str) -> np.ndarray:
  """A scalar; of credit [T]."""
  if value is None:
    return np.full((), np.nan)
  try:
    array = np.asarray(value, np.float64)
  except (TypeError, ValueError):
    array = None
  if key == CREDIT and array is not None and array.ndim == 1:
    return array
  if array is None or array.size != 1 or key == CREDIT:
    shape = getattr(array, "shape", None)
    said = f"shape {shape}" if shape else repr(value)[:80]
    must = "one number for each decision" if key == CREDIT else "one number for one prediction"
    raise UsageError(f"{name} must return {must}; its {key!r} is {said}.")
  return array.reshape(())


def user_traceback(error: BaseException, caller: str) -> str:
  """The traceback of a reward's error without the frames of the file `caller`, which called it."""
  frames = traceback.extract_tb(error.__traceback__)
  own = [frame for frame in frames if frame.filename != caller]
  lines = traceback.format_list(own) + traceback.format_exception_only(error)
  return "".join(lines)
