"""Whatever happens to a run, the same command ends with the weights of one that was left alone.

Each seed is a row of faults at random moments: killed, stopped and continued, asked to stop, a full
disk, a slow one, clocks that jump, bits that flip, files that are cut or gone. `RTUNE_CHAOS_S` says
for how many seconds new seeds are tried, ten minutes by default; `RTUNE_CHAOS_SEED` where they
begin.
"""

import itertools
import os
import pathlib
import subprocess
import time

import pytest

from rtune.config.names import resolve
from rtune.display.logs import read_metrics
from rtune.store import run_files

DRIVER = pathlib.Path(__file__).with_name("driver.py")
World, trouble = (resolve(f"{DRIVER}:{name}") for name in ("World", "trouble"))
SECONDS = float(os.environ.get("RTUNE_CHAOS_S", "600"))
FIRST = int(os.environ.get("RTUNE_CHAOS_SEED", "1000"))
FAULTS = 6  # of a seed
KEPT = (0,)  # seeds that are always tried: those that once failed, and a first one

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 1800)]


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
  """A disk that can be filled; None where none may be mounted."""
  folder = tmp_path_factory.mktemp("disk")
  command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
  try:
    mounted = subprocess.run(command, capture_output=True).returncode == 0
  except OSError:
    mounted = False
  yield folder if mounted else None
  if mounted:
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """The workdir of the run without any faults. Read only."""
  world = World(tmp_path_factory.mktemp("undisturbed"), None, 0)
  trouble(world, 0)
  return world.run


def check(seed, folder, disk, undisturbed):
  """Troubles one run and compares what it leaves."""
  world = World(folder, disk, seed)
  trouble(world, FAULTS)
  story = f"seed {seed}: {', '.join(world.done)}"
  for phase in ("mle", "reward"):
    one, other = (run_files.weights_path(f, phase).read_bytes() for f in (world.run, undisturbed))
    assert one == other, f"weights of {phase} differ after {story}"
    results = [run_files.read_results(f)[phase] for f in (world.run, undisturbed)]
    assert repr(results[0]) == repr(results[1]), f"results of {phase} differ after {story}"
  rows = [repr(read_metrics(f, times=False)) for f in (world.run, undisturbed)]
  assert rows[0] == rows[1], f"the log differs after {story}"
  print(story)


@pytest.mark.parametrize("seed", KEPT)
def test_seeds_that_are_kept(seed, tmp_path, disk, undisturbed):
  check(seed, tmp_path, disk, undisturbed)


def test_new_seeds(tmp_path, disk, undisturbed):
  deadline = time.monotonic() + SECONDS
  for seed in itertools.count(FIRST):
    folder = tmp_path / str(seed)
    folder.mkdir()
    check(seed, folder, disk, undisturbed)
    if time.monotonic() > deadline:
      break
