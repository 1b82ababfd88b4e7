"""What is installed, which devices there are, and what a workdir holds and what is wrong with it.

rtune doctor [--workdir W]
"""

import argparse
import importlib.metadata
import os
import pathlib
import platform
import re
import sys
from collections.abc import Iterator, Sequence

from rtune import commands
from rtune.display import console
from rtune.display.logs import read_metrics
from rtune.errors import RtuneError, StorageError, UsageError
from rtune.store import manifest, run_files
from rtune.store.remote import copies

_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)[^;]*(?:;.*extra\s*==\s*['\"](\w+)['\"])?")
_BEST = re.compile(r".+_best_\d+")
_DEVELOPERS = ("test", "notebooks")


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code, 5 if a workdir is damaged."""
  about = "Says what is installed, which devices there are, and what is wrong with a workdir."
  parser = commands.Parser("rtune.doctor", about, "rtune doctor --workdir runs/recall")
  parser.add_argument("--workdir", default="", help="folder of a run")
  return commands.guarded(lambda: _command(parser.parse_args(args)))


def _command(flags: argparse.Namespace) -> None:
  sections = [(packages(), ("package", "version")), (machine(), ("this machine", ""))]
  problems = []
  if flags.workdir:
    with copies.working(flags.workdir, checkpoints=True) as where:
      folder = pathlib.Path(where).expanduser()
      if not folder.is_dir():
        raise UsageError(f"--workdir: {folder} is not a folder.")
      sections.append((contents(folder), (flags.workdir, "")))
      problems = list(damages(folder))
  for rows, columns in sections:
    print(console.table(rows, columns), end="\n\n")
  if problems:
    raise StorageError("\n  ".join(["the workdir has problems:", *problems]))


def packages() -> list[tuple[str, str]]:
  """Python, rtune, and what it needs; of what an extra brings, its name where it is missing."""
  rows = [("Python", platform.python_version()), ("rtune", importlib.metadata.version("rtune"))]
  for line in importlib.metadata.requires("rtune") or ():
    name, extra = _REQUIREMENT.match(line).groups()
    if extra in _DEVELOPERS:
      continue
    try:
      version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      version = f"- (pip install 'rtune[{extra}]')" if extra else "MISSING"
    if (name, version) not in rows:
      rows.append((name, version))
  return rows


def machine() -> list[tuple[str, str]]:
  """Cores, memory, what jax computes on, and the cache of compiled programs."""
  import jax

  from rtune.devices import cache

  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  try:
    devices = jax.devices()
    found = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
  except RuntimeError as error:
    found = f"none: {str(error).splitlines()[0]}"
  cache.use()
  kept = jax.config.jax_compilation_cache_dir
  files = [path.stat().st_size for path in pathlib.Path(kept or "/").glob("*-cache")]
  return [
    ("system", platform.platform(terse=True)),
    ("CPU cores", str(len(os.sched_getaffinity(0)))),
    ("memory", f"{memory / 2**30:.1f} GiB"),
    ("devices", found),
    (
      "compiled programs",
      f"{len(files)} in {kept}, {sum(files) / 2**20:.0f} MiB" if kept else "not kept",
    ),
  ]


def contents(folder: pathlib.Path) -> list[tuple[str, str]]:
  """What a workdir holds."""
  weights = sorted(path.stem for path in (folder / "weights").glob("*.safetensors"))
  best = [name for name in weights if _BEST.fullmatch(name)]
  weights = [name for name in weights if name not in best]
  steps = sorted(int(path.name) for path in _checkpoints(folder))
  rows = read_metrics(folder)
  return [
    ("phases with weights", ", ".join(weights) or "-"),
    ("best weights, with their step", ", ".join(best) or "-"),
    ("checkpoints of steps", ", ".join(map(str, steps)) or "-"),
    ("last step in the log", str(rows[-1]["step"]) if rows else "-"),
    ("report", "report.html" if (folder / "report.html").is_file() else "-"),
  ]


def damages(folder: pathlib.Path) -> Iterator[str]:
  """What is wrong with a workdir, a line each."""
  for read in (run_files.read_config, run_files.read_results):
    try:
      read(folder)
    except RtuneError as error:
      yield str(error)
  for checkpoint in sorted(_checkpoints(folder)):
    try:
      problem = manifest.problem(checkpoint)
    except RtuneError as error:
      problem = str(error)
    if problem:
      yield f"{checkpoint}: {problem}. The run goes on from the newest one that is whole."
  for path in sorted(folder.glob("weights/*.safetensors")):
    problem = manifest.altered(path)
    if problem:
      yield f"{path}: {problem}. Restore it from a backup, or train that phase again."
  for path in sorted(folder.glob("checkpoints/*.corrupt*")):
    yield f"{path} was found damaged and set aside; delete it once the run has gone on."


def _checkpoints(folder: pathlib.Path) -> list[pathlib.Path]:
  return [path for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
