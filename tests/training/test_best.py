"""The best weights of a phase are those of its best evaluation, whatever interrupts the run."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from rtune import config as configs
from rtune import evaluate
from rtune.analyze import past
from rtune.config.names import resolve
from rtune.devices import processes
from rtune.display.logs import read_metrics
from rtune.errors import StorageError, UsageError
from rtune.report.write import write_report
from rtune.store import best_weights, manifest, run_files, weights
from rtune.tasks.task import View
from rtune.training import loop, restore
from rtune.training.best import judge_of
from rtune.training.setup import prepare

pytestmark = pytest.mark.usefixtures("quick_compiles")

TOYS = pathlib.Path(__file__).resolve().parents[1] / "toys"
toy_config = resolve(f"{TOYS / 'test_runs.py'}:toy_config")


def config_with(name="tokens", **changes) -> configs.Config:
  config = toy_config(name)
  keep = {key: changes.pop(key) for key in ("best", "best_is", "patience") if key in changes}
  kept = dataclasses.replace(config.checkpoints, **keep)
  return configs.parse(json.loads(configs.to_json(dataclasses.replace(
    config, checkpoints=kept, **changes
  ))))  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
  """A finished run of 10 + 30 steps, evaluated and saved every 10, judged by a distance."""
  folder = tmp_path_factory.mktemp("finished") / "run"
  loop.run(config_with("agent"), str(folder))
  return folder


@pytest.fixture
def half(finished, tmp_path) -> pathlib.Path:
  """The same run as a kill leaves it after step 20; the best weights may be of later."""
  folder = tmp_path / "half"
  shutil.copytree(finished, folder)
  for step in (30, 40):
    shutil.rmtree(folder / "checkpoints" / str(step))
  run_files.weights_path(folder, "reward").unlink()
  results = run_files.read_results(folder)
  del results["reward"], results["seconds"]["reward"]
  (folder / run_files.RESULTS).write_text(json.dumps(results))
  return folder


def leaves(tree):
  return {name: np.asarray(leaf) for name, leaf in weights.flatten(tree).items()}


def test_they_are_those_of_the_best_evaluation(finished):
  """By the toy's own number, a distance, of which less is better; never by the reward."""
  values = {row["step"]: row["val/distance"] for row in read_metrics(finished)
            if "val/distance" in row}  # fmt: skip
  tuned = {step: value for step, value in values.items() if step > 10}
  best = best_weights.find(finished, "reward")
  assert best.number == "val/distance"
  assert (best.step, best.value) == min(tuned.items(), key=lambda item: item[1])
  assert manifest.lists(best.path) and manifest.altered(best.path) is None
  run = restore.restore(finished, "best")
  _, params = restore.load_params(run, "reward")
  saved = leaves(past.read_params(finished, best.step, params))
  assert saved.keys() == leaves(params).keys()
  for name, leaf in leaves(params).items():
    np.testing.assert_array_equal(leaf, saved[name])


def damage_none(folder):
  del folder


def damage_unsealed(folder):
  """Killed when the file was there and the manifest did not list it yet."""
  best = best_weights.find(folder, "reward")
  shutil.copy(best.path, run_files.weights_path(folder, "reward_best_39"))


def damage_both(folder):
  """Killed before the file of the best weights before went."""
  best = best_weights.find(folder, "reward")
  older = run_files.weights_path(folder, "reward_best_12")
  shutil.copy(best.path, older)
  manifest.add(older)


def damage_lost(folder):
  """As if all later evaluations had never been: they come again."""
  best_weights.drop(folder, "reward")
  row = next(row for row in read_metrics(folder) if row["step"] == 20)
  _, params = restore.load_params(restore.restore(folder))
  given = past.read_params(folder, 20, params)
  best_weights.save(folder, "reward", given, 20, "val/distance", row["val/distance"])


@pytest.mark.parametrize(
  "damage", [damage_none, damage_unsealed, damage_both, damage_lost], ids=lambda f: f.__name__
)
def test_a_kill_between_writes_loses_nothing(finished, half, damage):
  if damage is damage_lost:  # which reads parameters, of a phase that is finished
    shutil.copy(run_files.weights_path(finished, "reward"), run_files.weights_path(half, "reward"))
  damage(half)
  loop.run(config_with("agent"), str(half))
  for phase in ("mle", "reward"):
    one, other = (best_weights.find(folder, phase).path for folder in (finished, half))
    assert one.name == other.name and one.read_bytes() == other.read_bytes()
    assert len([*half.glob(f"weights/{phase}_best_*")]) == 1
  names = json.loads((half / "weights" / manifest.FILE).read_text())["files"]
  assert {*names} == {path.name for path in (half / "weights").glob("*.safetensors")}
  last = (run_files.weights_path(folder, "reward").read_bytes() for folder in (finished, half))
  assert next(last) == next(last)


def test_a_flipped_bit_is_seen(finished, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(finished, folder)
  path = best_weights.find(folder, "reward").path
  content = bytearray(path.read_bytes())
  content[-3] ^= 4
  path.write_bytes(content)
  with pytest.raises(StorageError, match=r"reward_best_\d+\.safetensors: .* was altered"):
    restore.load_params(restore.restore(folder, "best"), "reward")


def frozen_config(**changes):
  """Nothing is learned, so no evaluation beats the first."""
  config = config_with(patience=2, **changes)
  optim = dataclasses.replace(config.mle.optim, lr=0.0)
  mle = dataclasses.replace(config.mle, steps=60, optim=optim)
  return dataclasses.replace(config, mle=mle, phases=("mle", "reward"))


def test_patience_ends_a_phase_and_a_resumed_run_knows_it(tmp_path, monkeypatch):
  config, folder = frozen_config(), tmp_path / "run"

  def killed(*_):
    raise RuntimeError("killed")

  with monkeypatch.context() as patch:
    patch.setattr(run_files, "add_results", killed)
    with pytest.raises(RuntimeError, match="killed"):
      loop.run(config, str(folder))
  results = loop.run(config, str(folder))
  rows = read_metrics(folder)
  assert [row["step"] for row in rows if row["step"] <= 60] == [10, 20, 30]
  assert best_weights.find(folder, "mle").step == 10
  assert results["mle"]["val/accuracy"] == rows[2]["val/accuracy"]
  assert rows[3]["step"] == 70  # tuning counts on from where imitation might have ended
  (folder / run_files.RESULTS).unlink()
  again = loop.run(config, str(folder))
  assert again["mle"] == results["mle"]


def test_what_weights_are_judged_by():
  config = config_with("agent")
  task = prepare(config).task
  values = {"val/reward": 1.0, "val/distance": 2.0, "val/other": 3.0}
  assert judge_of(config, task, values) == ("val/distance", -1.0)
  assert judge_of(config_with("agent", best_is="max"), task, values) == ("val/distance", 1.0)
  assert judge_of(config_with("agent", best="val/other"), task, values) == ("val/other", 1.0)
  assert judge_of(config, task, {"val/reward": 1.0, "val/mine": 2.0}).number == "val/mine"
  assert judge_of(config, task, {"val/reward": 1.0}).number == ""
  assert judge_of(config, dataclasses.replace(task), values).number == "val/distance"
  with pytest.raises(UsageError, match=r"val/gone.*val/distance, val/other"):
    judge_of(config_with("agent", best="val/gone"), task, values)
  assert View().lower == ()


def test_names_that_no_evaluation_has_are_told_before_training(tmp_path):
  folder = tmp_path / "run"
  with pytest.raises(UsageError, match=r"'val/gone'; an evaluation has .*val/distance"):
    loop.run(config_with("agent", best="val/gone"), str(folder))
  watched = dataclasses.replace(toy_config("agent").reward, watched=("val/lost",))
  with pytest.raises(UsageError, match=r"watched names 'val/lost'; an evaluation has .*val/dist"):
    loop.run(config_with("agent", reward=watched), str(tmp_path / "other"))
  assert not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
  "changes, text",
  [
    ({"best": "AR"}, "val/..."),
    ({"best": "val/"}, "val/..."),
    ({"best": "none", "patience": 1}, "is 'none'"),
    ({"patience": -1}, "at least 0"),
    ({"best_is": "most"}, "'max', 'min'"),
    ({"patience": 1, "eval_every": 0}, "config.eval_every"),
  ],
)
def test_settings_out_of_range(changes, text):
  with pytest.raises(UsageError, match=text):
    config_with(**changes)


def test_commands_take_them(finished, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(processes, "start", lambda auto=False: None)
  folder = tmp_path / "run"
  shutil.copytree(finished, folder)
  args = ["--workdir", str(folder), "--weights", "best", "--trust"]
  assert evaluate.main(args) == 0
  best = best_weights.find(folder, "reward")
  found = json.loads((folder / "evaluation_reward_best.json").read_text())
  assert found["metrics"]["distance"] == pytest.approx(best.value, abs=1e-6)
  assert f"best weights, of step {best.step}" in capsys.readouterr().err
  write_report(folder, weights="best")
  assert "the best of each phase" in (folder / "report.html").read_text()
  best_weights.drop(folder, "reward")
  assert evaluate.main(args) == 2
  assert "--config.eval_every=N" in capsys.readouterr().err
