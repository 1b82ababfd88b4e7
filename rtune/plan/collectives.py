"""Operations between devices in a compiled program, counted from its text.

What stands in a loop counts as often as the loop runs. TPU programs do not say how often that is:
it is read from the loop's condition, `counter < constant`, and from where the counter starts. A
loop that may end sooner, as sampling does once all answers have ended, counts as if it did not.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^ +(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_COLLECTIVE = re.compile(
  "(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?"
)
_CALLED = re.compile(r"(?:calls|to_apply|body|\w+_computations?)=(?:\{([^}]*)\}|%?([\w.-]+))")
_ARRAY = re.compile(r"(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class _Instruction(NamedTuple):
  """Of `%name = result op(rest`."""

  result: str
  op: str
  rest: str

  @property
  def operands(self) -> list[str]:
    """Their names, in order."""
    return re.findall(r"%([\w.-]+)", self.rest.split(")", 1)[0])

  def named(self, key: str) -> str:
    """What stands behind `key=`."""
    found = re.search(rf"\b{key}=%?([\w.-]+)", self.rest)
    return found[1] if found else ""


_Computation = dict[str, _Instruction]


class Collectives(NamedTuple):
  """Their number in one run of a program, and the bytes of their results."""

  number: int
  bytes: float


def collectives(hlo: str) -> Collectives:
  """Of a program's text, as `jax.stages.Compiled.as_text` gives it."""
  computations, entry = _parsed(hlo)
  return _counted(computations, computations[entry])


def _parsed(hlo: str) -> tuple[dict[str, _Computation], str]:
  """Computations by name, and the name of the one that is run."""
  name = entry = ""
  computations: dict[str, _Computation] = {"": {}}
  for line in hlo.splitlines():
    if head := _COMPUTATION.match(line):
      name = head[2]
      entry = name if head[1] else entry
      computations[name] = {}
    elif found := _INSTRUCTION.match(line):
      computations[name][found[1]] = _Instruction(*found.groups()[1:])
  return computations, entry


def _counted(computations: Mapping[str, _Computation], computation: _Computation) -> Collectives:
  number, total = 0, 0.0
  for instruction in computation.values():
    if _COLLECTIVE.fullmatch(instruction.op):
      number, total = number + 1, total + _bytes(instruction.result)
    for name, times in _called(computations, computation, instruction):
      inner = _counted(computations, computations.get(name, {}))
      number, total = number + times * inner.number, total + times * inner.bytes
  return Collectives(number, float(total))


def _called(computations, computation, instruction: _Instruction) -> Iterator[tuple[str, int]]:
  """Names of computations that an instruction runs, and how often; of branches all."""
  if instruction.op.endswith(("-done", "-update")):  # they name what their start has run
    return
  times = 1
  if instruction.op == "while":
    times = _trips(computations, computation, instruction)
    yield instruction.named("condition"), times + 1
  for several, one in _CALLED.findall(instruction.rest):
    for name in (several or one).split(", "):
      yield name.lstrip("%"), times


def _trips(computations, computation, loop: _Instruction) -> int:
  """How often a loop runs at most; 1 where neither the compiler nor its condition says it."""
  if known := _TRIPS.search(loop.rest):
    return int(known[1])
  end = _end(computations, loop)
  return max(end - _start(computations, computation, loop), 1) if end else 1


def _end(computations, loop: _Instruction) -> int:
  """The largest number that the condition, or what is fused in it, knows; 0 if it knows none."""
  condition = computations.get(loop.named("condition"), {})
  parts = [condition, *(computations.get(x.named("calls"), {}) for x in condition.values())]
  known = [x for part in parts for x in part.values() if x.op == "constant"]
  numbers = [int(x.rest.split(")")[0]) for x in known if x.result.startswith("s32[]")]
  return max(numbers, default=0)


def _start(computations, computation: _Computation, loop: _Instruction) -> int:
  """What the counter is before the loop: a constant, or where an earlier loop ended; else 0."""
  condition = computations.get(loop.named("condition"), {})
  counters = [
    int(x.named("index"))
    for x in condition.values()
    if x.op == "get-tuple-element" and x.result.startswith("s32[]")
  ]
  begun = computation.get(loop.operands[0])
  if not counters or begun is None or begun.op != "tuple":
    return 0
  at = computation.get(begun.operands[counters[0]])
  while at is not None and at.op in ("copy", "bitcast"):
    at = computation.get(at.operands[0])
  if at is None:
    return 0
  if at.op == "constant":
    return int(at.rest.split(")")[0])
  earlier = computation.get(at.operands[0]) if at.op == "get-tuple-element" else None
  return _end(computations, earlier) if earlier is not None and earlier.op == "while" else 0


def _bytes(result: str) -> float:
  total = 0.0
  for _, bits, dimensions in _ARRAY.findall(result):
    elements = np.prod([int(d) for d in dimensions.split(",") if d], dtype=float)
    total += elements * int(bits or 8) / 8
  return total
