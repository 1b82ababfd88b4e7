"""Whole runs: what they leave, and that no interruption and no number of devices changes them."""

import csv
import itertools
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from rtune import config as configs
from rtune import main
from rtune.config.load import load_config
from rtune.config.names import resolve
from rtune.devices import processes, sharding
from rtune.display.logs import read_metrics
from rtune.errors import Preempted
from rtune.store import best_weights, run_files, weights
from rtune.training import loop

ROOT = pathlib.Path(__file__).resolve().parents[2]
Watched = resolve(f"{ROOT / 'tests' / 'watched.py'}:Watched")
TINY = f"{ROOT / 'configs' / 'detection_recall.py'}:tiny"
# As the fixture `tiny_run` was made, which is what uninterrupted looks like.
LIKE_TINY_RUN = {"checkpoints.keep_every": "10"}
# For runs that need not be equal to the last bit: they compile in half the time.
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def load(**overrides):
  flags = {**LIKE_TINY_RUN, **{key.replace("__", "."): v for key, v in overrides.items()}}
  return load_config(TINY, [(key, str(value)) for key, value in flags.items()])


def leaves_of(folder, phase):
  return weights.flatten(weights.load_weights(run_files.weights_path(folder, phase)))


def assert_same_run(one, other, phases=("mle", "reward")):
  """Bit for bit, times of day and durations left out."""
  for phase in phases:
    a, b = (run_files.weights_path(folder, phase).read_bytes() for folder in (one, other))
    assert a == b, f"weights of {phase}"
  # As text: where there is no value, NaN is not equal to itself.
  rows, wanted = (repr(read_metrics(folder, times=False)) for folder in (one, other))
  assert rows == wanted
  results, wanted = (run_files.read_results(folder) for folder in (one, other))
  assert repr({phase: results[phase] for phase in phases}) == repr(
    {phase: wanted[phase] for phase in phases}
  )


def test_a_run_leaves_all_that_is_promised(tiny_run):
  assert {path.name for path in tiny_run.iterdir()} >= {
    *("config.json", "metrics.jsonl", "metrics.csv", "tensorboard", "checkpoints", "weights"),
    *("results.json", "parameters.txt"),
  }
  assert {p.name for p in (tiny_run / "weights").iterdir()} == {
    "mle.safetensors",
    "reward.safetensors",
    # Which is best is seen in test_best.py.
    *(best_weights.find(tiny_run, phase).path.name for phase in ("mle", "reward")),
    "manifest.json",
  }
  assert any((tiny_run / "tensorboard").iterdir())
  kept = {int(path.name) for path in (tiny_run / "checkpoints").iterdir()}
  assert kept == {10, 20, 25, 30}
  assert "decoder/LogitsDense/kernel" in (tiny_run / "parameters.txt").read_text()
  saved = configs.from_json((tiny_run / "config.json").read_text())
  assert saved.mle == load().mle
  assert len(saved.task.args["classes"]) == len(saved.task.args["category_ids"]) > 1


def test_results(tiny_run):
  def refuse(constant):
    pytest.fail(f"{constant} is not JSON")

  results = json.loads((tiny_run / "results.json").read_text(), parse_constant=refuse)
  assert set(results) == {"mle", "reward", "seconds"}
  assert set(results["seconds"]) == {"mle", "reward"}
  assert all(seconds > 0 for seconds in results["seconds"].values())
  for phase in ("mle", "reward"):
    assert {f"val/{name}" for name in ("AR", "AP", "AP50", "boxes", "reward")} <= set(
      results[phase]
    )
    assert all(isinstance(value, float) for value in results[phase].values())


def test_metrics(tiny_run):
  rows = read_metrics(tiny_run)
  assert [row["step"] for row in rows] == [5, 10, 15, 20, 25, 30]
  for row in rows:
    assert {"loss", "grad_norm", "lr", "entropy", "length", "skipped", "time/data"} <= set(row)
    assert ("reward/mean" in row) == (row["step"] > 20)
    assert ("val/AR" in row) == (row["step"] in (10, 20, 30))
    assert not any(math.isnan(v) for name, v in row.items() if not name.startswith("val/"))
  assert rows[3]["loss"] < rows[0]["loss"]
  assert max(row.get("log_prob_gap", 0) for row in rows) < 1e-4
  # Warmup to the peak in 4 steps, then a cosine over the other 16: step 5 is the fifth.
  assert rows[0]["lr"] == pytest.approx(1.5e-3, rel=1e-5)
  assert rows[3]["lr"] == pytest.approx(0.75e-3 * (1 + math.cos(math.pi * 15 / 16)), rel=1e-4)
  assert {"time/sample", "time/score", "time/update"} <= set(rows[-1])
  assert [row["step"] for row in rows if "time/eval" in row] == [15]  # what follows step 10's
  with open(tiny_run / "metrics.csv") as file:
    table = list(csv.DictReader(file))
  assert [int(row["step"]) for row in table] == [5, 10, 15, 20, 25, 30]
  assert float(table[2]["loss"]) == rows[2]["loss"]


def test_a_finished_run_is_not_run_again(tiny_run, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(processes, "start", lambda auto: None)
  folder = tmp_path / "again"
  shutil.copytree(tiny_run, folder)
  results = loop.run(load(), str(folder))
  assert results == run_files.read_results(tiny_run)
  capsys.readouterr()
  assert main.main(arguments(folder)) == 0
  told = capsys.readouterr().err
  assert "mle: already complete" in told
  assert "reward: already complete" in told
  table = told[told.index("phase ") :].splitlines()
  assert [line.split()[0] for line in table[2:4]] == ["mle", "reward"]
  assert_same_run(folder, tiny_run)
  assert repr(read_metrics(folder)) == repr(read_metrics(tiny_run))


@pytest.fixture
def watch(monkeypatch):
  """Sets what is called after every step, with phase and step."""

  def set_seen(seen):
    monkeypatch.setattr(Watched, "seen", staticmethod(seen))
    monkeypatch.setattr(loop, "Progress", Watched)

  return set_seen


def without_transfers(assemble):
  """`assemble` whose steps may not, from the second on, take anything from the host by the way."""

  def assembled(*args):
    made, before = assemble(*args), itertools.count()

    def guarded(state, batch):
      # On CPU jax refuses what goes to the device; what comes back costs nothing there.
      with jax.transfer_guard("disallow" if next(before) else "allow"):
        return made.programs.step(state, batch)

    return made._replace(programs=made.programs._replace(step=guarded))

  return assembled


def test_a_second_run_is_equal_compiles_once_and_transfers_nothing(
  tiny_run, tmp_path, watch, monkeypatch, compiled
):
  """Knobs that only say how a run is watched and saved are set otherwise; the same comes out."""
  at_step = {}

  def seen(phase, step):
    at_step[phase, step] = len(compiled)

  watch(seen)
  monkeypatch.setattr(loop, "assemble", without_transfers(loop.assemble))
  harmless = {
    **{"data__threads": 2, "data__prefetch": 1, "tensorboard": False, "max_bad_steps": 9},
    **{"eval_every": 4, "checkpoints__every": 7, "checkpoints__keep_last": 1, "log_every": 1},
  }
  loop.run(load(**harmless), str(tmp_path))
  for phase in ("mle", "reward"):
    one, other = (run_files.weights_path(f, phase).read_bytes() for f in (tmp_path, tiny_run))
    assert one == other
  own = {row["step"]: row for row in read_metrics(tmp_path, times=False)}
  for row in read_metrics(tiny_run, times=False):
    assert {name: own[row["step"]][name] for name in row if not name.startswith("val/")} == {
      name: value for name, value in row.items() if not name.startswith("val/")
    }
  assert not (tmp_path / "tensorboard").exists()
  # The evaluation after step 4 and the save after step 7 may compile something of their own.
  for phase, last in (("mle", 20), ("reward", 10)):
    counts = [at_step[phase, step] for step in range(1, last + 1)]
    fresh = {step: b - a for step, (a, b) in enumerate(itertools.pairwise(counts), start=2)}
    assert at_step[phase, 1] > 0
    assert {step: n for step, n in fresh.items() if n and step not in (2, 5, 8)} == {}


@pytest.mark.slow
def test_another_seed_is_another_run(tiny_run, tmp_path):
  loop.run(load(seed=1, phases="('mle',)", eval_every=0), str(tmp_path))
  one, other = (read_metrics(folder, times=False)[:4] for folder in (tmp_path, tiny_run))
  for row, unlike in zip(one, other, strict=True):
    assert row["step"] == unlike["step"]
    assert row["loss"] != unlike["loss"]
  got, unlike = (leaves_of(folder, "mle") for folder in (tmp_path, tiny_run))
  for name in ("encoder/embedding/kernel", "decoder/LogitsDense/kernel"):
    # Not the same start with other batches: the weights have little in common.
    assert np.abs(np.corrcoef(got[name].ravel(), unlike[name].ravel())[0, 1]) < 0.5


@pytest.mark.slow
def test_interrupted_again_and_again(tiny_run, tmp_path, watch, monkeypatch):
  """A crash, one in the last evaluation, a SIGTERM: each time the same command goes on."""

  def crash(phase, step):
    if (phase, step) == ("mle", 13):
      raise RuntimeError("crash")

  watch(crash)
  with pytest.raises(RuntimeError, match="crash"):
    loop.run(load(), str(tmp_path))
  assert read_metrics(tmp_path)[-1]["step"] == 10

  def no_results(*_):
    raise RuntimeError("crash at the end")

  watch(lambda phase, step: None)
  with monkeypatch.context() as patch:
    patch.setattr(run_files, "add_results", no_results)
    with pytest.raises(RuntimeError, match="crash at the end"):
      loop.run(load(), str(tmp_path))
  assert run_files.read_results(tmp_path) == {}

  trained = []

  def ask_to_stop(phase, step):
    trained.append(phase)
    if (phase, step) == ("reward", 4):
      os.kill(os.getpid(), signal.SIGTERM)

  watch(ask_to_stop)
  handler = signal.getsignal(signal.SIGTERM)
  with pytest.raises(Preempted, match=r"SIGTERM; reward step 4 of 10 is saved") as caught:
    loop.run(load(), str(tmp_path))
  assert caught.value.exit_code == 75
  assert signal.getsignal(signal.SIGTERM) == handler
  assert trained == ["reward"] * 4, "only the evaluation of mle was missing"
  assert (tmp_path / "checkpoints" / "24").is_dir()

  loop.run(load(), str(tmp_path))
  assert len(trained) == 10
  assert_same_run(tmp_path, tiny_run)


@pytest.mark.slow
def test_phases_start_from_given_weights(tiny_run, tmp_path, capsys):
  """Without a learning rate the weights stay, which shows what they were; KL has a reference."""
  still = {
    **{"control__optim__lr": 0.0, "control__optim__warmup_steps": 0, "control__steps": 1},
    **{"reward__optim__lr": 0.0, "reward__optim__warmup_steps": 0, "reward__steps": 3},
  }
  phases = "('mle', 'control', 'reward')"
  config = load(init_from=tiny_run, phases=phases, reward__kl=0.1, log_every=1, **still)
  results = loop.run(config, str(tmp_path))
  assert "mle: " in capsys.readouterr().err
  assert set(results) == {"control", "reward", "seconds"}
  given = leaves_of(tiny_run, "mle")
  for phase in ("control", "reward"):
    got = leaves_of(tmp_path, phase)
    assert got.keys() == given.keys()
    for name, value in given.items():
      np.testing.assert_array_equal(got[name], value)
  rows = read_metrics(tmp_path)
  assert [row["step"] for row in rows] == [1, 2, 3, 4]
  assert [abs(row["kl"]) < 1e-6 for row in rows[1:]] == [True] * 3
  assert results["control"]["val/AR"] == run_files.read_results(tiny_run)["mle"]["val/AR"]


def test_rewards_that_never_work_end_the_run(tiny_run, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(processes, "start", lambda auto: None)
  (tmp_path / "broken.py").write_text(
    "def reward(prediction, truth):\n  return prediction.scores[0] * float('nan')\n"
  )
  workdir = tmp_path / "run"
  code = main.main([
    *(f"--config={TINY}", f"--workdir={workdir}", f"--config.init_from={tiny_run}"),
    *("--config.phases=('reward',)", f"--config.reward.fn={tmp_path / 'broken.py'}:reward"),
    *("--config.max_bad_steps=2", "--config.log_every=2", "--config.eval_every=0"),
  ])  # fmt: skip
  last = capsys.readouterr().err.splitlines()[-1]
  assert code == 4
  assert last.startswith(
    "error: step 2: the last 2 batches had no answer with a valid reward and were left out."
  )
  assert not (workdir / "weights").exists()
  assert read_metrics(workdir)[-1]["reward/invalid"] == 12


# What runs in processes of its own.


def start(workdir, *flags, devices=1):
  """The tiny run as a user starts it; what it says goes to `said` in the workdir's parent."""
  host = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  if devices > 1:
    environment |= QUICK | {"XLA_FLAGS": host}
  command = [sys.executable, "-m", "rtune.main", *arguments(workdir, *flags)]
  with open(workdir.with_suffix(".said"), "a") as said:
    return subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=workdir.parent)


def arguments(workdir, *flags):
  like = [f"--config.{key}={value}" for key, value in LIKE_TINY_RUN.items()]
  return [f"--config={TINY}", f"--workdir={workdir}", *like, *flags]


def said(workdir):
  return workdir.with_suffix(".said").read_text()


def finish(workdir, *flags, devices=1):
  assert start(workdir, *flags, devices=devices).wait(timeout=500) == 0, said(workdir)


def after_a_new_line(process, workdir, timeout_s=300):
  """Waits until the run has logged something; False if it has ended before."""
  path, before = workdir / "metrics.jsonl", len(read_metrics(workdir))
  size, deadline = path.stat().st_size if path.exists() else 0, time.monotonic() + timeout_s
  while process.poll() is None:
    assert time.monotonic() < deadline, said(workdir)
    new = path.exists() and path.stat().st_size != size
    if new and len(read_metrics(workdir)) != before:
      return True
    time.sleep(0.005)
  return False


def kill_and_restart(workdir, kills, rng):
  """Kills the run so many times, then lets it end; how many of these met it at work."""
  met = 0
  for number in range(kills):
    process = start(workdir)
    # Some kills in the start, most in training, saves and evaluations.
    if number % 4 != 3:
      after_a_new_line(process, workdir)
    time.sleep(rng.exponential(0.3))
    met += process.poll() is None
    process.kill()
    process.wait()
  finish(workdir)
  return met


@pytest.mark.slow
def test_killed_at_random_moments(tiny_run, tmp_path):
  workdir = tmp_path / "run"
  assert kill_and_restart(workdir, 3, np.random.default_rng(0)) >= 2
  assert_same_run(workdir, tiny_run)
  with open(workdir / "metrics.csv") as file:
    assert [row["step"] for row in csv.DictReader(file)] == ["5", "10", "15", "20", "25", "30"]


@pytest.mark.slow
def test_killed_at_many_random_moments(tiny_run, tmp_path):
  rng, met = np.random.default_rng(1), 0
  for number in itertools.count():
    workdir = tmp_path / str(number)
    met += kill_and_restart(workdir, 5, rng)
    assert_same_run(workdir, tiny_run)
    if met >= 20:
      break


@pytest.mark.slow
def test_sigterm_saves_and_asks_to_be_started_again(tiny_run, tmp_path):
  workdir = tmp_path / "run"
  process = start(workdir)
  assert after_a_new_line(process, workdir), said(workdir)
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=300) == 75, said(workdir)
  last = said(workdir).splitlines()[-1]
  assert last.startswith("stopped: Stopped by SIGTERM; ")
  assert last.endswith(" saved. The same command goes on.")
  finish(workdir)
  assert_same_run(workdir, tiny_run)


# Adam would turn what rounding leaves of a zero gradient into steps of full size.
PLAIN = [
  *("--config.mle.steps=4", "--config.mle.optim.warmup_steps=0", "--config.reward.steps=3"),
  *("--config.mle.optim.name=sgd", "--config.mle.optim.b1=0.0", "--config.mle.optim.lr=0.1"),
  *("--config.reward.optim.name=sgd", "--config.reward.optim.b1=0.0"),
  *("--config.reward.optim.lr=1.0", "--config.reward.optim.warmup_steps=0"),
  *("--config.log_every=1", "--config.eval_every=0", "--config.tensorboard=false"),
]
# A reward that every answer of an untrained model gets something of.
DENSE = """
import jax.numpy as jnp

def reward(prediction, truth):
  return jnp.mean(prediction.boxes) + jnp.mean(truth.boxes) + jnp.mean(prediction.present)
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
  """A short run with plain gradient steps on one device, and the flags that repeat it."""
  folder = tmp_path_factory.mktemp("plain")
  (folder / "dense.py").write_text(DENSE)
  flags = [*PLAIN, f"--config.reward.fn={folder / 'dense.py'}:reward"]
  parsed = main.parse_flags(arguments(folder / "run", *flags))
  loop.run(load_config(parsed.config, parsed.overrides), parsed.workdir)
  return folder / "run", flags


def assert_close_runs(one, other):
  """Equal but for the order in which floating point sums."""
  for phase in ("mle", "reward"):
    got, want = (leaves_of(folder, phase) for folder in (one, other))
    for name, value in want.items():
      np.testing.assert_allclose(got[name], value, atol=2e-6, err_msg=f"{phase} {name}")
  before = leaves_of(other, "mle")
  moved = max(np.abs(value - before[name]).max() for name, value in want.items())
  assert moved > 1e-4, "a reward phase that does nothing shows nothing"
  rows, wanted = (read_metrics(folder, times=False) for folder in (one, other))
  assert [row.keys() for row in rows] == [row.keys() for row in wanted]
  for row, want in zip(rows, wanted, strict=True):
    for name, value in want.items():
      assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), name


@pytest.mark.slow  # tests/devices/test_sharding.py trains on two processes among the fast ones
def test_four_devices_are_one(plain, tmp_path):
  reference, flags = plain
  workdir = tmp_path / "run"
  finish(workdir, *flags, devices=4)
  assert "4 x cpu" in said(workdir)
  assert_close_runs(workdir, reference)


@pytest.mark.slow
def test_spread_parameters_train_like_whole_ones(plain, tmp_path):
  """The decoder is wide enough for its perceptrons to be spread over four devices."""
  flags = [*plain[1], "--config.model.decoder.mlp_dim=32768", "--config.shard_parameters=true"]
  for devices in (1, 4):
    finish(tmp_path / f"{devices}", *flags, devices=devices)
  mesh = jax.sharding.AbstractMesh((4, 1), ("data", "fsdp"))
  homes = sharding.param_shardings(mesh, leaves_of(tmp_path / "4", "mle"), "fsdp")
  assert any("data" in home.spec for home in homes.values()), "nothing was spread"
  assert_close_runs(tmp_path / "4", tmp_path / "1")


def launch_two(workdir, *flags):
  """The tiny run as two processes on this machine."""
  script = [str(ROOT / "launch" / "local.sh"), "2", "--", *arguments(workdir, *flags)]
  environment = {**os.environ, **QUICK, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
  with open(workdir.with_suffix(".said"), "a") as said:
    return subprocess.Popen(["bash", *script], env=environment, stdout=said, stderr=said)


@pytest.mark.slow
def test_two_processes_are_one(plain, tmp_path):
  reference, flags = plain
  workdir = tmp_path / "run"
  assert launch_two(workdir, *flags).wait(timeout=500) == 0, said(workdir)
  assert said(workdir).count("2 process(es)") == 1, "only the first process speaks"
  assert_close_runs(workdir, reference)
  seconds = run_files.read_results(workdir).pop("seconds")
  assert set(seconds) == {"mle", "reward"}


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on_as_one(plain, tmp_path):
  reference, flags = plain
  workdir = tmp_path / "run"
  process = launch_two(workdir, *flags)
  assert after_a_new_line(process, workdir), said(workdir)
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=300) == 75, said(workdir)
  assert "stopped: Stopped by SIGTERM; " in said(workdir)
  finish(workdir, *flags)
  assert_close_runs(workdir, reference)
