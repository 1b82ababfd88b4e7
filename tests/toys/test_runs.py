"""Toys go through the whole program as any other task: nothing in it knows what an answer is."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from rtune import config as configs
from rtune import predict
from rtune.analyze.__main__ import main as analyze
from rtune.display import logs
from rtune.errors import UsageError
from rtune.report.write import write_report
from rtune.store import run_files
from rtune.training import loop, restore
from rtune.training.evaluation import evaluate_phase, predictor
from rtune.training.open_data import open_source
from rtune.training.setup import metrics_of, prepare

METRICS = {"tokens": "accuracy", "labels": "accuracy", "image": "error", "agent": "distance"}


def toy_config(name: str, **changes) -> configs.Config:
  """A run of two phases in seconds."""
  file = pathlib.Path(__file__).with_name(f"{name}.py")
  config = configs.default()
  config.task.fn, config.policy.fn = f"{file}:Task", f"{file}:policy"
  config.data.train.fn = config.data.val.fn = f"{file}:Data"
  config.data.update(threads=1, prefetch=1, eval_batch_size=8)
  if name != "labels":  # its view names the metric
    config.metrics = ({"fn": f"{file}:metric"},)
  for phase, steps in {"mle": 10, "reward": 30}.items():
    config[phase].update(steps=steps, batch_size=16)
    config[phase].optim.update(name="adam", lr=0.05, schedule="constant")
  config.reward.update(fn=f"{file}:reward", num_samples=8)
  config.update(log_every=10, eval_every=10, tensorboard=False, **changes)
  config.checkpoints.update(every=10, keep_last=9)
  return configs.parse(config)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """Name -> workdir of a finished run. Read only."""
  done = {}

  def find(name):
    if name not in done:
      done[name] = tmp_path_factory.mktemp(name) / "run"
      # The toy of tokens can search with more effort; it calls that "all".
      loop.run(toy_config(name, eval_beam=2 if name == "tokens" else 1), str(done[name]))
    return done[name]

  return find


# The first test, before `quick_compiles` holds for this module: last bits matter here.
def test_a_resumed_run_is_the_uninterrupted_one(finished, tmp_path):
  """As if it had been killed after the second checkpoint of tuning."""
  whole, resumed = finished("agent"), tmp_path / "run"
  shutil.copytree(whole, resumed)
  for step in (30, 40):
    shutil.rmtree(resumed / "checkpoints" / str(step))
  run_files.weights_path(resumed, "reward").unlink()
  results = run_files.read_results(resumed)
  del results["reward"], results["seconds"]["reward"]
  (resumed / run_files.RESULTS).write_text(json.dumps(results))
  loop.run(toy_config("agent"), str(resumed))
  same = run_files.weights_path(whole, "reward"), run_files.weights_path(resumed, "reward")
  assert same[0].read_bytes() == same[1].read_bytes()
  results = [run_files.read_results(folder)["reward"] for folder in (whole, resumed)]
  assert results[0] == results[1]


def tuned(workdir, **changes) -> bytes:
  """The weights of a run of the toy of tokens with other settings of its reward."""
  config = toy_config("tokens")
  reward = dataclasses.replace(config.reward, **changes)
  loop.run(dataclasses.replace(config, reward=reward), str(workdir))
  return run_files.weights_path(workdir, "reward").read_bytes()


def test_images_whose_samples_score_alike_draw_again(tmp_path):
  """The share that teaches nothing falls, and a resumed run is still the uninterrupted one."""
  whole = tuned(tmp_path / "whole", num_samples=3, resample=2)
  rows = [row for row in logs.read_metrics(tmp_path / "whole") if "alike_left" in row]
  alike, left = (np.array([row[key] for row in rows]) for key in ("reward/alike", "alike_left"))
  assert len(rows) == 3 and (left < 0.5 * alike).all()
  np.testing.assert_allclose([row["redrawn"] for row in rows], alike - left)

  shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
  shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "40")
  shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "30")
  run_files.weights_path(tmp_path / "resumed", "reward").unlink()
  (tmp_path / "resumed" / run_files.RESULTS).write_text(
    json.dumps({"mle": run_files.read_results(tmp_path / "whole")["mle"]})
  )
  assert tuned(tmp_path / "resumed", num_samples=3, resample=2) == whole


HOSTED = """
import numpy as np
from rtune.rewards.mark import on_host

@on_host
def reward(prediction, truth):
  same = prediction.tokens == truth.tokens
  return {"reward": same.mean() + same.all(), "whole": same.all()}
"""


def test_host_rewards_in_processes_of_their_own_end_with_the_same_bits(tmp_path):
  (tmp_path / "mine.py").write_text(HOSTED)
  mine = {"fn": f"{tmp_path / 'mine.py'}:reward", "num_samples": 2, "steps": 10}
  runs = {count: tuned(tmp_path / str(count), workers=count, **mine) for count in (0, 2)}
  assert runs[0] == runs[2]


@pytest.mark.usefixtures("quick_compiles")
@pytest.mark.parametrize("name", METRICS)
def test_trained_restored_evaluated_and_predicted_with(finished, name, tmp_path):
  folder = finished(name)
  results = run_files.read_results(folder)
  assert results["reward"]["val/reward"] > results["mle"]["val/reward"]
  assert {f"val/{METRICS[name]}", "val/reward"} <= results["reward"].keys()
  assert ("val/accuracy_all" in results["reward"]) == (name == "tokens")
  last = [row for row in logs.read_metrics(folder) if "unique" in row][-1]
  assert last["log_prob_gap"] < 1e-5
  assert (last["unique"] == 1) == (name in ("image", "agent")), "no two numbers are the same"

  run = restore.restore(folder)
  assert restore.finished(run) == ("mle", "reward")
  metrics = metrics_of(run.config, run.task)
  done = evaluate_phase(run, "reward", predictor(run), open_source(run), metrics, 0)
  values = {f"val/{key}": value for key, value in done.values.items()}
  assert values == pytest.approx({key: results["reward"][key] for key in values}, rel=1e-5)
  assert len(done.judged) == 32

  Image.new("RGB", (9, 7), (200, 100, 0)).save(tmp_path / "picture.png")
  out = tmp_path / "out"
  assert predict.main([f"--workdir={folder}", f"{tmp_path / 'picture.png'}", f"--out={out}"]) == 0
  with Image.open(out / "picture_predicted.png") as picture:
    assert picture.size == (9, 7)
  images = json.loads((out / "images.json").read_text())
  assert images["skipped"] == []
  images = images["images"]
  written = json.loads((out / "predictions.json").read_text())
  if name == "agent":
    assert written == [{"distances": 1}], "as its metric says"
  else:
    assert [record["image_id"] for record in written] == [images[0]["id"]], "records as they are"


@pytest.mark.usefixtures("quick_compiles")
@pytest.mark.parametrize(
  "name",
  [pytest.param(name, marks=() if name == "agent" else pytest.mark.slow) for name in METRICS],
)
def test_reported_and_analyzed(finished, name, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(finished(name), folder)
  page = write_report(folder).read_text()
  assert METRICS[name] in page
  assert "Largest gains" in page
  assert analyze([f"--workdir={folder}", "--images=4", "--samples=20", "--chunk=10"]) == 0
  assert (folder / "analysis" / "best_of_n.png").is_file()
  assert (folder / "analysis" / "reward_against_metric.png").is_file()


def test_more_effort_is_refused_before_training_where_there_is_no_search():
  with pytest.raises(
    UsageError, match=r"config.eval_beam is 2, but .*agent.py:policy has no other"
  ):
    prepare(toy_config("agent", eval_beam=2))


@pytest.mark.usefixtures("quick_compiles")
def test_a_task_that_must_have_labels_says_so(finished, monkeypatch):
  run = restore.restore(finished("agent"))

  def example(self, raw, rng):
    return {"image": raw["image"], "label": raw["label_of_a_person"]}

  monkeypatch.setattr(type(run.task), "example", example)
  with pytest.raises(UsageError, match=r"asks for 'label_of_a_person'. Give its view an `unlabel"):
    restore.load_params(run)


@pytest.mark.usefixtures("quick_compiles")
def test_an_evaluation_does_not_read_the_log(tmp_path, monkeypatch):
  """Which grows for weeks. Once a phase, and where numbers are new, it may be read."""
  read, read_metrics = [], logs.read_metrics
  monkeypatch.setattr(logs, "read_metrics", lambda *a, **k: read.append(1) or read_metrics(*a, **k))

  def times(steps):
    read.clear()
    config = json.loads(configs.to_json(toy_config("tokens")))
    config |= {"log_every": 1, "eval_every": 2}
    config["reward"]["steps"] = steps
    loop.run(configs.parse(config), str(tmp_path / str(steps)))
    return len(read)

  assert times(4) == times(12)
