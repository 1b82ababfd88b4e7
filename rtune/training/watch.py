"""Updates that were not applied: a few are left out, too many in a row end the run."""

from typing import Any

import numpy as np

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


class Watch:
  """Looks at each step's counters, one step late: so the device never waits for the host.

  Args:
    limit: so many updates in a row that were not applied, for one reason, end the run.
  """

  def __init__(self, limit: int):
    self._limit = limit
    self._last: tuple[int, dict[str, Any]] | None = None

  def look(self, step: int, metrics: dict[str, Any]) -> None:
    """Raises NumericError if the step before this one has reached the limit."""
    self.settle()
    counts = {name: metrics[name] for name in _COUNTS if name in metrics}
    for count in counts.values():
      count.copy_to_host_async()
    self._last = (step, counts)

  def settle(self) -> None:
    """Raises NumericError if the last step has reached the limit; waits for it."""
    if self._last is None:
      return
    step, counts = self._last
    for name, count in counts.items():
      bad = int(np.asarray(count))
      if bad >= self._limit:
        what, mend = _COUNTS[name]
        raise NumericError(
          f"step {step}: the last {bad} {what}. The last good checkpoint is kept; {mend}."
        )
