"""What a config needs on machines that are not there: memory, time and money before they are paid.

python -m rtune.plan --config configs/NAME.py[:variant] --topology v5e:16x16 [--config.key=value]

For TPUs the config's real steps are compiled ahead of time (needs `rtune[tpu]`, no TPU); memory and
collectives are the compiler's. For GPUs, whose compiler needs the device, memory is a formula
(docs/memory.md). Operations, bytes and floors are counted (rtune/plan/counts.py) either way:
real steps take longer; `--measure` says how much longer on this machine.
"""

import os
import sys
from collections.abc import Iterator, Sequence

from rtune import commands
from rtune import config as configs
from rtune.config.load import load_config
from rtune.errors import UsageError

_PARTS_OF_REWARD = ("sample", "update")
_ROOM = 0.95  # share of a chip's memory that may be planned with


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code."""
  parser = commands.Parser(
    "rtune.plan",
    "Says what a config needs on other machines.",
    "rtune plan --config configs/detection_recall.py:paper --topology v5e:16x16",
  )
  add = parser.add_argument
  add("--config", required=True, help="config file, with :variant behind it if wanted")
  add("--topology", required=True, help="v4, v5e, v5p, v6e:AxB[xC], or a100, h100, h200:N")
  add("--classes", type=commands.positive, default=80, help="where the data cannot be opened")
  add("--words", type=commands.positive, default=10_000, help="of captions, likewise")
  add("--formula", action="store_true", help="do not compile, count; as for GPUs")
  add("--measure", action="store_true", help="also: steps of this machine beside their floors")

  def run() -> None:
    flags, rest = parser.parse_known_args(args)
    config = load_config(flags.config, _overrides(rest))
    _plan(config, flags)
    if flags.measure:
      _measure(flags.config)

  return commands.guarded(run)


def _overrides(rest: Sequence[str]) -> list[tuple[str, str]]:
  pairs = [text.removeprefix("--config.").partition("=") for text in rest]
  for text, (_, equals, _) in zip(rest, pairs, strict=True):
    if not text.startswith("--config.") or not equals:
      raise UsageError(f"Unknown flag {text}; settings are written --config.key=value.")
  return [(key, value) for key, _, value in pairs]


def _plan(config: configs.Config, flags) -> None:
  # The topology is asked of libtpu alone; jax itself stays on the CPU.
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # it compiles, and takes no TPU
  from rtune.display import console
  from rtune.plan import chips, programs, table
  from rtune.training.phases import phase_of

  topology = chips.parse_topology(flags.topology)
  blueprint = programs.make_blueprint(config, flags.classes, flags.words)
  compiled = topology.chip.compiles and not flags.formula
  mesh = _mesh(topology) if compiled else None
  for phase in config.phases:
    if not phase_of(phase).learns.answers:
      console.stage(f"{phase}: left out; counts know of policies only")
      continue
    table.check_batch(config, phase, topology)
    console.stage(f"{phase}: {'compiling for' if compiled else 'counted, for'} {topology.name}")
    found = list(programs.compile_phase(blueprint, phase, mesh)) if compiled else None
    print(table.of_phase(blueprint, phase, topology, found), end="\n\n")
    advice = table.advice(blueprint, phase, topology, found, _ROOM)
    if advice:
      print(advice, end="\n\n")
  if not compiled:
    print("Counted by formulas, not compiled: see docs/memory.md for how far they are off.")


def _mesh(topology):
  from jax.experimental import topologies

  from rtune.devices import sharding

  try:
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name)
  except Exception as error:
    raise UsageError(
      f"--topology {topology.name}: {' '.join(str(error).split())[:200]}. The compiler for TPUs "
      "comes with `pip install 'rtune[tpu]'`; --formula counts without it."
    ) from error
  return sharding.make_mesh(devices=found.devices)


def _measure(name: str) -> None:
  """Steps of the config's own variant for this machine, beside their floors."""
  from rtune.benchmark import loop
  from rtune.benchmark.machine import measure_machine
  from rtune.benchmark.row import Row, as_table
  from rtune.display import console
  from rtune.training.setup import prepare

  console.stage("measuring this machine's steps")
  made = loop.make_loop(prepare(load_config(name.partition(":")[0])))
  machine = measure_machine()

  def rows() -> Iterator[Row]:
    yield from loop.train_rows(made, machine, 5)
    yield from (row for row in loop.step_rows(made, machine, 5) if row.floor)

  print(as_table(list(rows())))
  print("Here the formulas are off by the factors under 'times floor'.")


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
