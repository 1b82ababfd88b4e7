"""launch/slurm.sh on a real SLURM: a controller and two nodes, all on this machine.

Debian: apt-get install slurm-wlm. Its slurmd may run once on a host, so each node has a namespace
of its own, with a host name and a hosts file; that takes root.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from rtune.store import run_files

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODES = ("node-a", "node-b")
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged", "unshare")
CONF = """
ClusterName=test
SlurmctldHost=node-a(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket
SlurmctldPort=26817
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
NodeName=node-a NodeAddr=127.0.0.1 Port=26820 CPUs=1
NodeName=node-b NodeAddr=127.0.0.2 Port=26821 CPUs=1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

pytestmark = [
  pytest.mark.slow,
  pytest.mark.timeout(1200),
  pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)) or os.getuid() != 0,
    reason="needs root and apt-get install slurm-wlm",
  ),
]


@pytest.fixture
def cluster():
  """(arguments of a SLURM command) -> what it prints; all daemons end with the test."""
  # Sockets have short names only, so not in pytest's folder.
  folder = pathlib.Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
  folder.chmod(0o755)
  for name in ("state", *(f"spool-{node}" for node in NODES)):
    (folder / name).mkdir()
  (folder / "slurm.conf").write_text(CONF.format(folder=folder))
  (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
  (folder / "hosts").write_text(f"127.0.0.1 localhost {' '.join(NODES)}\n")
  key = folder / "munge.key"
  key.write_bytes(os.urandom(1024))
  key.chmod(0o600)
  environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

  def command(*args: str) -> str:
    done = subprocess.run(args, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{args}: {done.stderr}"
    return done.stdout

  munge = [f"--{name}={folder / file}" for name, file in MUNGE.items()]
  daemons = [subprocess.Popen(["munged", "--force", "--foreground", *munge])]
  try:
    await_that(lambda: (folder / "munge.socket").exists(), 20)
    for node, daemon in (("node-a", "slurmctld"), ("node-a", "slurmd"), ("node-b", "slurmd")):
      inside = f"mount --bind {folder}/hosts /etc/hosts; hostname {node}; exec {daemon} -D"
      args = ["unshare", "--uts", "--mount", "sh", "-c", inside]
      with open(folder / f"{daemon}-{node}.out", "w") as out:
        daemons.append(subprocess.Popen(args, env=environment, stdout=out, stderr=out))
    await_that(lambda: command("sinfo", "-h", "-o", "%T %D").strip() == "idle 2", 60)
    yield command
    command("scancel", "--user=root")
    await_that(lambda: not command("squeue", "-h").strip(), 90)
  finally:
    for daemon in reversed(daemons):
      daemon.terminate()
    for daemon in daemons:
      with contextlib.suppress(subprocess.TimeoutExpired):
        daemon.wait(30)
      daemon.kill()
    shutil.rmtree(folder, ignore_errors=True)


MUNGE = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid"}
MUNGE |= {"log-file": "munged.log", "seed-file": "munge.seed"}


def await_that(holds, seconds: float) -> None:
  end = time.monotonic() + seconds
  while True:
    with contextlib.suppress(AssertionError):
      if holds():
        return
    assert time.monotonic() < end, f"after {seconds} s this does not hold yet"
    time.sleep(0.5)


def submit(cluster, folder: pathlib.Path) -> str:
  """Starts a tiny run on both nodes; its number."""
  arguments = ["--config", f"{ROOT / 'configs' / 'detection_recall.py'}:tiny"]
  arguments += ["--workdir", str(folder), "--config.report=False", "--config.tensorboard=False"]
  arguments += ["--config.mle.steps=150", '--config.phases=("mle",)', "--config.eval_every=0"]
  path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
  exported = f"ALL,PATH={path},PYTHONPATH={ROOT},JAX_PLATFORMS=cpu"
  options = ["--nodes=2", f"--output={folder}.out", f"--export={exported}", "--parsable"]
  return cluster("sbatch", *options, str(ROOT / "launch" / "slurm.sh"), *arguments).strip()


def state(cluster, job: str) -> str:
  shown = dict(
    pair.split("=", 1) for pair in cluster("scontrol", "show", "job", job).split() if "=" in pair
  )
  return shown["JobState"]


def await_state(cluster, job: str, wanted: str, seconds: float) -> None:
  """Says what SLURM thinks of the job and of its nodes where it does not get there."""
  try:
    await_that(lambda: state(cluster, job) == wanted, seconds)
  except AssertionError as error:
    seen = cluster("scontrol", "show", "job", job), cluster("sinfo", "-R"), cluster("sinfo", "-N")
    raise AssertionError("\n".join([f"{job} is not {wanted}: {error}", *seen])) from error


def weights(folder: pathlib.Path) -> dict[str, np.ndarray]:
  return safetensors.numpy.load_file(run_files.weights_path(folder, "mle"))


def test_a_preempted_job_is_queued_again_and_ends_with_the_same_weights(cluster, tmp_path):
  whole, parted = tmp_path / "whole", tmp_path / "parted"
  first = submit(cluster, whole)
  await_state(cluster, first, "COMPLETED", 400)
  second = submit(cluster, parted)
  log = parted / "metrics.jsonl"
  await_that(lambda: log.is_file() and len(log.read_text().splitlines()) > 3, 300)
  cluster("scancel", f"--signal={signal.SIGTERM.name.removeprefix('SIG')}", second)
  await_state(cluster, second, "PENDING", 120)
  assert "mle step" in pathlib.Path(f"{parted}.out").read_text()
  assert not run_files.weights_path(parted, "mle").exists()
  # SLURM lets a job rest for two minutes.
  cluster("scontrol", "update", f"JobId={second}", "StartTime=now")
  await_state(cluster, second, "COMPLETED", 400)
  one, other = weights(whole), weights(parted)
  for name, value in one.items():
    np.testing.assert_array_equal(value, other[name], err_msg=name)
  steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
  assert steps == sorted(steps)
