"""A plan as text: one table a phase, and what to change where it does not fit."""

from collections.abc import Sequence
from typing import NamedTuple

from rtune import config as configs
from rtune.display import console
from rtune.errors import UsageError
from rtune.plan import counts, memory, programs
from rtune.plan.chips import Topology


class _Line(NamedTuple):
  """One program of a step, on one device."""

  name: str
  memory: float
  work: counts.Work
  collectives: int
  collective_bytes: float


def check_batch(config: configs.Config, phase: str, topology: Topology) -> None:
  """Raises UsageError where devices would get no equal share of the batch."""
  setting = getattr(config, phase)
  unit = topology.number * setting.accumulate
  if setting.batch_size % unit:
    raise UsageError(
      f"config.{phase}.batch_size is {setting.batch_size}, which {topology.number} devices cannot "
      f"share in {setting.accumulate} part(s); use a multiple of {unit}."
    )


def of_phase(
  blueprint: programs.Blueprint,
  phase: str,
  topology: Topology,
  compiled: Sequence[programs.Program] | None,
) -> str:
  """Memory, work and floor of each program of a step, and what all steps of the phase take."""
  rows, seconds = [], 0.0
  for line in _lines(blueprint, phase, topology, compiled):
    floor = counts.floor(line.work, topology.chip.machine)
    between = line.collective_bytes / topology.chip.link
    least = max(floor.seconds, between)
    seconds += least
    rows.append([
      f"{phase}: {line.name}",
      line.memory / 2**30,
      topology.chip.memory / 2**30,
      line.work.flops / 1e12,
      line.work.bytes / 1e9,
      line.collectives if compiled else None,
      line.collective_bytes / 1e6,
      1e3 * least,
      floor.binds if floor.seconds >= between else "links",
    ])  # fmt: skip
  columns = ["a device", "GiB", "of GiB", "TFLOP", "GB", "collectives", "their MB"]
  columns += ["floor ms", "binds"]
  setting = getattr(blueprint.config, phase)
  days = setting.steps * seconds / 86400
  pace = setting.batch_size / seconds
  return (
    f"{console.table(rows, columns)}\n{phase}: at the floor {1e3 * seconds:.1f} ms a step, "
    f"{console.number(pace)} images/s, {setting.steps} steps in {console.number(days)} days, "
    f"{console.number(24 * days * topology.number)} device-hours"
  )


def _lines(blueprint, phase, topology, compiled) -> list[_Line]:
  sizes = programs.sizes_of(blueprint, phase, topology.number)
  work = {"update": counts.training(sizes), "score": counts.Work(0.0, 0.0)}
  work["sample"] = counts.sampling(sizes)
  if compiled is not None:
    return [
      _Line(x.name, x.memory, work[x.name], x.collectives, x.collective_bytes) for x in compiled
    ]
  # Gradients there and back, in float32.
  moved = 2.0 * 4 * memory.parameters(sizes) if topology.number > 1 else 0.0
  update = _Line(
    "update", _update_memory(blueprint, phase, topology).total, work["update"], 0, moved
  )
  if phase != "reward":
    return [update]
  return [_Line("sample", memory.sampling_memory(sizes), work["sample"], 0, 0.0), update]


def _update_memory(blueprint, phase: str, topology: Topology, **changes) -> memory.Memory:
  """By the formula, with some knobs of the config turned."""
  config, setting = blueprint.config, getattr(blueprint.config, phase)
  shards = topology.number if changes.get("shard", config.shard_parameters) else 1
  sizes = programs.sizes_of(blueprint, phase, topology.number)
  sizes = sizes._replace(batch=max(changes.get("batch", sizes.batch), 1))
  return memory.update_memory(
    sizes,
    setting.optim.name,
    remat=changes.get("remat", config.model.remat),
    kernel=not topology.chip.compiles and memory.takes_kernel(sizes),
    accumulate=changes.get("accumulate", setting.accumulate),
    shards=shards,
  )


def advice(
  blueprint: programs.Blueprint,
  phase: str,
  topology: Topology,
  compiled: Sequence[programs.Program] | None,
  room: float,
) -> str:
  """Which knob makes a step fit that does not: "" where it fits.

  The formula says how much less each setting takes; by as much the real need is taken to shrink.
  """
  lines = _lines(blueprint, phase, topology, compiled)
  need = max(line.memory for line in lines)
  limit = room * topology.chip.memory
  if need <= limit:
    return ""
  setting = getattr(blueprint.config, phase)
  now = _update_memory(blueprint, phase, topology).total
  share = setting.batch_size // topology.number
  knobs = [
    ("model.remat=true", {"remat": True}),
    ("shard_parameters=true", {"shard": True}),
    *(
      (f"{phase}.accumulate={parts}", {"accumulate": parts})
      for parts in range(2 * setting.accumulate, share + 1)
      if share % parts == 0
    ),
    ("model.remat=true --config.shard_parameters=true", {"remat": True, "shard": True}),
    *(
      (f"{phase}.batch_size={less * topology.number}", {"batch": less, "accumulate": 1})
      for less in (share // 2, share // 4, 1)
      if 0 < less < share
    ),
  ]
  text = f"{phase} needs {need / 2**30:.1f} GiB of {topology.chip.memory / 2**30:.1f} on a device"
  for knob, changes in knobs:
    if need - now + _update_memory(blueprint, phase, topology, **changes).total <= limit:
      return f"{text}: it does not fit. By the formula it does with --config.{knob}"
  return f"{text}: it does not fit with any one setting; take more devices or a smaller model."
