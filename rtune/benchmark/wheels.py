"""What rtune needs beside jax, as wheels in a folder that a machine without network is given.

Only the standard library and pip: it runs before anything that rtune needs is there.
"""

import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence

from rtune.errors import UsageError

# What is on the machine already, with all that these need: the large ones.
GIVEN = ("jax", "optax", "orbax-checkpoint")
_TESTS = ("pytest", "pytest-timeout", "pytest-xdist", "beartype")  # of the extra "test"
_PYTHON = "3.12"
_PLATFORMS = ("manylinux1", "manylinux2014", *(f"manylinux_2_{n}" for n in (17, 24, 27, 28, 34)))
_NAME = re.compile(r"[A-Za-z0-9]+([-_.]+[A-Za-z0-9]+)*")


def requirements() -> list[str]:
  """What rtune and its tests need, as pyproject.toml says."""
  path = pathlib.Path(__file__).resolve().parents[2] / "pyproject.toml"
  project = tomllib.loads(path.read_text())["project"]
  tests = project["optional-dependencies"]["test"]
  return [*project["dependencies"], *(line for line in tests if name_of(line) in _TESTS)]


def name_of(text: str) -> str:
  """The name at the start of a requirement or of a wheel's file, as names are compared."""
  match = _NAME.match(text.partition("-")[0] if text.endswith(".whl") else text)
  if match is None:
    raise UsageError(f"{text!r} does not begin with the name of a package.")
  return re.sub(r"[-_.]+", "-", match.group()).lower()


def missing(names: Iterable[str]) -> list[str]:
  """Those that are not installed here."""
  return [name for name in names if not _installed(name)]


def _installed(name: str) -> bool:
  try:
    importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True


def install(folder: pathlib.Path | None, target: pathlib.Path) -> list[str]:
  """Puts those wheels of `folder` into `target` that are not installed here; returns their names.

  Raises:
    UsageError: something that rtune needs is neither here nor among them.
  """
  if folder is not None and not folder.is_dir():
    raise UsageError(f"{folder} is not a folder of wheels.")
  wheels = {name_of(path.name): path for path in sorted(folder.glob("*.whl"))} if folder else {}
  lacking = [name for name in missing(map(name_of, requirements())) if name not in wheels]
  if lacking:
    raise UsageError(
      f"not installed, and no wheel of it in {folder}: {', '.join(lacking)}. Where there is a "
      "network, launch/gpu_check.sh --wheels FOLDER fills a folder to be carried here."
    )
  wanted = missing(wheels)
  if wanted:
    paths = [str(wheels[name]) for name in wanted]
    _pip("install", "--no-index", "--no-deps", "--no-compile", "--target", str(target), *paths)
  return wanted


def download(folder: pathlib.Path) -> list[str]:
  """Fetches the wheels for Linux on x86-64; returns what they are, as name==version."""
  given = _resolved(GIVEN)
  wanted = {
    name: version for name, version in _resolved(requirements()).items() if name not in given
  }
  pins = [f"{name}=={version}" for name, version in sorted(wanted.items())]
  folder.mkdir(parents=True, exist_ok=True)
  _pip("download", "--no-deps", "--dest", str(folder), *_target(), *pins)
  return pins


def _target() -> list[str]:
  platforms = [flag for name in _PLATFORMS for flag in ("--platform", f"{name}_x86_64")]
  python = ["--python-version", _PYTHON, "--implementation", "cp"]
  return ["--only-binary=:all:", *python, *platforms]


def _resolved(wanted: Sequence[str]) -> Mapping[str, str]:
  """Version of each package that an installation of `wanted` would bring; nothing is fetched."""
  with tempfile.TemporaryDirectory() as scratch:
    report = pathlib.Path(scratch) / "report.json"
    told = ["--dry-run", "--ignore-installed", "--report", str(report), "--target", scratch]
    _pip("install", *told, *_target(), *wanted)
    found = json.loads(report.read_text())["install"]
  metadata = [one["metadata"] for one in found]
  return {name_of(one["name"]): one["version"] for one in metadata}


def _pip(*arguments: str) -> None:
  command = [sys.executable, "-m", "pip", arguments[0], "--quiet", *arguments[1:]]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    raise UsageError(f"pip {arguments[0]} failed: {' '.join(lines[-3:])[:500]}")
