"""Troubles a tiny training as a seed says, starting the same command again until it is done."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOY = ROOT / "tests" / "toys" / "tokens.py"
CONFIG = f"""
from rtune import config as configs


def get_config(variant=None):
  config = configs.default()
  config.task.fn, config.policy.fn = "{TOY}:Task", "{TOY}:policy"
  config.data.train.fn = config.data.val.fn = "{TOY}:Data"
  config.data.update(threads=1, prefetch=1, eval_batch_size=8)
  config.metrics = ({{"fn": "{TOY}:metric"}},)
  config.reward.update(fn="{TOY}:reward", num_samples=4, steps=100, batch_size=16)
  config.mle.update(steps=100, batch_size=16)
  config.update(log_every=5, eval_every=50, tensorboard=False, report=False)
  config.checkpoints.update(every=10, keep_last=4)
  return config
"""
PATIENCE_S = 900  # also on a machine that does much else
STOPPED = (0, 75, -signal.SIGTERM)  # done, saved, or asked before anything listened
FULL = (0, 5)  # it may be done before it has anything to write


class World:
  """A training, its workdir, and what troubles it.

  Args:
    folder: for the workdir and what the run says.
    disk: a small one that the workdir lies on, so that it can be full; None: there is none.
  """

  def __init__(self, folder: pathlib.Path, disk: pathlib.Path | None, seed: int):
    self.folder, self.disk = folder, disk
    self.run = (disk or folder) / f"run_{seed}"
    self.rng = np.random.default_rng(seed)
    self.done: list[str] = []  # what has been done to it
    self._process: subprocess.Popen | None = None
    (folder / "config.py").write_text(CONFIG)

  @property
  def said(self) -> str:
    """All that the runs have said."""
    file = self.folder / "said"
    return file.read_text(errors="replace") if file.exists() else ""

  def process(self) -> subprocess.Popen:
    """The run, started if it is not there."""
    if self._process is None or self._process.poll() is not None:
      command = [sys.executable, str(pathlib.Path(__file__).with_name("child.py"))]
      command += [
        str(self.folder),
        f"--config={self.folder / 'config.py'}",
        f"--workdir={self.run}",
      ]
      environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
      with open(self.folder / "said", "a") as said:
        self._process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    return self._process

  def at_work(self) -> None:
    """Waits until the run has logged something new, or has ended."""
    log, deadline = self.run / "metrics.jsonl", time.monotonic() + PATIENCE_S
    before = log.stat().st_size if log.exists() else 0
    while self._process.poll() is None and (log.stat().st_size if log.exists() else 0) == before:
      assert time.monotonic() < deadline, f"nothing new in {PATIENCE_S} s after {self.done}"
      time.sleep(0.01)

  def ends(self, codes: tuple[int, ...]) -> int:
    """Waits for the end of the run, which must be one of these codes."""
    code = self._process.wait(timeout=PATIENCE_S)
    assert code in codes, f"code {code} after {self.done}:\n{self.said[-3000:]}"
    return code

  def kill(self) -> None:
    self._process.kill()
    self._process.wait()

  def steps(self) -> list[pathlib.Path]:
    """Saved steps, the newest one last."""
    found = [p for p in (self.run / "checkpoints").glob("*") if p.name.isdigit()]
    return sorted(found, key=lambda path: int(path.name))


# Faults; those that end the run say with which codes it may.


def _kill(world: World) -> None:
  world.kill()


def _pause(world: World) -> None:
  world.process().send_signal(signal.SIGSTOP)
  time.sleep(world.rng.uniform(0.1, 2.0))
  world.process().send_signal(signal.SIGCONT)


def _terminate(world: World) -> None:
  world.process().send_signal(signal.SIGTERM)
  world.ends(STOPPED)


def _fill_disk(world: World) -> None:
  filler = world.disk / "filler"
  with contextlib.suppress(OSError):  # the run writes as well, so it may be full before
    filler.write_bytes(bytes(max(0, shutil.disk_usage(world.disk).free - 4096)))
  try:
    world.ends(FULL)
  finally:
    filler.unlink()


def _slow_disk(world: World) -> None:
  (world.folder / "slow").write_text(str(world.rng.uniform(0.05, 0.5)))
  time.sleep(world.rng.uniform(0.5, 3.0))
  (world.folder / "slow").unlink()


def _set_clock(world: World) -> None:
  (world.folder / "clock").write_text(str(world.rng.choice([-4e7, -3600.0, 3600.0, 4e7])))


def _damage(world: World, damage: Callable[[pathlib.Path], None]) -> None:
  """Of the newest saved step, where there is another one; a run whose only step is lost is lost."""
  world.kill()
  steps = world.steps()
  if len(steps) > 1:
    files = sorted(p for p in steps[-1].rglob("*") if p.is_file() and p.stat().st_size)
    damage(files[world.rng.integers(len(files))])


def _flip_bit(world: World) -> None:
  def flip(file):
    content = bytearray(file.read_bytes())
    content[world.rng.integers(len(content))] ^= 1 << int(world.rng.integers(8))
    file.write_bytes(content)

  _damage(world, flip)


def _truncate(world: World) -> None:
  _damage(world, lambda file: os.truncate(file, world.rng.integers(file.stat().st_size)))


def _remove_from_step(world: World) -> None:
  _damage(world, pathlib.Path.unlink)


def _remove(world: World) -> None:
  """Of what a run can make anew."""
  world.kill()
  names = ("results.json", "metrics.csv", "parameters.txt", "run.lock")
  for name in world.rng.choice(names, 2, replace=False):
    (world.run / str(name)).unlink(missing_ok=True)


FAULTS = (_kill, _pause, _terminate, _fill_disk, _slow_disk, _set_clock)
FAULTS += (_flip_bit, _truncate, _remove_from_step, _remove)


def trouble(world: World, number: int) -> None:
  """So many faults at random moments, then the run is left to end."""
  faults = [fault for fault in FAULTS if world.disk or fault is not _fill_disk]
  for _ in range(number):
    world.process()
    if world.rng.random() < 0.8:  # else in the start
      world.at_work()
    time.sleep(world.rng.exponential(0.3))
    if world.process().poll() is not None:
      break  # it is done
    fault = faults[world.rng.integers(len(faults))]
    world.done.append(fault.__name__.strip("_"))
    fault(world)
  world.process()
  world.ends((0,))
  assert "Traceback" not in world.said, f"after {world.done}:\n{world.said[-3000:]}"
