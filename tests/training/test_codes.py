"""The phase codes: its step, and whole runs that begin with it."""

import contextlib
import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rtune import config, predict
from rtune.analyze import __main__ as analyze
from rtune.config.names import resolve
from rtune.devices import processes, sharding
from rtune.devices.compiling import jit_once
from rtune.display.logs import read_metrics
from rtune.display.progress import Progress
from rtune.errors import Preempted, UsageError
from rtune.report.write import write_report
from rtune.store import run_files, weights
from rtune.training import codes, evaluation, loop, open_data, restore, update
from rtune.training.imitate import imitation
from rtune.training.optim import Optimizer, of_mixed_types
from rtune.training.phases import phase_of
from rtune.training.setup import metrics_of

TOY = pathlib.Path(__file__).with_name("coded_toy.py")
SIZE, Find, Squares, toy_config = (
  resolve(f"{TOY}:{name}") for name in ("SIZE", "Find", "Squares", "toy_config")
)
CODES = toy_config().task.args["codes"]
OPTIMIZER = Optimizer(*of_mixed_types(optax.adam(1e-2)), optax.tree.norm)


@pytest.fixture(autouse=True)
def quiet(monkeypatch, quick_compiles):
  """Commands start up as in one process of many tests: without settings that outlast them."""
  monkeypatch.setattr(processes, "start", lambda auto=False: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_compiles):
  """The workdir of a run of three phases, with its report. Read only."""
  folder = tmp_path_factory.mktemp("coded") / "run"
  loop.run(toy_config(), str(folder))
  write_report(folder)
  return folder


@functools.cache
def first_state(task):
  variables = jit_once(task.codes_of().init)(jax.random.key(0))
  return jax.tree.map(np.asarray, codes.init_state(variables, OPTIMIZER))


def batch_of(size=8):
  examples = [Squares(seed=5)[index] for index in range(size)]
  return {n: jnp.stack([jnp.asarray(x[n]) for x in examples]) for n in ("image", "mask")}


def made_of(task, policy, settings, seed, frozen):
  """What a step is made of."""
  return update.Making(
    task,
    policy,
    settings,
    frozen,
    OPTIMIZER,
    key=jax.random.key(seed),
    shardings=None,
    mesh=sharding.make_mesh(),
    reference=None,
    clock=contextlib.nullcontext,
  )


def stepped(task, batch, **phase):
  """The state after one update, and its metrics; the state before it is given away."""
  settings = config.Coding(**{"batch_size": 8, **phase})
  step = codes.coding(made_of(task, None, settings, 1, {})).step
  return step(jax.tree.map(jnp.asarray, first_state(task)), batch)


def test_a_step_learns_and_says_what_it_used():
  task = Find({**CODES, "code_dropout": "none"})
  before = first_state(task)
  after, metrics = stepped(task, batch_of())
  assert {"loss", "loss_mask", "grad_norm", "usage", "perplexity", "revived"} <= set(metrics)
  assert float(metrics["loss"]) == pytest.approx(np.log(2), rel=1e-5)
  assert 1 <= float(metrics["perplexity"]) <= 16 * float(metrics["usage"]) + 1e-3
  used = 0.995 * 16 + 8 * CODES["code_length"]
  assert float(after.params["state"]["counts"].sum()) == pytest.approx(used, rel=1e-5)
  head = after.params["params"]["head_mask"]["kernel"]
  assert np.abs(head - before.params["params"]["head_mask"]["kernel"]).max() > 1e-3
  assert int(after.step) == 1


def test_a_batch_in_parts_is_the_batch():
  task = Find({**CODES, "code_dropout": "none"})
  whole, parts = (stepped(task, batch_of(), accumulate=n) for n in (1, 4))
  for one, other in zip(*(jax.tree.leaves(x[0].params) for x in (whole, parts)), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
  for name in ("loss", "loss_mask", "usage", "perplexity"):
    np.testing.assert_allclose(whole[1][name], parts[1][name], rtol=1e-5)


def test_an_update_that_is_not_finite_leaves_the_dictionary_too(monkeypatch):
  loss = Find.code_loss
  monkeypatch.setattr(Find, "code_loss", lambda *args: (loss(*args)[0] * jnp.nan, {}))
  task = Find({**CODES, "code_dropout": "none", "momentum": 0.9})
  before = first_state(task)
  after, metrics = stepped(task, batch_of())
  assert int(metrics["skipped_in_a_row"]) == 1
  jax.tree.map(np.testing.assert_array_equal, after.params, before.params)


def test_a_run_of_three_phases(run):
  results = run_files.read_results(run)
  assert list(results) == ["codes", "seconds", "mle", "reward"]
  for phase in ("codes", "mle", "reward"):
    assert {"val/accuracy", "val/reward"} == set(results[phase])
  rows = read_metrics(run)
  assert {"usage", "perplexity", "loss_mask", "val/accuracy"} <= set().union(*rows[:4])
  assert [row["step"] for row in rows if "nll" in row] == [5, 6, 7, 8]
  assert max(row.get("log_prob_gap", 0) for row in rows) < 1e-4
  names = {path.name for path in (run / "weights").iterdir()}
  assert names == {f"{name}.safetensors" for name in ("codes", "mle", "reward")} | {"manifest.json"}
  assert "state/dictionary" in (run / "parameters_codes.txt").read_text()
  assert "decoder/" in (run / "parameters.txt").read_text()


def test_commands_know_the_code_model_from_the_workdir_alone(run, tmp_path, capsys):
  results = run_files.read_results(run)
  restored = restore.restore(run)
  assert restore.finished(restored) == ("codes", "mle", "reward")
  made, metrics = evaluation.predictor(restored), metrics_of(restored.config, restored.task)
  source = open_data.open_source(restored)
  for phase in ("codes", "reward"):
    done = evaluation.evaluate_phase(restored, phase, made, source, metrics, 0)
    assert {f"val/{name}": value for name, value in done.values.items()} == results[phase]
  page = (run / "report.html").read_text()
  assert page.count("reconstruction") > 2 and "Code model: perplexity" in page
  image = tmp_path / "1.png"
  predict.Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(image)
  flags = ["--workdir", str(run), "--out", str(tmp_path / "out"), str(image)]
  assert predict.main([*flags, "--phase", "codes"]) == 2
  assert "predicts nothing by itself" in capsys.readouterr().err


def test_analysis_is_of_policies(run, tmp_path):
  flags = ["--images", "2", "--samples", "3", "--out", str(tmp_path / "out")]
  assert analyze.main(["--workdir", str(run), *flags]) == 0
  table = (tmp_path / "out" / "best_of_n.csv").read_text()
  assert "mle," in table and "reward," in table and "codes," not in table


def test_interrupted_and_resumed_is_uninterrupted(run, tmp_path, monkeypatch):
  class Stopping(Progress):
    def update(self, step, shown=None):
      super().update(step, shown)
      if step == 2:
        os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(loop, "Progress", Stopping)
  config = toy_config(phases=("codes",))
  with pytest.raises(Preempted):
    loop.run(config, str(tmp_path))
  monkeypatch.setattr(loop, "Progress", Progress)
  assert not (tmp_path / "weights").exists()
  loop.run(config, str(tmp_path))
  for folder in (run, tmp_path):
    assert run_files.weights_path(folder, "codes").is_file()
  first, second = (run_files.weights_path(f, "codes").read_bytes() for f in (run, tmp_path))
  assert first == second
  assert run_files.read_results(tmp_path)["codes"] == run_files.read_results(run)["codes"]


@pytest.mark.slow
def test_four_devices_train_the_dictionary_of_one(run, tmp_path):
  code = (
    "import sys; from rtune.config.names import resolve; from rtune.training import loop; "
    "loop.run(resolve(sys.argv[1])(phases=('codes',)), sys.argv[2])"
  )
  environment = os.environ | {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
  }
  arguments = [sys.executable, "-c", code, f"{TOY}:toy_config", str(tmp_path)]
  done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  folders = (run, tmp_path)
  one, four = (weights.load_weights(run_files.weights_path(f, "codes")) for f in folders)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-4), four, one)
  np.testing.assert_allclose(four["state"]["counts"], one["state"]["counts"], rtol=1e-6)


def test_a_policy_that_is_given_brings_its_code_model(run, tmp_path, capsys):
  start = {"init_from": str(run), "reward__steps": 1, "reward__optim__lr": 0.0}
  results = loop.run(toy_config(**start), str(tmp_path / "a"))
  assert set(results) == {"reward", "seconds"}
  assert results["reward"] == run_files.read_results(run)["mle"]
  told = capsys.readouterr().err
  assert f"codes: {run} stands for it" in told and f"mle: {run} stands for it" in told
  codes = [weights.load_weights(run_files.weights_path(f, "codes")) for f in (run, tmp_path / "a")]
  jax.tree.map(np.testing.assert_array_equal, *codes)
  assert restore.finished(restore.restore(tmp_path / "a")) == ("codes", "mle", "reward")


def copy_without_codes(run, folder):
  shutil.copytree(run / "weights", folder / "weights")
  run_files.weights_path(folder, "codes").unlink()
  return folder


def test_what_cannot_be_is_refused_before_anything_is_written(run, tmp_path):
  detection = {"task__fn": "rtune.tasks.detection:Detection", "task__args": {"image_size": 48}}
  shapes = {f"data__{split}__fn": "rtune.data.scenes.shapes:Shapes" for split in ("train", "val")}
  shapes |= {f"data__{split}__args": {"split": split, "num": 8} for split in ("train", "val")}
  bare = copy_without_codes(run, tmp_path / "bare")
  wider = {**CODES, "dict_size": 17}
  cases = [
    ({**detection, **shapes}, "phases asks for a code model, but rtune.tasks.detection:Detection"),
    ({"phases": ("mle", "codes")}, "codes comes first"),
    ({"phases": ("mle",)}, "add 'codes' to config.phases, or set config.codes_init"),
    ({"codes_init": str(tmp_path / "x.npz")}, "config.codes_init: .*x.npz does not exist"),
    ({"init_from": str(bare)}, "config.init_from: its answers are codes of a code model, but "),
    (
      {"codes_init": str(run), "task__args__codes": wider},
      r"state/counts +\[16\] +\[17\]",
    ),
    (
      {"codes_init": str(run_files.weights_path(run, "mle"))},
      "are not a code model's",
    ),
  ]
  for changes, message in cases:
    with pytest.raises(UsageError, match=message):
      loop.run(toy_config(**changes), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_imitation_takes_the_code_model_as_an_argument(run, compiled):
  """Another code model gives other targets; nothing is compiled for it."""
  restored = restore.restore(run)
  predict = evaluation.predictor(restored)(phase_of("mle"))
  params = restore.load_params(restored, "mle")[1]
  batch = batch_of()
  predict(restored.frozen, params, batch)
  moved = jax.tree.map(lambda x: x + 1e-3, restored.frozen)
  compiled.clear()
  predict(moved, params, batch)
  assert compiled == []
  settings = config.Imitate(batch_size=8)
  making = made_of(restored.task, restored.policy, settings, 0, restored.frozen)
  step = imitation(making).step
  assert jax.tree.leaves(step.args[0]) == jax.tree.leaves(restored.frozen)
