"""Several rewards, credit by decision, parts that come and go, and batches without any reward."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune import config as configs
from rtune.config.names import resolve
from rtune.devices import sharding
from rtune.display.logs import read_metrics
from rtune.errors import NumericError, UsageError
from rtune.rewards.mark import on_host
from rtune.training import loop
from rtune.training.host import HostReward
from rtune.training.scoring import make_scoring

pytestmark = pytest.mark.usefixtures("quick_compiles")

TOYS = pathlib.Path(__file__).resolve().parents[1] / "toys"
toy_config = resolve(f"{TOYS / 'test_runs.py'}:toy_config")
Task = resolve(f"{TOYS / 'tokens.py'}:Task")
REWARDS = """
import jax.numpy as jnp
import numpy as np
from rtune.rewards.mark import on_host


def first(prediction, truth):
  return {"reward": prediction.tokens[0].astype(jnp.float32), "part": 7.0}


def last(prediction, truth):
  return prediction.tokens[-1].astype(jnp.float32)


@on_host
def hosted(prediction, truth):
  return {"reward": float(prediction.tokens[1])}


def credited(prediction, truth):
  right = (prediction.tokens == truth.tokens).astype(jnp.float32)
  return {"reward": right.sum(), "credit": right}


def short(prediction, truth):
  return {"reward": 0.0, "credit": jnp.zeros(2)}


def shadows(prediction, truth):
  return {"reward": prediction.tokens[0].astype(jnp.float32), "mean": 100.0, "std": 200.0}


calls = []


@on_host(batched=True)
def changing(predictions, truths):
  # Another part in every step, and the first slice has no opinion at all.
  if len(predictions) > 8:
    calls.append(len(predictions))
  if len(calls) == 1:
    return [None] * len(predictions)
  return [{"reward": 1.0 * i, f"part{len(calls) % 3}": 1.0} for i in range(len(predictions))]


@on_host
def some(prediction, truth):
  value = float(prediction.tokens[0])
  return {"reward": value, "seen": 3.0} if value else {"reward": value}


@on_host(batched=True)
def mostly_silent(predictions, truths):
  # Steps 3 to 6 have no opinion: between two lines of the log. Evaluations have 8 predictions.
  if len(predictions) > 8:
    calls.append(len(predictions))
  silent = 3 <= len(calls) <= 6 and len(predictions) > 8
  return [None if silent else float(i) for i in range(len(predictions))]
"""


@pytest.fixture
def rewards(tmp_path) -> str:
  path = tmp_path / "my_rewards.py"
  path.write_text(REWARDS)
  return str(path)


def batch_and_actions():
  words = jnp.array([[1, 0, 0], [2, 1, 0]])
  batch = {"light": jnp.array([0.1, 0.7]), "word": words}
  return batch, jnp.array([[[1, 2, 1], [2, 0, 0]], [[2, 1, 2], [0, 0, 0]]])


def scores_of(reward: configs.Reward):
  batch, actions = batch_and_actions()
  return make_scoring(reward, Task(), sharding.make_mesh()).score({}, actions, batch)


def test_several_rewards_are_added_by_weight(rewards):
  names = {"first": 2.0, "last": -0.5, "hosted": 1.0}
  fns = tuple(configs.Weighted(f"{rewards}:{name}", {}, weight) for name, weight in names.items())
  scores = scores_of(configs.Reward(fns=fns))
  actions = np.asarray(batch_and_actions()[1])
  expected = 2.0 * actions[..., 0] - 0.5 * actions[..., 2] + actions[..., 1]
  np.testing.assert_allclose(scores.reward, expected)
  np.testing.assert_allclose(scores.parts["first"], actions[..., 0])
  np.testing.assert_allclose(scores.parts["last"], actions[..., 2])
  np.testing.assert_allclose(scores.parts["hosted"], actions[..., 1])
  np.testing.assert_allclose(scores.parts["first/part"], np.full((2, 2), 7.0))


def test_a_weight_of_one_reward(rewards):
  scores = scores_of(configs.Reward(fns=(configs.Weighted(f"{rewards}:last", {}, 3.0),)))
  np.testing.assert_allclose(scores.reward, 3.0 * np.asarray(batch_and_actions()[1])[..., 2])


def test_credit(rewards):
  batch, actions = (jax.tree.map(np.asarray, x) for x in batch_and_actions())
  scores = scores_of(configs.Reward(fn=f"{rewards}:credited"))
  np.testing.assert_allclose(scores.credit, (actions == batch["word"][:, None]) * 1.0)
  both = (configs.Weighted(f"{rewards}:credited"), configs.Weighted(f"{rewards}:last", {}, 0.1))
  scores = scores_of(configs.Reward(fns=both))
  expected = (actions == batch["word"][:, None]) + 0.1 * actions[..., 2:]
  np.testing.assert_allclose(scores.credit, expected, rtol=1e-6)


def config_of(rewards: str, name: str, steps: int = 8, **changes) -> configs.Config:
  tree = json.loads(configs.to_json(toy_config("tokens")))
  tree["mle"]["steps"] = 2
  tree["reward"].update(fn=f"{rewards}:{name}", steps=steps, **changes)
  tree.update(log_every=1, eval_every=0)
  tree["data"]["train"]["args"] = {"size": 64}
  return configs.parse(tree)


def rows_of(config: configs.Config, folder: pathlib.Path) -> list[dict]:
  loop.run(config, str(folder))
  return [row for row in read_metrics(folder) if "reward/mean" in row]


def test_credit_of_a_wrong_length_says_so(rewards, tmp_path):
  with pytest.raises(UsageError, match="credit for 2 decisions, but an answer consists of 3"):
    loop.run(config_of(rewards, "short"), str(tmp_path / "run"))


def test_parts_named_as_our_own_numbers_are_kept_apart(rewards, tmp_path):
  for row in rows_of(config_of(rewards, "shadows"), tmp_path / "run"):
    assert row["reward/part_mean"] == 100 and row["reward/part_std"] == 200
    assert 0 <= row["reward/mean"] <= 2


def test_parts_that_change_between_calls(rewards, tmp_path):
  """Each change would compile the step anew; the names of the first call stand."""
  with pytest.raises(UsageError, match=r"returned a part 'part\d' that its first results did not"):
    rows_of(config_of(rewards, "changing", overlap=2), tmp_path / "run")


def test_a_part_that_some_samples_have_is_their_mean(rewards, tmp_path):
  rows = rows_of(config_of(rewards, "some"), tmp_path / "run")
  assert {row["reward/seen"] for row in rows} == {3.0}


def test_batches_without_a_reward_are_counted_apart(rewards, tmp_path):
  folder = tmp_path / "run"
  config = config_of(rewards, "mostly_silent")
  rows = rows_of(config, folder)
  assert [row["unrewarded_in_a_row"] for row in rows[:7]] == [0, 0, 1, 2, 3, 4, 0]
  assert rows[-1]["unrewarded"] == 4 and rows[-1]["skipped"] == 0
  # The rate is that of the updates that were applied.
  rates = [row["lr"] for row in rows]
  assert rates[2:6] == [rates[1]] * 4


def test_too_many_in_a_row_between_two_lines_of_the_log_end_the_run(rewards, tmp_path):
  tree = json.loads(configs.to_json(config_of(rewards, "mostly_silent")))
  tree.update(log_every=50, max_bad_steps=4)
  with pytest.raises(NumericError, match=r"step 8: the last 4 batches had no answer with a valid"):
    loop.run(configs.parse(tree), str(tmp_path / "run"))


def test_processes_agree_on_parts():
  """All of one process's samples may have no opinion; what it gives has the parts of the others."""

  @on_host
  def silent(prediction, truth):
    return None

  def gather(mine):
    return [*mine, {"reward": (), "found": ()}]  # another process has seen these

  call = HostReward(silent, "silent", {}, False, 0.0, gather)
  table = call(np.zeros((2, 3, 1)), np.zeros((2, 1)))
  assert sorted(table) == ["found", "reward"]
  assert all(np.isnan(column).all() and column.shape == (2, 3) for column in table.values())


def test_an_advantage_of_the_users_own(rewards, tmp_path):
  path = tmp_path / "my_advantages.py"
  path.write_text("def halves(rewards, valid):\n  return 0.5 * rewards\n")
  config = config_of(rewards, "last", baseline=f"{path}:halves")
  row = rows_of(config, tmp_path / "run")[0]
  assert row["advantage_std"] == pytest.approx(0.5 * row["reward/std"], rel=1e-5)


def test_overlap_must_divide_what_devices_share(rewards):
  from rtune.training.setup import _check_batches

  devices = jax.devices() * 4
  mesh = jax.sharding.Mesh(np.array(devices[:4]).reshape(4, 1), ("data", "fsdp"))
  config = config_of(rewards, "last", batch_size=8, overlap=4)
  with pytest.raises(UsageError, match=r"batch_size / config\.reward\.overlap"):
    _check_batches(config, mesh)
