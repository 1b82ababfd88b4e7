"""What rtune does on this machine's GPU, in eight minutes: tests, benchmark, a real run.

launch/gpu_check.sh [WHEELS] [--out FOLDER] [--dry]     on the machine with the GPU
launch/gpu_check.sh --wheels FOLDER                     before, where there is a network

Each part is a process with a time limit, its output is a log, and results are written anew after
each: what hangs or fails does not take along what others have found.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rtune import commands
from rtune.benchmark import gpu_results, limited, pace, wheels
from rtune.disk import write_whole
from rtune.errors import UsageError

_SECONDS, _RECALL_S = 480, 120.0
_AHEAD = 4  # programs that are compiled at once; one takes a minute of four cores
_PATIENCE = 4  # as much longer may small sizes take: a busy CPU compiles slowly
# Warnings of a newer jax are told, but what they say of results is not to be missed for them.
_PYTEST = ("pytest", "-m", "gpu", "-v", "-ra", "-W", "default", "-p", "no:cacheprovider")
_RECALL = "configs/detection_recall.py"


class Check(NamedTuple):
  """What the parts share.

  Attributes:
    out: for results and logs.
    scratch: for what nobody wants to see.
    dry: small sizes, on whatever there is.
    until: when all must have ended, by time.monotonic.
    environment: of the parts' processes.
    cases: of the benchmark, with commas; "" for all.
  """

  out: pathlib.Path
  scratch: pathlib.Path
  dry: bool
  until: float
  environment: Mapping[str, str]
  cases: str = ""

  def run(
    self,
    name: str,
    arguments: Sequence[str],
    limit: float,
    environment: Mapping[str, str] | None = None,
    tick: Callable[[], None] = lambda: None,
  ) -> tuple[dict[str, Any], str]:
    """Runs a command; how it ended, and its standard output, which goes to the log as well."""
    limit = min(limit * (_PATIENCE if self.dry else 1), self.until - time.monotonic())
    if limit <= 0:
      return {"status": "not run: no time left", "seconds": 0.0}, ""
    plain = self.out / f"{name}.log"
    with open(plain, "wb") as log, open(self.scratch / f"{name}.out", "w+b") as output:
      given = {**self.environment, **(environment or {})}
      ended = limited.run(["-u", *arguments], limit, output, log, given, tick)
      output.seek(0)
      said = output.read()
    with open(plain, "ab") as log:
      log.write(said)
    return {"status": ended.status, "seconds": ended.seconds}, said.decode(errors="replace")


def _machine(check: Check) -> dict[str, Any]:
  told, said = check.run("machine", ["-m", "rtune.benchmark.machine"], 60.0)
  return told | (json.loads(said) if told["status"] == "done" else {})


def _tests(check: Check) -> dict[str, Any]:
  # Without a GPU they skip; conftest.py then keeps jax on the CPU.
  given = {} if check.dry else {"JAX_PLATFORMS": "cuda,cpu"}
  given |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # several processes share the device
  # Most of their time goes into compiling, by threads of the CPU.
  workers = [] if check.dry else ["-n", "10", "--maxschedchunk", "1"]
  told, said = check.run("tests", ["-m", *_PYTEST, *workers, "tests/gpu"], 130.0, given)
  return told | gpu_results.outcomes(said)


def _recall(check: Check) -> dict[str, Any]:
  workdir = check.scratch / "recall"
  variant, limit = (":tiny", 60.0) if check.dry else ("", _RECALL_S)
  given = ["--config", _RECALL + variant, "--workdir", str(workdir), "--config.report=False"]
  if check.dry:
    given += ["--config.log_every=2", "--config.eval_every=0"]
  follower = pace.Follower(workdir)
  told, _ = check.run("recall", ["-m", "rtune.main", *given], limit, tick=follower.tick)
  return told | {"phases": pace.summarize(follower.lines())}


def _benchmark(check: Check) -> dict[str, Any]:
  left = max(check.until - time.monotonic() - 20.0, 1.0)  # the last one needs time to end
  arguments = ["-m", "rtune.benchmark", "paper", "--json", "--seconds", str(int(left))]
  arguments += ["--cases", check.cases, "--ahead", str(_AHEAD)]
  arguments += ["--small", "--repeats", "2"] if check.dry else ["--repeats", "5"]
  told, said = check.run("benchmark", arguments, left + 15.0)
  return told | (json.loads(said) if told["status"] == "done" else {})


# In this order: what takes longest is last, and gets what the others leave.
PARTS: Mapping[str, Callable[[Check], dict[str, Any]]] = {
  "machine": _machine,
  "tests": _tests,
  "recall": _recall,
  "benchmark": _benchmark,
}


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code: 1 where a part was not done, or a test failed."""
  parser = commands.Parser(
    "rtune.benchmark.gpu_check",
    "Tests and measures rtune on a GPU.",
    "launch/gpu_check.sh wheels --out results",
  )
  add = parser.add_argument
  add("folder", nargs="?", type=pathlib.Path, help="wheels of what is not installed here")
  add("--out", default=os.environ.get("OUT", "gpu_check"), help="for results; default: $OUT")
  add("--dry", action="store_true", help="small sizes, on a CPU if need be")
  parts = ",".join(PARTS)
  add("--parts", default=parts, help=f"some of {parts}, with commas; the machine is always told")
  add("--cases", default="", help="of the benchmark, with commas; default: while there is time")
  add("--seconds", type=commands.positive, help="for all parts; default: 480, with --dry more")
  add("--wheels", action="store_true", help="fill FOLDER from the network, and do nothing else")
  codes: list[int] = []
  failed = commands.guarded(lambda: codes.append(_command(parser.parse_args(args))))
  return failed or codes[0]


def _command(flags: argparse.Namespace) -> int:
  if flags.wheels:
    if flags.folder is None:
      raise UsageError("--wheels needs the FOLDER that they go to.")
    print("\n".join(wheels.download(flags.folder)))
    return 0
  wanted = flags.parts.split(",")
  if not {*wanted} <= {*PARTS}:
    raise UsageError(f"--parts {flags.parts}: there are {', '.join(PARTS)}.")
  until = time.monotonic() + (flags.seconds or _SECONDS * (_PATIENCE if flags.dry else 1))
  out = commands.make_folder(flags.out).absolute()
  with tempfile.TemporaryDirectory(prefix="rtune_gpu_check_") as folder:
    scratch = pathlib.Path(folder)
    packages = scratch / "packages"
    added = wheels.install(flags.folder, packages)
    sys.path.append(str(packages))
    given = [str(limited.ROOT), os.environ.get("PYTHONPATH", ""), str(packages)]
    path = os.pathsep.join(part for part in given if part)
    check = Check(out, scratch, flags.dry, until, {"PYTHONPATH": path}, flags.cases)
    return _check(check, ["machine", *(name for name in PARTS if name in wanted)], added)


def _check(check: Check, names: Sequence[str], added: Sequence[str]) -> int:
  results: dict[str, Any] = {"dry": check.dry, "added_packages": list(added), "parts": {}}
  for name in dict.fromkeys(names):
    print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
    results["parts"][name] = told = PARTS[name](check)
    print(f"  {told['status']}, {told['seconds']:.0f} s", flush=True)
    if not check.dry:  # there the run and the steps measured alone are of different sizes
      results["loop_overhead"] = gpu_results.loop_overhead(results["parts"])
    write_whole(check.out / "results.json", json.dumps(results, indent=2) + "\n")
    write_whole(check.out / "results.md", gpu_results.as_markdown(results))
    if name == "machine" and not check.dry and told.get("platform") != "gpu":
      raise UsageError(
        f"jax finds no GPU here ({told.get('device', told['status'])}); {check.out}/machine.log "
        "says more. --dry runs small sizes on a CPU."
      )
  print((check.out / "results.md").read_text())
  return 1 if gpu_results.failures(results) else 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
