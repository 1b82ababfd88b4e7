"""Two processes of one run: what must be equal is compared, and the death of one is told."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from rtune.display.logs import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOY = ROOT / "tests" / "toys" / "tokens.py"
CONFIG = f"""
from rtune import config as configs


def get_config(variant=None):
  config = configs.default()
  config.task.fn, config.policy.fn = "{TOY}:Task", "{TOY}:policy"
  config.data.train.fn = config.data.val.fn = "mine.py:Data"
  config.data.update(threads=1, prefetch=1, eval_batch_size=8)
  config.metrics = ({{"fn": "{TOY}:metric"}},)
  config.reward.update(fn="mine.py:reward", num_samples=4, steps=5, batch_size=16)
  config.mle.update(steps=3, batch_size=16)
  config.update(log_every=1, tensorboard=False, report=False)
  config.checkpoints.every = 50
  return config
"""
MINE = f"""
import os
from rtune.config.names import resolve

Toy = resolve("{TOY}:Data")
reward = resolve("{TOY}:reward")


class Data(Toy):
  def __getitem__(self, index):
    example = super().__getitem__(index)
    return example | {{"image": example["image"] + int(os.environ.get("SALT", "0"))}}
"""


@contextlib.contextmanager
def two(tmp_path, flags=(), texts=(MINE, MINE), salts=("0", "0")):
  """Starts both, each in a folder of its own; yields them with the files of what they say."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  running = []
  for index in range(2):
    folder = tmp_path / f"host{index}"
    folder.mkdir(exist_ok=True)
    (folder / "config.py").write_text(CONFIG)
    (folder / "mine.py").write_text(texts[index])
    environment = {
      **os.environ,
      **{"PYTHONPATH": str(ROOT), "SALT": salts[index], "RTUNE_COORDINATOR": address},
      **{"RTUNE_NUM_PROCESSES": "2", "RTUNE_PROCESS_ID": str(index), "XLA_FLAGS": ""},
    }
    command = [sys.executable, "-m", "rtune.main", "--config=config.py"]
    command += [f"--workdir={tmp_path / 'run'}", *flags]
    with open(folder / "said", "w") as said:
      running.append(
        subprocess.Popen(command, env=environment, cwd=folder, stdout=said, stderr=said)
      )
  try:
    yield running
  finally:
    for process in running:
      process.kill()
      process.wait()


def said(tmp_path, index):
  return (tmp_path / f"host{index}" / "said").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
  "changes, what",
  [
    ({"texts": (MINE, MINE + "\n# Another version.\n")}, "the code"),
    ({"salts": ("0", "1")}, "the data"),
  ],
)
def test_other_code_or_data_on_one_of_them(tmp_path, changes, what):
  with two(tmp_path, **changes) as running:
    assert [process.wait(timeout=300) for process in running] == [2, 2], said(tmp_path, 0)
  for index in range(2):
    (line,) = [x for x in said(tmp_path, index).splitlines() if x.startswith("error: ")]
    assert line.startswith(f"error: {what} differs between processes: process 0 has ")
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_the_death_of_one_is_told_by_the_other(tmp_path, victim):
  flags = ["--config.mle.steps=100000"]
  with two(tmp_path, flags) as running:
    log, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 300
    while not log.is_file() or log.read_text().count("\n") < 60:
      assert time.monotonic() < deadline and running[0].poll() is None, said(tmp_path, 0)
      time.sleep(0.05)
    running[victim].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    code = running[1 - victim].wait(timeout=120)
    assert time.monotonic() - begun < 120
  told = said(tmp_path, 1 - victim)
  assert "Mend the storage" not in told
  if victim == 0:
    # jax ends the others itself, and faster, when its coordinator is gone.
    assert code == 75 or "another task died" in told
  else:
    assert code == 75, told
    assert f"process {victim} (pid {running[victim].pid} on " in told and " is gone" in told
    assert "the same command" in told
  with two(tmp_path, ["--config.mle.steps=100000"]) as running:
    deadline = time.monotonic() + 300
    while "goes on from the checkpoint of step " not in said(tmp_path, 0):
      assert time.monotonic() < deadline and running[0].poll() is None, said(tmp_path, 0)
      time.sleep(0.2)


HOSTED = """
from rtune.rewards.mark import on_host


@on_host
def hosted(prediction, truth):
  same = prediction.tokens == truth.tokens
  return {"reward": same.mean() + same.all()}
"""


@pytest.mark.slow
def test_images_draw_again_as_in_one_process(tmp_path):
  """With workers of each process's own."""
  text, flags = MINE + HOSTED, ["--config.reward.fn=mine.py:hosted", "--config.reward.workers=1"]
  flags += ["--config.reward.resample=2", "--config.reward.num_samples=3"]
  with two(tmp_path, flags, (text, text)) as running:
    assert [process.wait(timeout=300) for process in running] == [0, 0], said(tmp_path, 0)
  alone = tmp_path / "alone"
  command = [sys.executable, "-m", "rtune.main", "--config=config.py", f"--workdir={alone}", *flags]
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
  subprocess.run(command, env=environment, cwd=tmp_path / "host0", check=True, timeout=300)
  both = [
    [row for row in read_metrics(folder) if "redrawn" in row]
    for folder in (tmp_path / "run", alone)
  ]
  assert len(both[0]) == 5 and sum(row["redrawn"] for row in both[0]) > 0
  for key in ("reward/alike", "alike_left", "redrawn", "reward/mean"):
    one, other = ([row[key] for row in rows] for rows in both)
    assert one == pytest.approx(other, abs=1e-6), key
