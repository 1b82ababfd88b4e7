"""A disk that is full, and a workdir with things of the wrong kind in it: one line, exit code 5."""

import os
import pathlib
import resource
import shutil
import subprocess
import sys

import pytest

from rtune.disk import write_whole
from rtune.errors import StorageError, UsageError
from rtune.store import run_files

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = f"--config={ROOT / 'configs' / 'detection_recall.py'}:tiny"


@pytest.fixture
def small_disk(tmp_path):
  """Mounts a disk of so many bytes; (size) -> its folder."""
  mounted = []

  def mount(size):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(
      command, capture_output=True
    ).returncode:  # fmt: skip
      pytest.skip("needs the right to mount a disk")
    mounted.append(folder)
    return folder

  yield mount
  for folder in mounted:
    subprocess.run(["umount", str(folder)], check=True)


def checkpoints_of(tiny_run, number):
  """The bytes that so many checkpoints of the tiny config take on a disk."""
  kept = tiny_run / "checkpoints"
  blocks = sum(path.stat().st_blocks for path in kept.rglob("*"))
  return 512 * blocks * number // len(list(kept.iterdir()))


def fill(disk, leave=0):
  """Leaves so many bytes free."""
  free = shutil.disk_usage(disk).free
  (disk / "other").write_bytes(b"x" * max(0, free - leave))


def run(workdir, *flags):
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  command = [sys.executable, "-m", "rtune.main", TINY, f"--workdir={workdir}", *flags]
  return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)


def the_error(done):
  """The one line of a command that a disk has ended."""
  assert done.returncode == 5, done.stderr
  assert "Traceback" not in done.stderr and "never retrieved" not in done.stderr
  (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
  return line


def test_a_file_is_written_whole_or_not_at_all(small_disk):
  disk = small_disk("1m")
  path = disk / "config.json"
  write_whole(path, "before")
  fill(disk, leave=4096)
  with pytest.raises(StorageError, match=r"No space left .*bytes free, 100,000 needed"):
    write_whole(path, "x" * 100_000)
  assert path.read_text() == "before"
  assert sorted(p.name for p in disk.iterdir()) == ["config.json", "other"]


def test_a_write_that_is_cut_off_leaves_what_was_there(tmp_path):
  """As by a quota, or a limit of the size of files."""
  path = tmp_path / "config.json"
  write_whole(path, "before")
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
  try:
    with pytest.raises(StorageError, match=r"bytes free, 100,000 needed"):
      write_whole(path, "x" * 100_000)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert path.is_file() and path.read_text() == "before"
  assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_a_start_on_a_full_disk(small_disk):
  disk = small_disk("1m")
  fill(disk)
  line = the_error(run(disk / "run"))
  assert "No space left" in line and "bytes free" in line
  assert not any(path.name.endswith(".tmp") for path in (disk / "run").rglob("*"))


@pytest.mark.slow
def test_a_run_that_fills_the_disk_goes_on_when_there_is_room(small_disk, tiny_run):
  disk = small_disk(checkpoints_of(tiny_run, 6))  # of 15
  workdir = disk / "run"
  flags = ["--config.checkpoints.every=2", "--config.tensorboard=false"]
  flags += ["--config.report=false", "--config.checkpoints.keep_every=2"]
  line = the_error(run(workdir, *flags))
  assert "bytes free" in line
  the_error(run(workdir, *flags))  # and again, as long as there is no room
  kept = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
  for step in kept[:-1]:
    shutil.rmtree(workdir / "checkpoints" / str(step))
  flags[-1] = "--config.checkpoints.keep_every=0"
  done = run(workdir, *flags)
  assert done.returncode == 0, done.stderr
  assert f"goes on from the checkpoint of step {kept[-1]}" in done.stderr


@pytest.mark.slow
def test_training_goes_on_without_saves_where_it_is_told_to(small_disk, tiny_run):
  disk = small_disk(checkpoints_of(tiny_run, 6))  # of 10
  flags = ["--config.checkpoints.every=2", "--config.tensorboard=false"]
  flags += ["--config.report=false", "--config.checkpoints.keep_every=2"]
  flags += ["--config.checkpoints.on_error=warn", "--config.phases=('mle',)"]
  done = run(disk / "run", *flags)
  assert done.stderr.count("Training goes on, and the next save tries again") > 1
  assert "Traceback" not in done.stderr
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
  "name", ["config.json", "results.json", "metrics.jsonl", "report.html", "parameters.txt"]
)
def test_a_folder_in_place_of_a_file(tmp_path, name):
  (tmp_path / name).mkdir()
  with pytest.raises(UsageError, match=rf"{name} is a folder, not a file"):
    run_files.check_kinds(tmp_path)


@pytest.mark.parametrize("name", ["weights", "checkpoints", "tensorboard"])
def test_a_file_in_place_of_a_folder(tmp_path, name):
  (tmp_path / name).write_text("")
  with pytest.raises(UsageError, match=rf"{name} is a file, not a folder"):
    run_files.check_kinds(tmp_path)


def test_wrong_kinds_are_found_before_anything_is_written(tmp_path):
  (tmp_path / "weights").mkdir()
  (tmp_path / "weights" / "mle.safetensors").mkdir()
  done = run(tmp_path)
  assert done.returncode == 2
  assert "mle.safetensors is a folder, not a file" in done.stderr.splitlines()[-1]
  assert [path.name for path in tmp_path.iterdir()] == ["weights"]
