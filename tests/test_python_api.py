"""`import rtune` and go on: what docs/python_api.md shows, and that the commands say the same."""

import json
import math
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import rtune
from rtune import config as configs
from rtune import predict
from rtune.config.load import load_config
from rtune.data.scenes import shapes
from rtune.data.source import Example
from rtune.devices import processes
from rtune.errors import DataError, UsageError
from rtune.inference.blindness import is_blind
from rtune.predictions.images import Picture
from rtune.store import run_files
from rtune.training.scoring import named_rewards

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
  """Commands start up as in one process of many tests: without settings that outlast them."""
  monkeypatch.setattr(processes, "start", lambda auto=False: None)


@pytest.fixture(scope="module")
def model(boxes_run) -> rtune.Model:
  return rtune.load(boxes_run)


def scene(run: pathlib.Path, index: int = 0) -> Example:
  return shapes.Shapes(**run_files.read_config(run).data.val.args)[index]


@pytest.mark.slow
def test_the_documents_examples_run(tiny_run, tmp_path, monkeypatch, capsys):
  blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python_api.md").read_text(), re.S)
  assert len(blocks) == 6
  shutil.copytree(tiny_run, tmp_path / "runs" / "mine")
  (tmp_path / "configs").symlink_to(ROOT / "configs")
  Image.fromarray(scene(tiny_run)["image"]).save(tmp_path / "photo.jpg")
  monkeypatch.chdir(tmp_path)
  names: dict[str, object] = {}
  for block in blocks:
    exec(compile(block, "python_api.md", "exec"), names)
  results = run_files.read_results(tiny_run)
  assert names["results"] == results
  assert capsys.readouterr().out.startswith(str(results["reward"]["val/AR"]))
  assert (tmp_path / "drawn.png").is_file() and len(names["answers"]) == 3
  assert all(math.isfinite(sample.reward) for sample in names["scored"])
  assert len(names["done"].judged) == 6
  assert jax.tree.structure(names["gradient"]) == jax.tree.structure(names["model"].params)
  assert (tmp_path / "samples.png").is_file() and (tmp_path / "curves.png").is_file()


def test_all_that_is_offered_is_there_and_typed():
  assert {*rtune.__all__} <= {*dir(rtune)}
  for name in rtune.__all__:
    assert callable(getattr(rtune, name)), name
  with pytest.raises(AttributeError, match="no attribute 'lode'"):
    _ = rtune.lode
  code = "import rtune.evaluate, rtune; assert rtune.evaluate.main and callable(rtune.evaluate)"
  subprocess.run([sys.executable, "-c", code], check=True)


def test_predict_is_what_the_command_writes(boxes_run, model, tmp_path):
  path = tmp_path / "7.png"
  image = scene(boxes_run)["image"]
  Image.fromarray(image).save(path)
  out = tmp_path / "out"
  assert predict.main(["--workdir", str(boxes_run), str(path), "--out", str(out)]) == 0
  written = json.loads((out / "predictions.json").read_text())
  given = [path, str(path), image, Image.open(path)]
  for answer in model.predict(given):
    boxes = answer.record["boxes"]
    assert len(boxes) == len(written) > 0
    y0, x0, y1, x1 = boxes.T
    theirs = np.array([one["bbox"] for one in written])
    np.testing.assert_allclose(np.stack([x0, y0, x1 - x0, y1 - y0], 1), theirs, atol=1e-4)
    assert answer.prediction.present.sum() == len(boxes)
    assert answer.reward is None and answer.log_prob is None
  drawn = np.asarray(Image.open(out / "7_predicted.png"))
  np.testing.assert_array_equal(model.draw(path, answer), drawn)


def test_samples_are_drawn_and_rewarded(boxes_run, model):
  raw = scene(boxes_run)
  answers = model.sample(raw["image"], 5, seed=3)
  again = model.sample(raw["image"], 5, truth=raw, seed=3)
  assert [one.log_prob for one in answers] == [one.log_prob for one in again]
  assert len({one.log_prob for one in model.sample(raw["image"], 5)} | {
    one.log_prob for one in answers
  }) > 5  # fmt: skip
  assert all(one.reward is None for one in answers)  # recall asks for the truth
  assert all(math.isfinite(one.reward) for one in again)
  for one, other in zip(answers, again, strict=True):
    np.testing.assert_array_equal(one.record["boxes"], other.record["boxes"])


def test_log_prob_of_samples_is_what_they_were_drawn_with(boxes_run, model):
  image = scene(boxes_run)["image"]
  samples = model.sample(image, 5, seed=3)
  drawn = [one.log_prob for one in samples]
  np.testing.assert_allclose(model.log_prob(image, samples), drawn, rtol=1e-4)
  some = model.log_prob(image, [samples[3], samples[1]])
  np.testing.assert_allclose(some, [drawn[3], drawn[1]], rtol=1e-4)
  imitated = rtune.load(boxes_run, "mle")
  theirs = imitated.log_prob(image, samples)
  np.testing.assert_allclose(model.log_prob(image, samples, imitated.params), theirs, rtol=1e-5)
  assert np.abs(theirs - np.array(drawn, np.float32)).min() > 1e-2


@pytest.mark.slow
def test_a_step_along_the_gradient_makes_samples_likelier(boxes_run, model):
  image = scene(boxes_run)["image"]
  samples = model.sample(image, 3, seed=3)

  def mean(params):
    return jnp.mean(model.log_prob(image, samples, params))

  value, gradient = jax.value_and_grad(mean)(model.params)
  slope = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient))
  small = 1e-2 / slope  # of a step that adds a hundredth of a nat, to first order
  moved = jax.tree.map(lambda x, g: x + jnp.float32(small) * g, model.params, gradient)
  assert float(mean(moved) - value) == pytest.approx(1e-2, rel=0.1)


def test_log_prob_is_of_samples_alone(boxes_run, model):
  image = scene(boxes_run)["image"]
  for answers in ([], model.predict([image])):
    with pytest.raises(UsageError, match=r"as model\.sample draws them"):
      model.log_prob(image, answers)


def test_annotations_are_drawn_as_answers_are(boxes_run, model):
  raw = scene(boxes_run)
  truth = rtune.Answer(None, {"boxes": raw["boxes"], "labels": raw["labels"]})
  drawn = model.draw(raw["image"], raw)
  np.testing.assert_array_equal(drawn, model.draw(raw["image"], truth))
  assert (drawn != model.draw(raw["image"], model.predict([raw["image"]])[0])).any()


def test_rewards_of_samples_are_those_of_the_function(boxes_run, model):
  image = scene(boxes_run)["image"]
  records = [one.record for one in model.sample(image, 5, seed=3)]
  names = ("boxes", "labels")
  truth = {name: np.concatenate([one[name] for one in records])[:4] for name in names}
  truth["crowd"] = np.zeros(len(truth["boxes"]), bool)
  answers = model.sample(image, 5, truth=truth, seed=3)
  task = model.run.task
  features = task.example({"image": image, **truth}, None)
  told = jax.tree.map(
    lambda x: jnp.asarray(x[0]), task.truth({k: v[None] for k, v in features.items()})
  )
  (reward,) = named_rewards(model.run.config.reward, task)
  for answer in answers:
    found = reward.call(jax.tree.map(jnp.asarray, answer.prediction), told, **reward.args)
    assert answer.reward == pytest.approx(float(found["reward"]), abs=1e-5)
  assert any(answer.reward > 0 for answer in answers)


def test_rewards_that_need_no_truth_are_known(model):
  picture = Picture(np.zeros((1, 1, 8, 8, 3), np.float32))
  blind = {"rtune.rewards.blind:sharpness": True, "rtune.rewards.structure:ssim": False}
  for name, expected in blind.items():
    reward = configs.Reward(fn=name)
    assert is_blind(reward, model.run.task, picture) is expected
  host = configs.Reward(fn="rtune.rewards.codec:file_size")
  assert is_blind(host, model.run.task, picture)


def test_evaluate_is_what_the_run_has_noted(boxes_run):
  done = rtune.evaluate(boxes_run, phase="mle", batch_size=5)
  noted = run_files.read_results(boxes_run)["mle"]
  assert {f"val/{k}": v for k, v in done.values.items()} == pytest.approx(noted, abs=1e-6)
  assert done.phase == "mle" and len(done.judged) == 12


def test_train_takes_a_config_as_well(tiny_run, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(tiny_run, folder)
  config = load_config(f"{ROOT / 'configs' / 'detection_recall.py'}:tiny", [("report", "false")])
  assert rtune.train(config, folder) == run_files.read_results(tiny_run)
  with pytest.raises(UsageError, match="overrides are of a config file"):
    rtune.train(config, folder, overrides={"report": True})


@pytest.mark.parametrize(
  "wrong, kind, text",
  [
    (lambda m: m.predict("a.jpg"), UsageError, r"\[image\]"),
    (lambda m: m.predict([np.zeros((4, 4, 3))]), DataError, "float64 is no image"),
    (lambda m: m.predict([np.zeros((0, 4, 3), np.uint8)]), DataError, "no image"),
    (lambda m: m.predict(["nowhere.jpg"]), DataError, "does not exist"),
    (lambda m: m.sample(np.zeros((4, 4), np.uint8), 0), UsageError, "n is 0"),
    (lambda m: rtune.load(m.run.folder, weights="first"), UsageError, "'last' or 'best'"),
    (lambda m: rtune.load(m.run.folder, "control"), UsageError, "mle, reward"),
    (lambda m: rtune.load("/nowhere"), UsageError, "not a workdir"),
  ],
)
def test_wrong_use_is_one_line(model, wrong, kind, text):
  with pytest.raises(kind, match=text) as caught:
    wrong(model)
  assert "\n" not in str(caught.value)


def test_an_empty_list_has_no_answers(model):
  assert model.predict([]) == []
