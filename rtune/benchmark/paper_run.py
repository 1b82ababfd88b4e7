"""All cases of rtune/benchmark/paper.py, each in a process of its own with a time limit.

So what one holds is not counted with another, and one that fails or hangs is told, and the others
go on.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from rtune.benchmark import limited
from rtune.benchmark.paper import BY_NAME, CASES, Case
from rtune.display import console
from rtune.errors import RtuneError, UsageError

_CASE_S, _SMALL_CASE_S, _MACHINE_S = 150.0, 600.0, 200.0  # limits; a busy CPU compiles slowly
_LEAST_S = 15.0  # with less left no case is begun
_AHEAD = 0.4  # of all the time may programs take that are compiled before anything is measured
# A case may have all of the device but what the driver and other programs need.
_ENVIRONMENT = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}


def command(flags: argparse.Namespace) -> None:
  """`python -m rtune.benchmark paper`: one case here, or all."""
  if not flags.case:
    cases = [named(name, "--cases") for name in flags.cases.split(",")] if flags.cases else CASES
    told = run(cases, flags.repeats, float(flags.seconds), flags.small, flags.ahead)
    print(json.dumps(told, indent=2) if flags.json else as_text(told))
    return
  case = named(flags.case, "--case")
  if flags.compile:
    _compile(case, flags)
  else:
    print(json.dumps(_here(case, flags)))


def named(name: str, flag: str) -> Case:
  """The case of this name."""
  if name not in BY_NAME:
    raise UsageError(f"{flag} {name}: there are {', '.join(BY_NAME)}.")
  return BY_NAME[name]


def _compile(case: Case, flags: argparse.Namespace) -> None:
  from rtune.benchmark.paper_step import compile_step
  from rtune.config.load import load_config
  from rtune.devices import processes

  config = load_config(case.config, case.overrides(flags.small))
  processes.start()
  compile_step(config, case.phase)


def _here(case: Case, flags: argparse.Namespace) -> dict[str, object]:
  from rtune.benchmark.machine import best_dtype, measure_machine
  from rtune.benchmark.paper_step import measure
  from rtune.config.load import load_config
  from rtune.devices import processes
  from rtune.plan.counts import Machine

  config = load_config(case.config, case.overrides(flags.small))
  processes.start()
  if flags.rates:
    machine = Machine(*map(float, flags.rates.split(",")))
  else:
    machine = measure_machine(best_dtype())
  return measure(config, case.phase, machine, flags.repeats).as_dict()


def run(
  cases: Sequence[Case], repeats: int, seconds: float, small: bool, ahead: int = 0
) -> dict[str, Any]:
  """What the machine is, and of each case what it gave or why it gave nothing.

  Args:
    ahead: so many cases at once are compiled before the first is measured; 0: each in its turn.
  """
  until = time.monotonic() + seconds
  machine = _ask(["-m", "rtune.benchmark.machine"], min(_MACHINE_S, seconds))
  if "failed" in machine:
    raise RtuneError(f"the machine's rates could not be measured: {machine['failed']}")
  rates = f"{machine['flops']},{machine['bandwidth']}"
  sizes = ["--small"] if small else []
  given = ["--json", "--repeats", str(repeats), "--rates", rates, *sizes]
  if ahead:
    _compile_ahead(cases, sizes, ahead, _AHEAD * seconds)
  results = []
  for case in cases:
    left = until - time.monotonic()
    console.stage(f"{case.name}: {case.title}")
    start = time.monotonic()
    if left < _LEAST_S:
      told: dict[str, Any] = {"failed": f"not measured: no time left of {seconds:.0f} s"}
    else:
      arguments = ["-m", "rtune.benchmark", "paper", "--case", case.name, *given]
      told = _ask(arguments, min(_SMALL_CASE_S if small else _CASE_S, left), case.flags)
    title = f"in small: {case.title}" if small else case.title
    about = {"case": case.name, "title": title, "small": small}
    results.append({**about, **told, "took_seconds": time.monotonic() - start})
    if "failed" in told:
      console.warn(f"{case.name}: {told['failed']}")
  return {"machine": machine, "cases": results}


def _compile_ahead(cases: Sequence[Case], sizes: Sequence[str], at_once: int, limit: float) -> None:
  """Fills jax's cache of compiled programs; a CPU of many cores compiles several side by side."""
  console.stage(f"compiles {len(cases)} cases, {at_once} at a time, for {limit:.0f} s at most")
  commands = [
    limited.Command(
      ["-m", "rtune.benchmark", "paper", "--case", case.name, "--compile", *sizes],
      # They share the device, and nothing is measured meanwhile.
      {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **_xla(case.flags)},
    )
    for case in cases
  ]
  codes = limited.run_together(commands, limit, at_once)
  left = [case.name for case, code in zip(cases, codes, strict=True) if code != 0]
  if left:
    console.warn(f"not compiled ahead: {', '.join(left)}; what is left of them is compiled later.")


def _xla(flags: str) -> dict[str, str]:
  """These flags of XLA beside those of the user, as a variable."""
  both = " ".join(part for part in (os.environ.get("XLA_FLAGS"), flags) if part)
  return {"XLA_FLAGS": both} if both else {}


def _ask(arguments: Sequence[str], limit: float, flags: str = "") -> dict[str, Any]:
  """What a command prints as JSON, with these flags of XLA; or {"failed": why it did not}."""
  given = {**_ENVIRONMENT, **_xla(flags)}
  with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
    ended = limited.run(arguments, limit, output, errors, given)
    output.seek(0)
    errors.seek(0)
    said = errors.read().decode(errors="replace")
    sys.stderr.write(said)
    if ended.code == 0:
      return json.loads(output.read())
  if ended.code is None:
    return {"failed": f"{ended.status} of {limit:.0f} s"}
  return {"failed": _reason(said) or ended.status}


def _reason(said: str) -> str:
  """The line that names the error; what allocators print below it is too long."""
  lines = [line.strip() for line in said.splitlines() if line.strip()]
  named = [line for line in lines if "Error" in line or line.startswith("error:")]
  return (named or lines or [""])[-1][:300]


def as_text(told: dict[str, Any]) -> str:
  """Tables for people: times beside floors, then memory and what a loop adds."""
  times, memory = [], []
  for case in told["cases"]:
    if "failed" in case:
      times.append([case["case"], case["failed"], *[None] * 4])
      continue
    for row in case["figures"]:
      floor = row["floor_seconds"]
      cells = [case["case"], row["figure"], 1e3 * row["seconds"]]
      times.append([*cells, 1e3 * floor if floor else None, row["times_floor"], row["binds"]])
    held = case["memory"]
    gib = [held[name] and held[name] / 2**30 for name in ("peak", "compiled", "planned")]
    memory.append([case["case"], *gib, held["error"], case["mfu"], case["loop_share"]])
  parts = [console.table(times, ["case", "figure", "ms", "floor ms", "times floor", "binds"])]
  columns = ["case", "peak GiB", "compiled", "planned", "plan's error", "MFU", "loop adds"]
  return "\n\n".join([*parts, console.table(memory, columns)])
