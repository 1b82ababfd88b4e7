"""The mark of rewards in plain Python: `@on_host`."""

import dataclasses
from collections.abc import Callable

_MARK = "_rtune_on_host"


@dataclasses.dataclass(frozen=True)
class HostOptions:
  """How a host reward wants to be called."""

  batched: bool  # with lists of all predictions and truths instead of one of each


def on_host(fn: Callable | None = None, *, batched: bool = False) -> Callable:
  """Marks a reward as numpy or Python code.

  It is called with one prediction and its truth, as numpy arrays, and returns a number, a dict with
  "reward" and parts to log, or None where it has no opinion. With `batched=True` it is called once
  with lists of N predictions and N truths, and returns N of these.
  """

  def mark(function: Callable) -> Callable:
    setattr(function, _MARK, HostOptions(batched))
    return function

  return mark if fn is None else mark(fn)


def host_options(fn: Callable) -> HostOptions | None:
  """The options of a marked reward, None for a device reward."""
  return getattr(fn, _MARK, None)
