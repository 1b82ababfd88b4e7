"""What is reported: the official number, computed on the host from one image at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int


class Confusion(NamedTuple):
  """How often each class was taken for each.

  Attributes:
    classes: names.
    counts: rows are the truth, columns the prediction.
  """

  classes: Sequence[str]
  counts: Int[np.ndarray, "c c"]


class Metric(NamedTuple):
  """A streaming metric as a record of functions.

  Attributes:
    init: () -> state.
    update: (state, prediction of one image, its truth) -> state.
    compute: state -> {name: value}. Processes may concatenate their states before it.
    details: state -> {name of a class: value}, where the metric has classes.
    results: state -> the predictions as the official scorer's results file has them.
    files: the prediction of one image -> {file name: picture [H, W, 3], or map [H, W]}, where
      `results` alone do not say it all. They belong into a folder beside the results, of the same
      name.
    confusion: state -> which classes are taken for which, where each thing has just one.
  """

  init: Callable[[], list]
  update: Callable[[list, Mapping[str, Any], Mapping[str, Any]], list]
  compute: Callable[[list], dict[str, float]]
  details: Callable[[list], dict[str, float]] | None = None
  results: Callable[[list], Any] | None = None
  files: Callable[[Mapping[str, Any]], dict[str, np.ndarray]] | None = None
  confusion: Callable[[list], Confusion] | None = None
