"""Medians over repeats after a warm-up, and what else the machine was doing meanwhile."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax


class Timed(NamedTuple):
  """Of each repeat of each call the seconds, and the CPU seconds of this process.

  CPU seconds say what a call costs on a machine that others use too; threads that wait for each
  other may count.
  """

  seconds: Mapping[str, Sequence[float]]
  cpu_seconds: Mapping[str, Sequence[float]]

  def median(self, name: str) -> float:
    return statistics.median(self.seconds[name])

  def ratio(self, slow: str, fast: str) -> float:
    """How many times as long `slow` takes: the median over repeats, each against its neighbor."""
    return _median_ratio(self.seconds[slow], self.seconds[fast])

  def cpu_ratio(self, slow: str, fast: str) -> float:
    """The same of CPU seconds."""
    return _median_ratio(self.cpu_seconds[slow], self.cpu_seconds[fast])


def _median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
  return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def interleaved(calls: Mapping[str, Callable[[], Any]], repeats: int) -> Timed:
  """Times calls in turns, so that what else goes on disturbs all alike; the first turn warms up."""
  seconds: dict[str, list[float]] = {name: [] for name in calls}
  cpu_seconds: dict[str, list[float]] = {name: [] for name in calls}
  for call in calls.values():
    jax.block_until_ready(call())
  for _ in range(repeats):
    for name, call in calls.items():
      start, cpu_start = time.perf_counter(), time.process_time()
      jax.block_until_ready(call())
      seconds[name].append(time.perf_counter() - start)
      cpu_seconds[name].append(time.process_time() - cpu_start)
  return Timed(seconds, cpu_seconds)


class Elsewhere:
  """How much of this machine's CPU time other processes take, from now on."""

  def __init__(self):
    self._start = self._read()

  def share(self) -> float | None:
    """Their share of all cores since the start; None where the system does not say."""
    now = self._read()
    if self._start is None or now is None:
      return None
    wall, busy, own = (b - a for a, b in zip(self._start, now, strict=True))
    if wall <= 0:
      return 0.0
    # The system counts in hundredths of a second: for a shorter time it may say more than all.
    return min(1.0, max(0.0, busy - own) / (wall * (os.cpu_count() or 1)))

  @staticmethod
  def _read() -> tuple[float, float, float] | None:
    """Wall seconds, busy seconds of all cores, seconds of this process."""
    try:
      with open("/proc/stat") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    except (OSError, ValueError):
      return None
    busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    return time.monotonic(), busy, time.process_time()
