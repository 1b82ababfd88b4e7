"""What an agent of restoration is compared with: each row against a closed form or brute force."""

import csv
import itertools
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rtune.analyze import agents, passes
from rtune.config.load import load_config
from rtune.store import best_weights, run_files
from rtune.training import evaluation, loop, open_data, restore

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compiles")]

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "restoration_recursive.py"


COLOR = [("task.args.channels", "3"), *((f"data.{s}.args.gray", "False") for s in ("train", "val"))]


def trained(folder, *more):
  plain = [("report", "False"), ("tensorboard", "False"), ("mle.steps", "200")]
  loop.run(load_config(f"{CONFIG}:tiny", [*plain, *more]), str(folder))
  return restore.restore(folder)


def batch_of(run):
  source = open_data.open_source(run)
  _, found = next(evaluation.batches(run.config.data, run.task, run.mesh, source, 4))
  return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  return trained(tmp_path_factory.mktemp("passes") / "run")


@pytest.fixture(scope="module")
def batch(run):
  return batch_of(run)


def alike(channels, *pairs):
  """These steps and mixes in every channel, pass by pass."""
  return [np.tile(np.float32(pair), (channels, 1)) for pair in pairs]


def errors(pictures, clean):
  return np.asarray(((pictures - clean[:, None]) ** 2).mean((2, 3, 4)))


def predicted(predict, params, batch):
  actions, prediction = predict({}, params, batch)
  assert prediction.passes.shape[1] == 2
  np.testing.assert_array_equal(prediction.image, prediction.passes[:, -1])
  return actions, prediction


def test_step_one_without_a_mix_is_no_agent(run, batch):
  _, params = restore.load_params(run, "mle")
  _, found = predicted(agents.constant(run, alike(1, (1, 0), (1, 0))), params, batch)
  best = run.policy.best(params, run.task.inputs(batch))
  np.testing.assert_allclose(found.passes, best["passes"], atol=1e-4)
  np.testing.assert_allclose(found.numbers[..., 0], 1, atol=1e-5)


def test_a_mix_of_one_keeps_the_picture(run, batch):
  _, params = restore.load_params(run, "mle")
  _, found = predicted(agents.constant(run, alike(1, (0.5, 1), (0.5, 1))), params, batch)
  np.testing.assert_allclose(found.image, batch["image"], atol=1e-4)


FEW = np.array(list(itertools.product((0.5, 1.0), (0.0, 0.4, 1.0))), np.float32)


def first_error(run, params, batch, pairs):
  """After the first pass, with a step and a mix for each channel."""
  _, made = predicted(agents.constant(run, [pairs, pairs]), params, batch)
  return np.log(errors(made.passes, batch["clean"])[:, 0]).mean()


def test_best_constants_are_those_of_brute_force(run, batch, monkeypatch):
  monkeypatch.setattr(agents, "TRIED", FEW)
  _, params = restore.load_params(run, "mle")
  found = agents.best_constants(run, params, [batch], 2)
  best = min(FEW, key=lambda pair: first_error(run, params, batch, pair[None]))
  np.testing.assert_array_equal(found[0], best[None])


def test_channels_have_constants_of_their_own(tmp_path, monkeypatch):
  monkeypatch.setattr(agents, "TRIED", FEW)
  run = trained(tmp_path / "run", *COLOR)
  batch, (_, params) = batch_of(run), restore.load_params(run, "mle")
  found = agents.best_constants(run, params, [batch], 1)[0]
  assert found.shape == (3, 2)
  error = first_error(run, params, batch, found)
  for channel, pair in itertools.product(range(3), FEW):
    other = found.copy()
    other[channel] = pair
    assert error <= first_error(run, params, batch, other) + 1e-6
  assert error <= min(first_error(run, params, batch, np.tile(pair, (3, 1))) for pair in FEW)


def test_the_oracle_is_better_than_any_constant(run, batch):
  _, params = restore.load_params(run, "mle")
  _, seen = predicted(agents.oracle(run, 2), params, batch)
  chosen = agents.best_constants(run, params, [batch], 2)
  _, same = predicted(agents.constant(run, chosen), params, batch)
  ours, theirs = (errors(x.passes, batch["clean"]) for x in (seen, same))
  assert np.all(ours[:, 0] < theirs[:, 0])


def test_published_multipliers_stay_in_their_range(run, batch):
  _, params = restore.load_params(run, "mle")
  actions, _ = predicted(agents.random_choices(run, 2), params, batch)
  drawn = np.asarray(actions["numbers"])
  assert 0 < np.abs(drawn - 1).max() <= 1e-3
  assert len(np.unique(drawn)) > drawn.size // 2


def test_the_exact_gradient_lowers_the_error(run, batch):
  _, params = restore.load_params(run, "mle")

  def mean(params):
    best = jax.jit(run.policy.best)(params, run.task.inputs(batch))
    return np.log(errors(best["passes"], batch["clean"])).mean()

  host = jax.tree.map(np.asarray, dict(batch))
  learned = agents.by_gradient(run, params, itertools.repeat(host))
  assert mean(learned) < mean(params)
  same = jax.tree.map(jnp.array_equal, learned["autoencoder"], params["autoencoder"])
  assert all(jax.tree.leaves(same))


def test_pictures_of_a_users_own(run, tmp_path):
  folder, out = tmp_path / "photos", tmp_path / "out"
  folder.mkdir()
  for number, size in enumerate([(40, 33), (31, 50)]):
    pixels = np.random.default_rng(number).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"{number}.png")
  args = ["--workdir", str(run.folder), "--annotations", str(folder), "--out", str(out)]
  assert passes.main([*args, "--without", "random,constant,gradient,oracle"]) == 0
  with open(out / "passes.csv") as file:
    assert [row["name"] for row in csv.DictReader(file)] == ["no agent", "REINFORCE"]
  assert passes.main([*args, "--split", "val"]) == 2


def test_the_command_writes_every_row(run, capsys):
  args = ["--workdir", str(run.folder), "--images", "4", "--train_images", "4"]
  noise = '[{"fn": "rtune.data.corrupt:gaussian", "args": {"sigma": 60}}]'
  assert passes.main([*args, "--corruptions", noise]) == 0
  with open(run.folder / "analysis" / "passes.csv") as file:
    rows = {row["name"]: row for row in csv.DictReader(file)}
  assert list(rows) == [
    *("no agent", "REINFORCE", "random multipliers", "best constants", "exact gradient"),
    "best choices, seen",
  ]
  results = run_files.read_results(run.folder)["mle"]
  assert float(rows["no agent"]["PSNR_given"]) < results["val/PSNR_given"] - 3
  assert (run.folder / "analysis" / "passes.png").stat().st_size > 10_000
  said = capsys.readouterr().out
  assert "PSNR" in said and "best choices, seen" in said
  assert passes.main([*args, "--corruptions", "no"]) == 2


def test_the_best_weights_of_each_phase(run, tmp_path, capsys):
  folder = tmp_path / "run"
  shutil.copytree(run.folder, folder)
  ways = ["--without", "random,constant,gradient,oracle", "--images", "4"]
  args = ["--workdir", str(folder), *ways, "--weights"]

  def rows(weights):
    assert passes.main([*args, weights]) == 0
    with open(folder / "analysis" / "passes.csv") as file:
      return {row.pop("name"): row for row in csv.DictReader(file)}

  # As if imitation's last weights had been the best of both phases.
  params = jax.tree.map(np.asarray, restore.load_params(run, "mle")[1])
  for phase in ("mle", "reward"):
    best_weights.drop(folder, phase)
    best_weights.save(folder, phase, params, 1, "val/PSNR", 20.0)
  last, best = rows("last"), rows("best")
  assert best["no agent"] == last["no agent"] == best["REINFORCE"] != last["REINFORCE"]
  assert "reward: best weights, of step 1" in capsys.readouterr().err
  best_weights.drop(folder, "reward")
  assert passes.main([*args, "best"]) == 2
  said = capsys.readouterr().err
  assert "no best weights of reward" in said and "evaluating" not in said
