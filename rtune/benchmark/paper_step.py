"""One case of rtune/benchmark/paper.py, measured in this process: time, memory, the loop's share.

A process measures one case: the peak of a device's memory can be read, but not set back.

Dimension key: that of training/update.py.
"""

import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from rtune import config as configs
from rtune.benchmark import operations
from rtune.benchmark.loop import (
  Loop,
  assembled,
  make_loop,
  on_devices,
  reward_rows,
  sizes_of,
  train_batches,
)
from rtune.benchmark.row import Row
from rtune.benchmark.timing import interleaved
from rtune.display.clock import Clock
from rtune.models import attention
from rtune.plan import counts, memory
from rtune.training.setup import prepare
from rtune.training.update import Batch, Metrics, Programs, State
from rtune.training.watch import Watch

_WARM_UP, _CHAIN, _TURNS = 2, 2, 3  # steps; steps in a row; comparisons of such rows
_TOLD = 60  # operations


class Held(NamedTuple):
  """Bytes of one device.

  Attributes:
    peak: the most that was in use, as the device says; None where it does not.
    compiled: arguments, results and temporaries of the largest program, as the compiler says.
    planned: by the formulas of rtune/plan/memory.py.
  """

  peak: int | None
  compiled: int
  planned: float


class Measured(NamedTuple):
  """What a case gave.

  Attributes:
    rows: times beside floors.
    loop_share: what the loop adds to steps on a batch that is on the device, as a share of them.
    mfu: operations of a training step, without those that remat repeats, over what the machine's
      matrix rate gives in the time of imitation's step, or of the update.
    held: memory.
    operations: of one step, as the profiler tells them, what takes longest first.
    sources: where in the source these come from, as `operations.sources` says.
  """

  rows: list[Row]
  loop_share: float
  mfu: float
  held: Held
  operations: list[operations.Operation]
  sources: Mapping[tuple[str, str], str]

  def as_dict(self) -> dict[str, object]:
    """For --json."""
    peak, planned = self.held.peak, self.held.planned
    return {
      "figures": [row.as_dict() for row in self.rows],
      "loop_share": self.loop_share,
      "mfu": self.mfu,
      "memory": {**self.held._asdict(), "error": planned / peak - 1 if peak else None},
      "kinds": operations.by_kind(self.operations),
      "operations": [one.as_dict(self.sources) for one in self.operations[:_TOLD]],
    }


class _Stepper:
  """A phase that goes on from call to call: its steps give their buffers away."""

  def __init__(self, state: State, programs: Programs, clock: Clock):
    self.state, self.programs, self._clock = state, programs, clock

  def lap(self, feed: Callable[[], Batch]) -> dict[str, float]:
    """Seconds of the parts of one step that nothing overlaps."""
    self._clock.take()
    with self._clock("data"):
      batch = jax.block_until_ready(feed())
    with self._clock("update"):
      self.state, metrics = self.programs.step(self.state, batch)
      jax.block_until_ready(metrics)
    return self._clock.take()

  def chain(self, feed: Callable[[], Batch], look: Callable[[Metrics], None]) -> Metrics:
    """Steps one after the other, without waiting for any."""
    for _ in range(_CHAIN):
      self.state, metrics = self.programs.step(self.state, feed())
      look(metrics)
    return metrics


def compile_step(config: configs.Config, phase: str) -> None:
  """Takes the first step of a phase, which puts its programs into jax's cache.

  Compiled from shapes they can differ from those of a step: by where its arrays lie.
  """
  stepper, feed, _ = _begun(config, phase)
  stepper.lap(feed)


def _begun(config: configs.Config, phase: str) -> tuple[_Stepper, Callable[[], Batch], Loop]:
  """A phase before its first step, a function that puts a batch on the devices, what they share."""
  loop = make_loop(prepare(config))
  clock = Clock()
  stepper = _Stepper(*assembled(loop, phase, clock), clock)
  loop = loop._replace(params=None)  # the state has its own
  with train_batches(loop.setup, getattr(config, phase).batch_size) as batches:
    host = next(batches)

  def feed() -> Batch:
    return on_devices(loop, host)

  return stepper, feed, loop


def measure(config: configs.Config, phase: str, machine: counts.Machine, repeats: int) -> Measured:
  """Times steps of a phase on one batch of its data."""
  stepper, feed, loop = _begun(config, phase)
  settings = getattr(config, phase)
  laps = [stepper.lap(feed) for _ in range(_WARM_UP + repeats)][_WARM_UP:]
  peak = _peak()
  sizes = sizes_of(loop, settings.batch_size, _answers(settings))
  update = statistics.median(lap["update"] for lap in laps)
  mfu = counts.training(sizes).flops / machine.flops / update
  if phase == "reward":
    rows = reward_rows("paper", loop, machine, laps)
  else:
    floor = counts.floor(counts.training(sizes), machine)
    rows = [Row("paper", "imitation step", update, settings.batch_size, "image", floor)]
  share = _loop_share(stepper, feed)
  programs = _programs(stepper, feed())
  held = Held(peak, max(map(memory.of_program, programs)), _planned(config, phase, sizes))
  done = operations.profiled(lambda: stepper.lap(feed))
  sources: dict[tuple[str, str], str] = {}
  for program in programs:
    sources |= operations.sources(program.as_text())
  return Measured(rows, share, mfu, held, done, sources)


def _answers(settings: configs.Reward | configs.Imitate) -> int:
  """Of each image: samples, or the truth and mistakes to learn from."""
  if isinstance(settings, configs.Reward):
    return settings.num_samples
  return 2 if settings.mistakes.fn else 1


def _loop_share(stepper: _Stepper, feed: Callable[[], Batch]) -> float:
  """Steps as training issues them against the same ones on a batch that is on the device."""
  ready, watch, seen = feed(), Watch(10**9, lambda step: ""), [0]

  def look(metrics: Metrics) -> None:
    seen[0] += 1
    watch.look(seen[0], metrics)

  turns = {
    "looped": lambda: stepper.chain(feed, look),
    "bare": lambda: stepper.chain(lambda: ready, lambda metrics: None),
  }
  return interleaved(turns, _TURNS).ratio("looped", "bare") - 1


def _peak() -> int | None:
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get("peak_bytes_in_use")


def _programs(stepper: _Stepper, batch: Mapping[str, Any]) -> list[jax.stages.Compiled]:
  """The programs of a step; they are in the compiler's cache by now."""
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), (stepper.state, batch)
  )
  return [program.compile() for _, program in stepper.programs.lower(*shapes)]


def _planned(config: configs.Config, phase: str, sizes: counts.Sizes) -> float:
  settings = getattr(config, phase)
  update = memory.update_memory(
    sizes,
    settings.optim.name,
    remat=config.model.remat,
    kernel=memory.takes_kernel(sizes, attention.has_kernel),
    accumulate=settings.accumulate,
  ).total
  return max(update, float(memory.sampling_memory(sizes))) if phase == "reward" else update
