"""Analyses of a toy whose numbers are known, and of a run of seconds."""

import csv
import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rtune import config as configs
from rtune.analyze import __main__ as analyze
from rtune.analyze import past, progression, tables
from rtune.analyze.figures import bin_edges, shares
from rtune.analyze.pools import Pool, draw_pools
from rtune.config.names import build_part
from rtune.devices import sharding
from rtune.errors import UsageError
from rtune.policies.policy import Policy, Sampled
from rtune.store import run_files, weights
from rtune.tasks.task import Task, View
from rtune.training import restore
from rtune.training.restore import Restored

_REWARD = """
import jax.numpy as jnp

def reward(prediction, truth):
  return jnp.where(prediction == 4, jnp.nan, prediction + 10.0 * truth)
"""


class _Task(Task):
  """An image is its index; an answer is one token."""

  view = View(headline=("score",), unlabeled=lambda image, image_id: {"image_id": image_id})

  def example(self, raw, rng):
    return {
      "image": np.full((1, 1, 3), raw["image_id"], np.uint8),
      "x": np.float32(raw["image_id"]),
    }

  def inputs(self, batch):
    return batch["image"]

  def decode(self, frozen, actions, batch, scored):
    return actions[..., 0].astype(jnp.float32)

  def truth(self, batch):
    return batch["x"]


def _sample(params, images, key, num_samples) -> Sampled:
  """Tokens 0 to 4, each a nat times `scale` less likely than the one before."""
  tokens = jax.random.randint(key, (len(images), num_samples, 1), 0, 5)
  return Sampled(tokens, -tokens.astype(jnp.float32) * params["scale"])


@pytest.fixture
def toy(tmp_path) -> Restored:
  """A run whose answers say which image, which phase and which token they are."""
  (tmp_path / "reward.py").write_text(_REWARD)
  for phase, scale in (("mle", 1.0), ("reward", 3.0)):
    path = run_files.weights_path(tmp_path, phase)
    weights.save_weights(path, {"scale": np.float32(scale)}, {})
  config = dataclasses.replace(
    configs.Config(), reward=configs.Reward(fn=f"{tmp_path}/reward.py:reward")
  )
  policy = Policy(
    lambda key, images: {"scale": jnp.zeros(())},
    _sample,
    lambda *_: None,
    lambda params, images: jnp.full((len(images), 1), 2),
    lambda *_: None,
    lambda *_: None,
  )
  return Restored(tmp_path, config, _Task(), policy, {}, sharding.make_mesh(devices=jax.devices()))


_SOURCE = [{"image": None, "image_id": index} for index in range(11)]


def test_pools_pair_rewards_likelihoods_and_images(toy):
  mle, tuned = draw_pools(toy, _SOURCE, num_images=10, num_samples=23, chunk=5, seed=0)
  assert (mle.phase, tuned.phase) == ("mle", "reward")
  for pool, scale in ((mle, 1.0), (tuned, 3.0)):
    np.testing.assert_array_equal(pool.images, np.arange(10))
    np.testing.assert_array_equal(pool.greedy, 2 + 10.0 * np.arange(10))
    assert pool.reward.shape == pool.log_prob.shape == (10, 23)
    token = -pool.log_prob / scale
    expected = np.where(token == 4, np.nan, token + 10.0 * np.arange(10)[:, None])
    np.testing.assert_array_equal(pool.reward, expected)
    assert len(np.unique(token, axis=0)) == 10, "images share their random numbers"
    assert not np.array_equal(token[:, :5], token[:, 5:10]), "chunks share their random numbers"


def test_the_same_seed_draws_the_same(toy):
  first, again, other = (
    draw_pools(toy, _SOURCE, num_images=3, num_samples=20, chunk=20, seed=seed)[0].log_prob
    for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert not np.array_equal(first, other)


def _pool(phase, reward, log_prob, greedy) -> Pool:
  arrays = [np.array(x, np.float32) for x in (reward, log_prob, greedy)]
  return Pool(phase, np.arange(len(greedy)), *arrays)


def test_best_of_n_leaves_out_what_has_no_reward():
  nan = np.nan
  pool = _pool("mle", [[1, 3, nan, 2], [0, 0, 4, 0]], [[-1, -2, 0, -3], [-5, -6, -7, -8]], [1, 0])
  best = tables.best_of_n([pool])["mle"]
  np.testing.assert_array_equal(best.counts, [1, 2, 3])
  # Image 0 without its third sample: pairs (1,3) (1,2) (3,2); image 1: half of six pairs have 4.
  np.testing.assert_allclose(best.by_reward, [[2, 8 / 3, 3], [1, 2, 3]], rtol=1e-6)
  np.testing.assert_allclose(best.by_likelihood, [[2, 5 / 3, 1], [1, 4 / 6, 0]], rtol=1e-6)


def test_images_without_any_reward_are_left_out_of_all_phases(capsys):
  nan = np.nan
  mle = _pool("mle", [[1, 2], [nan, nan], [3, 4]], np.zeros((3, 2)), [1, 2, 3])
  tuned = _pool("reward", [[5, nan], [6, 6], [7, 8]], np.zeros((3, 2)), [4, 5, 6])
  pools = tables.with_rewards([mle, tuned])
  assert "3 of 12 rewards could not be computed" in capsys.readouterr().err
  assert [pool.images.tolist() for pool in pools] == [[0, 2], [0, 2]]
  np.testing.assert_array_equal(pools[1].greedy, [4, 6])
  with pytest.raises(UsageError, match="no reward for any sample"):
    tables.with_rewards([mle._replace(reward=np.full((3, 2), nan, np.float32))])


def test_tables_say_what_the_pools_hold():
  rewards = np.arange(101.0)[None].repeat(2, axis=0)
  pool = _pool("mle", rewards, [-np.arange(101.0), np.arange(101.0)], [50, 60])
  first, second = tables.per_image_table([pool])
  assert (first["expected"], first["median"], first["percentile_99"], first["best"]) == (
    *(50, 50, 99),
    100,
  )
  assert (first["most_likely"], second["most_likely"], second["greedy"]) == (0, 100, 60)
  shares = [row["mle"] for row in tables.distribution_table([pool])]
  assert sum(shares) == pytest.approx(1)
  table = tables.best_of_n_table([pool], tables.best_of_n([pool]))
  last = table[-1]
  assert (last["n"], last["by_reward"], last["by_likelihood"], last["greedy"]) == (101, 100, 50, 55)
  assert last["by_likelihood_error"] == pytest.approx(50)  # 0 and 100: 70.7 over the root of 2
  assert table[0]["kl_bound"] == 0 and last["kl_bound"] == pytest.approx(np.log(101) - 100 / 101)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("grid", [0.0, 0.1, 0.03], ids=["any", "tenths", "hundredths"])
def test_bins_hold_every_sample_and_equally_many_values(seed, grid):
  rewards = np.random.default_rng(seed).normal(size=(3, 500))
  rewards = np.round(rewards / grid) * grid if grid else rewards
  edges = bin_edges([_pool("mle", rewards, rewards, rewards[:, 0])])
  assert shares(rewards.astype(np.float32), edges).sum() == pytest.approx(1)
  if grid:
    possible = np.arange(-200, 200) * grid
    inside = possible[(possible > edges[0]) & (possible < edges[-1])]
    held = np.histogram(inside, edges)[0]
    assert (held[:-1] == held[0]).all() and held[0] > 0
  assert 2 <= len(edges) <= 42


def test_steps_of_the_log_belong_to_phases():
  config = configs.Config(
    phases=("mle", "control", "reward"),
    mle=configs.Imitate(steps=20),
    control=configs.Imitate(steps=5),
    reward=configs.Reward(steps=10),
  )
  steps = (1, 20, 21, 25, 26, 35)
  expected = ["mle", "mle", "control", "control", "reward", "reward"]
  assert [progression.phase_at(config, step) for step in steps] == expected
  started = dataclasses.replace(config, init_from="elsewhere")
  assert [progression.phase_at(started, step) for step in (5, 6)] == ["control", "reward"]


def test_correlations_of_a_phase_begin_where_the_phase_began():
  rows = [
    {"step": step, "phase": phase, "reward": float(reward), "AP": float(metric)}
    for step, phase, reward, metric in [
      *((1, "mle", 0, 9), (2, "mle", 1, 1)),
      *((3, "reward", 2, 2), (4, "reward", 3, 4)),
    ]
  ]
  found = progression.correlations(rows, ("AP",))
  assert [(one["phase"], one["evaluations"]) for one in found] == [("all", 4), ("reward", 3)]
  assert found[1]["spearman"] == 1.0
  assert found[1]["pearson"] == pytest.approx(np.corrcoef([1, 2, 3], [1, 2, 4])[0, 1])
  assert progression.correlations(rows[:2], ("AP",)) == []


def test_a_checkpoint_holds_what_its_phase_left_behind(tiny_run):
  run = restore.restore(tiny_run)
  assert past.kept_steps(tiny_run) == {10: "mle", 20: "mle", 25: "reward", 30: "reward"}
  _, template = restore.load_params(run, "mle")
  for step, phase in ((20, "mle"), (30, "reward")):
    _, expected = restore.load_params(run, phase)
    params = past.read_params(tiny_run, step, template)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
  early = past.read_params(tiny_run, 10, template)
  assert not np.array_equal(jax.tree.leaves(early)[0], jax.tree.leaves(template)[0])


@pytest.fixture
def unlogged(tiny_run, tmp_path) -> Restored:
  """The run with a log from which all evaluations are gone."""
  folder = tmp_path / "run"
  shutil.copytree(tiny_run, folder)
  (folder / "metrics.jsonl").write_text("")
  return restore.restore(folder)


def test_evaluations_that_were_not_logged_come_from_checkpoints(tiny_run, unlogged):
  run = restore.restore(tiny_run)
  source = build_part(run.config.data.val, "data.val")
  logged = {row["step"]: row for row in progression.evaluations(run, source)}
  assert list(logged) == [10, 20, 30]
  rows = {row["step"]: row for row in progression.evaluations(unlogged, source)}
  assert list(rows) == [10, 20, 25, 30]
  for step, row in logged.items():
    assert rows[step] == pytest.approx(row, abs=1e-6, nan_ok=True)


def test_too_few_evaluations_name_the_flags(unlogged, capsys):
  for step in (10, 20):
    shutil.rmtree(unlogged.folder / "checkpoints" / str(step))
  assert progression.evaluations(unlogged, []) == []
  said = capsys.readouterr().err
  assert "--config.eval_every=N" in said and "--config.checkpoints.keep_every=N" in said


def test_the_command_leaves_pictures_and_numbers(tiny_run, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr("rtune.devices.processes.start", lambda: None)
  out = tmp_path / "deep" / "out"
  flags = ["--workdir", tiny_run, "--out", out, "--images", 3, "--samples", 12, "--chunk", 5]
  assert analyze.main([str(flag) for flag in flags]) == 0
  said = capsys.readouterr()
  assert "72/72 samples" in said.err and "best of 12" in said.out and "pearson" in said.out
  names = {"best_of_n", "reward_distribution", "reward_against_metric", "reward_examples"}
  assert {path.stem for path in out.glob("*.png")} == names
  for path in out.glob("*.png"):
    with Image.open(path) as picture:
      assert min(picture.size) > 400 and np.asarray(picture.convert("L")).std() > 5
  tables = {
    path.stem: list(csv.DictReader(path.read_text().splitlines())) for path in out.glob("*.csv")
  }
  assert {row["phase"] for row in tables["best_of_n"]} == {"mle", "reward"}
  assert [row["n"] for row in tables["best_of_n"]][-1] == "12"
  assert len(tables["rewards_per_image"]) == 6
  assert [row["step"] for row in tables["reward_against_metric"]] == ["10", "20", "30"]
  assert set(tables) == names - {"reward_examples"} | {"rewards_per_image", "correlation"}


@pytest.mark.parametrize(
  ("flags", "text"),
  [
    ([], "--workdir"),
    (["--workdir", "{tmp}", "--smaples", "3"], "--smaples"),
    (["--workdir", "{tmp}", "--samples", "0"], "--samples"),
    (["--workdir", "{tmp}", "--images", "many"], "--images"),
    (["--workdir", "{tmp}/none"], "not a workdir"),
    (["--workdir", "{tmp}"], "config.reward.fn"),
    (["--workdir", "{tmp}/good", "--out", "{tmp}/config.json"], "--out"),
    (["--workdir", "{tmp}/good"], "no phase is finished"),
  ],
)
def test_mistakes_are_one_line(flags, text, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr("rtune.devices.processes.start", lambda: None)
  part = configs.Part("rtune.data.scenes.shapes:Shapes")
  task = configs.Part("rtune.tasks.detection:Detection", {"image_size": 48})
  bare = configs.Config(phases=("mle",), task=task, data=configs.Data(train=part, val=part))
  good = dataclasses.replace(bare, reward=configs.Reward(fn="rtune.rewards.boxes:recall"))
  run_files.write_whole(tmp_path / "config.json", configs.to_json(bare))
  run_files.write_whole(tmp_path / "good" / "config.json", configs.to_json(good))
  assert analyze.main([flag.format(tmp=tmp_path) for flag in flags]) == 2
  said = capsys.readouterr().err.strip()
  assert text in said and "\n" not in said
