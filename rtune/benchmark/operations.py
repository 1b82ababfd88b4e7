"""What a call spends in operations of each kind, from XLA's own profile of it.

An operation of a compiled program is told by the profiler under its name in that program; where it
comes from in the source stands in the program's text. What an operation calls (the body of a loop)
is not counted in it.
"""

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

# By what stands in the names of XLA's operations and of NVIDIA's kernels; the first that fits.
_KINDS = (
  ("attention kernel", r"sdpa|fmha|flash|dot_product_attention"),
  ("convolution", r"conv(\d|_general|olution|-|\.|$)|cudnn|implicit"),
  ("matrix product", r"dot|gemm|gemv|cublas|matmul|ynn|nvjet|xmma|cutlass|splitK"),
  ("draw of random numbers", r"rng|threefry"),
  ("copy or turn", r"copy|transpose|concatenate|pad|bitcast|dynamic|slice|gather|scatter|Mem"),
  ("sum over an axis", r"reduce|softmax|input_"),
  ("sort", r"sort|topk|top-k"),
  ("between devices", r"all-|collective|permute|nccl"),
  ("loop", r"^(while|call|conditional)"),
)
_DEFINED = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*metadata=\{[^}]*op_name="([^"]*)"', re.M)
# Of a path of names what jax's own transformations put there, not a module or an operation.
_WRAPPED = re.compile(r"jit\([^()]*\)|(?:jvp|transpose|vmap|remat)\(|\)")
_WORDS = {"", "while", "body", "cond", "closed_call", "checkpoint"}


class Operation(NamedTuple):
  """One operation of a program, in one run of it.

  Attributes:
    program: its name, as XLA has it.
    name: of the operation in the program.
    times: how often it was run.
    seconds: of all of them, without what they call; of all threads or streams.
  """

  program: str
  name: str
  times: int
  seconds: float

  @property
  def kind(self) -> str:
    """What sort of work it is."""
    return next((kind for kind, found in _KINDS if re.search(found, self.name)), "elementwise")

  def as_dict(self, sources: Mapping[tuple[str, str], str]) -> dict[str, object]:
    """For --json, with where it comes from as `sources` says."""
    source = sources.get((self.program, _known_as(self.name)), "")
    return {**self._asdict(), "kind": self.kind, "source": source}


def profiled(call: Callable[[], Any]) -> list[Operation]:
  """Runs a call under XLA's profiler; what took longest is first.

  Its programs must be compiled, and nothing else may be running.
  """
  with tempfile.TemporaryDirectory(prefix="rtune_profile_") as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready(call())
    files = sorted(pathlib.Path(folder).rglob("*.xplane.pb"))
    profiles = [jax.profiler.ProfileData.from_serialized_xspace(f.read_bytes()) for f in files]
  seconds: collections.Counter[tuple[str, str]] = collections.Counter()
  times: collections.Counter[tuple[str, str]] = collections.Counter()
  for plane in (plane for profile in profiles for plane in profile.planes):
    for line in plane.lines:
      kernels = plane.name.startswith("/device:") and line.name.startswith("Stream")
      for key, took in _own_times(_events(line.events, kernels)):
        seconds[key] += took
        times[key] += 1
  found = [Operation(*key, times[key], 1e-9 * took) for key, took in seconds.items()]
  return sorted(found, key=lambda operation: -operation.seconds)


class _Event(NamedTuple):
  start: float
  end: float
  key: tuple[str, str]


def _events(events: Iterable[Any], kernels: bool) -> list[_Event]:
  """Those that are operations of programs, or kernels of whatever; times in nanoseconds."""
  found = []
  for event in events:
    about = dict(event.stats)
    if "hlo_op" in about or kernels:
      # What a graph of kernels is called says nothing of a kernel in it.
      name = event.name if kernels else about["hlo_op"]
      key = str(about.get("hlo_module", "")), str(name)
      found.append(_Event(event.start_ns, event.start_ns + event.duration_ns, key))
  return found


def _own_times(events: Sequence[_Event]) -> Iterator[tuple[tuple[str, str], float]]:
  """Of each event its time less that of the events inside it; they nest or follow each other."""
  open_events: list[tuple[_Event, list[float]]] = []

  def closed(before: float) -> Iterator[tuple[tuple[str, str], float]]:
    while open_events and open_events[-1][0].end <= before:
      event, inside = open_events.pop()
      yield event.key, max(0.0, event.end - event.start - sum(inside))

  for event in sorted(events, key=lambda e: (e.start, -e.end)):
    yield from closed(event.start)
    if open_events:
      open_events[-1][1].append(event.end - event.start)
    open_events.append((event, []))
  yield from closed(float("inf"))


def sources(text: str) -> dict[tuple[str, str], str]:
  """(program, operation) -> where in the source it comes from, by a compiled program's text."""
  program = text.removeprefix("HloModule ").split(maxsplit=1)[0].rstrip(",")
  found = {}
  for name, source in _DEFINED.findall(text):
    parts = [_WRAPPED.sub("", part) for part in source.split("/")]
    found[program, _known_as(name)] = "/".join(part for part in parts if part not in _WORDS)
  return found


def _known_as(name: str) -> str:
  """Kernels are called as operations are, without points."""
  return re.sub(r"\W", "_", name)


def by_kind(operations: Sequence[Operation]) -> dict[str, dict[str, dict[str, float]]]:
  """program -> kind -> its seconds, and how many operations of it were run."""
  kinds: dict[str, dict[str, dict[str, float]]] = {}
  for operation in operations:
    own = kinds.setdefault(operation.program, {})
    total = own.setdefault(operation.kind, {"seconds": 0.0, "times": 0})
    total["seconds"] += operation.seconds
    total["times"] += operation.times
  return kinds
