"""What the loop watches: updates that were not applied, and samples that are copies of others.

A few updates are left out; too many in a row end the run.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from rtune.display import console
from rtune.errors import NumericError

_COUNTS = {
  "skipped_in_a_row": (
    "updates were not finite and were left out",
    "lower the learning rate or the clip_norm, or look at the reward",
  ),
  "unrewarded_in_a_row": (
    "batches had no answer with a valid reward and were left out",
    "look at the reward: for all samples it gave None, NaN or an exception",
  ),
}
_COPIED = "copied"
_MOST_TOLD = 5  # updates left out that are told one by one


class Watch:
  """Looks at each step's counters, one step late: so the device never waits for the host.

  Args:
    limit: so many updates in a row that were not applied, for one reason, end the run.
    examples: step -> what messages say of its batch.
  """

  def __init__(self, limit: int, examples: Callable[[int], str]):
    self._limit, self._examples = limit, examples
    self._told = 0
    self._last: tuple[int, dict[str, Any]] | None = None

  def look(self, step: int, metrics: dict[str, Any]) -> None:
    """Raises NumericError if the step before this one has reached the limit."""
    self.settle()
    counts = {name: metrics[name] for name in (*_COUNTS, _COPIED) if name in metrics}
    for count in counts.values():
      count.copy_to_host_async()
    self._last = (step, counts)

  def settle(self) -> None:
    """Raises NumericError if the last step has reached the limit; waits for it.

    Warns once where samples are copies.
    """
    if self._last is None:
      return
    step, counts = self._last
    copied = float(np.asarray(counts.pop(_COPIED, 0.0)))
    if copied:
      console.warn_once(
        _COPIED,
        f"step {step}: of {100 * copied:.0f} % of the images two samples are the same picture"
        " though they were drawn differently, so their rewards teach nothing. Either nothing that"
        " was drawn shows in pictures, or jax compiled a program wrongly: try another version.",
      )
    for name, count in counts.items():
      bad = int(np.asarray(count))
      if bad >= self._limit:
        what, mend = _COUNTS[name]
        raise NumericError(
          f"step {step}: the last {bad} {what}. The last good checkpoint is kept; {mend}. Of the "
          f"last step: {self._examples(step)}."
        )
      if bad and name == "skipped_in_a_row" and self._told < _MOST_TOLD:
        self._told += 1
        console.warn(
          f"step {step}: the update was not finite and was left out; {self._examples(step)}."
        )
