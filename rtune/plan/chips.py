"""What accelerators can do, by their makers' data sheets; per chip."""

from typing import NamedTuple

from rtune.errors import UsageError
from rtune.plan.counts import Machine


class Chip(NamedTuple):
  """One accelerator.

  Attributes:
    memory: bytes.
    flops: bfloat16 operations a second, dense.
    bandwidth: bytes a second to its memory.
    link: bytes a second to the other chips, all links together.
    compiles: whether its compiler runs without the device.
  """

  memory: float
  flops: float
  bandwidth: float
  link: float
  compiles: bool

  @property
  def machine(self) -> Machine:
    return Machine(self.flops, self.bandwidth)


# TPU: cloud.google.com/tpu/docs/system-architecture-tpu-vm; GPU: NVIDIA's data sheets (SXM).
CHIPS = {
  "v4": Chip(32 * 2**30, 275e12, 1228e9, 300e9, True),
  "v5e": Chip(16 * 2**30, 197e12, 819e9, 200e9, True),
  "v5p": Chip(95 * 2**30, 459e12, 2765e9, 600e9, True),
  "v6e": Chip(32 * 2**30, 918e12, 1640e9, 448e9, True),
  "a100": Chip(80e9, 312e12, 2039e9, 600e9, False),
  "h100": Chip(80e9, 989e12, 3350e9, 900e9, False),
  "h200": Chip(141e9, 989e12, 4800e9, 900e9, False),
}


class Topology(NamedTuple):
  """`number` chips, as "v5e:16x16" or "h100:8" name them."""

  name: str
  chip: Chip
  number: int


def parse_topology(text: str) -> Topology:
  """Reads "kind:AxB[xC]"; UsageError where there is no such chip or shape."""
  kind, _, shape = text.partition(":")
  if kind not in CHIPS:
    raise UsageError(f"--topology {text}: there is no chip {kind!r}; known: {', '.join(CHIPS)}.")
  sides = shape.split("x")
  if not all(side.isdigit() and int(side) for side in sides):
    raise UsageError(f"--topology {text}: write a shape behind the colon, such as v5e:16x16.")
  number = 1
  for side in sides:
    number *= int(side)
  return Topology(text, CHIPS[kind], number)
