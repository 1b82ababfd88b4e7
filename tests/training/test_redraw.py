"""Images whose samples all score alike draw again."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune import config as configs
from rtune.devices import sharding
from rtune.errors import UsageError
from rtune.policies.policy import Sampled
from rtune.training.redraw import alike, redrawing
from rtune.training.scoring import Scores

IMAGES = 8


def drawn(rewards, valid=None, credit=None):
  """Samples that are their rewards [B, S], and their scores."""
  reward = jnp.asarray(rewards, jnp.float32)
  valid = jnp.isfinite(reward) if valid is None else jnp.asarray(valid)
  sampled = Sampled({"answer": 10 * reward}, reward[..., None])
  return sampled, Scores(reward, valid, {"half": reward / 2}, credit)


def outcome(first, rewards_of, rounds, mesh=None):
  """What is left after redrawing; the batches that were drawn for, by round.

  Args:
    rewards_of: (images [B] of a round, its number) -> their new rewards [B, S].
  """
  mesh = mesh or sharding.make_mesh()
  asked = {}

  def draw(state, batch, number):
    asked[number] = np.asarray(batch["image"])
    new = drawn(rewards_of(asked[number], number))
    return jax.tree.map(lambda x: jax.device_put(x, sharding.batch_sharding(mesh)), new)

  images = {"image": np.arange(len(first[1].reward))}
  batch = sharding.put_batch(mesh, images)
  first = jax.tree.map(lambda x: jax.device_put(x, sharding.batch_sharding(mesh)), first)
  return redrawing(mesh, rounds, draw)(None, batch, first), asked


MIXED = np.arange(2.0 * IMAGES).reshape(IMAGES, 2)
FIRST = np.where(np.isin(np.arange(IMAGES), [1, 4, 6])[:, None], 7.0, MIXED)


def test_what_is_alike():
  nan = np.nan
  rewards = [[1, 1, 1], [1, 2, 1], [nan, 1, 1], [nan, 1, 2], [nan, nan, nan], [1, nan, nan]]
  _, scores = drawn(rewards)
  np.testing.assert_array_equal(alike(scores), [True, False, True, False, True, True])
  # Decision by decision, where a reward says what each has earned: sums may be equal.
  credit = jnp.array([[[1.0, 0], [0, 1], [1, 0]]] + [[[1.0, 0]] * 3] * 5)
  _, scores = drawn(rewards, credit=credit)
  np.testing.assert_array_equal(alike(scores), [False] + [True] * 5)


def test_the_first_draw_that_differs_takes_the_place_of_one_that_does_not():
  def rewards(images, number):
    # A draw is known by its row; in round 1 image 4 differs from its second on, 1 in its third.
    new = np.stack([100 * number + np.arange(IMAGES)] * 2, axis=1).astype(float)
    nth = np.array([np.sum(images[:row] == image) for row, image in enumerate(images)])
    differs = ((images == 4) & (nth >= 1)) | ((images == 1) & (nth == 2)) | (number == 2)
    return new + np.outer(differs, [0, 0.5])

  (sampled, scores), asked = outcome(drawn(FIRST), rewards, 5)
  np.testing.assert_array_equal(asked[1], [1, 4, 6, 1, 4, 6, 1, 4])
  np.testing.assert_array_equal(asked[2], [6] * IMAGES)
  assert sorted(asked) == [1, 2], "then there is nothing left to draw for"
  expected = FIRST.copy()
  expected[[1, 4, 6]] = [[106, 106.5], [104, 104.5], [200, 200.5]]
  np.testing.assert_array_equal(scores.reward, expected)
  # All that belongs to a draw goes with it.
  np.testing.assert_array_equal(sampled.actions["answer"], 10 * expected)
  np.testing.assert_array_equal(sampled.log_prob[..., 0], expected)
  np.testing.assert_array_equal(scores.parts["half"], expected / 2)


def test_no_more_rounds_than_asked_for_and_what_is_left_stays():
  (_, scores), asked = outcome(drawn(FIRST), lambda images, _: np.full((IMAGES, 2), 3.0), 2)
  assert sorted(asked) == [1, 2]
  np.testing.assert_array_equal(scores.reward, FIRST)


def test_nothing_is_drawn_where_nothing_is_alike():
  (_, scores), asked = outcome(drawn(MIXED), lambda images, _: np.zeros((IMAGES, 2)), 3)
  assert not asked
  np.testing.assert_array_equal(scores.reward, MIXED)


def test_a_part_that_a_reward_gives_later_only():
  """As one of the host may, which had nothing to say before."""
  sampled, scores = drawn(FIRST)
  bare = sampled, scores._replace(parts={})
  (_, found), _ = outcome(bare, lambda images, _: MIXED[::-1], 1)
  assert np.isnan(found.parts["half"][0]).all() and np.isfinite(found.parts["half"][1]).all()


def spread(devices=None):
  """Rewards after two rounds of draws that depend on image and row."""
  rng = np.random.default_rng(0)
  tables = rng.integers(0, 2, (3, IMAGES, IMAGES, 2))

  def rewards(images, number):
    return tables[number][images, np.arange(IMAGES)].astype(float)

  (sampled, scores), asked = outcome(drawn(tables[0, 0]), rewards, 2, sharding.make_mesh())
  assert asked and len(scores.reward.sharding.device_set) == len(jax.devices())
  return np.asarray(scores.reward), np.asarray(sampled.log_prob)[..., 0]


def test_four_devices_draw_as_one(tmp_path):
  flags = "--xla_force_host_platform_device_count=4"
  program = "import sys, numpy, test_redraw as t; numpy.savez(sys.argv[1], *t.spread())"
  done = subprocess.run(
    [sys.executable, "-c", program, tmp_path / "four.npz"],
    env={**os.environ, "XLA_FLAGS": flags},
    cwd=pathlib.Path(__file__).parent,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  with np.load(tmp_path / "four.npz") as four:
    for one, other in zip(spread(), four.values(), strict=True):
      np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("baseline", ["greedy", "batch", "none"])
def test_where_alike_samples_teach_something_they_stay(baseline):
  config = configs.default()
  config.reward.update(resample=1, baseline=baseline, fn="rtune.rewards.boxes:recall")
  config.task.fn = config.data.train.fn = config.data.val.fn = "rtune.nothing:here"
  with pytest.raises(UsageError, match=r"config\.reward\.resample is 1.*leave_one_out") as caught:
    configs.parse(config)
  assert "\n" not in str(caught.value)
