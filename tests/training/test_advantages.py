"""What samples are compared with, and what rewards that say nothing must not do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.errors import UsageError
from rtune.training import advantages as of

BASELINES = ("leave_one_out", "paper", "greedy", "batch", "none", "group_mean")


@functools.partial(jax.jit, static_argnames=("baseline", "normalize"))
def advantages(rewards, valid, baseline, greedy=None, normalize=False):
  return of.advantages(of.named(baseline), rewards, valid, normalize, greedy=greedy)


REWARDS = jnp.array([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
ALL = jnp.ones((2, 3), bool)


def test_advantages_by_hand():
  greedy = jnp.array([2.0, -1.0])
  want = {
    "leave_one_out": [[-3.0, -1.5, 4.5], [-1.5, -1.5, 3.0]],
    "paper": [[-9.0, 0.0, 0.0], [-4.5, 0.0, 0.0]],
    "greedy": [[-1.0, 0.0, 4.0], [1.0, 1.0, 4.0]],
    "batch": [[-1.2, 0.0, 4.8], [-2.4, -2.4, 1.2]],  # 6 / 5 times what the mean of all leaves
    "none": REWARDS,
    "group_mean": [[-2.0, -1.0, 3.0], [-1.0, -1.0, 2.0]],
  }
  for name, values in want.items():
    got = advantages(REWARDS, ALL, name, greedy)
    np.testing.assert_allclose(got, values, atol=1e-6, err_msg=name)


def test_normalized_by_hand():
  got = advantages(REWARDS, ALL, "leave_one_out", normalize=True)
  want = np.array([[-3.0, -1.5, 4.5], [-1.5, -1.5, 3.0]]) / np.std(REWARDS, axis=1, keepdims=True)
  np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])
def test_an_invalid_sample_leaves_no_trace(baseline, normalize, poison):
  """The siblings' advantages are those of a group without it, and its own is zero."""
  greedy = jnp.array([2.0, -1.0])
  rewards, valid = REWARDS.at[:, 1].set(poison), ALL.at[:, 1].set(False)
  got = advantages(rewards, valid, baseline, greedy, normalize)
  without = advantages(REWARDS[:, ::2], ALL[:, ::2], baseline, greedy, normalize)
  # The paper's one gradient is scaled by the samples of a group, and two are not three.
  scale = 3 / 2 if baseline == "paper" else 1
  np.testing.assert_allclose(got[:, ::2], scale * without, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(got[:, 1], 0)


@pytest.mark.parametrize("baseline", BASELINES)
def test_nothing_valid_gives_zero(baseline):
  rewards = jnp.full((2, 3), jnp.nan)
  got = advantages(rewards, ~ALL, baseline, jnp.zeros(2), normalize=True)
  np.testing.assert_array_equal(got, 0)


def test_one_valid_sample_has_no_siblings_to_beat():
  valid = jnp.array([[True, False, False], [True, True, True]])
  for baseline in ("leave_one_out", "paper"):
    got = advantages(REWARDS, valid, baseline)
    np.testing.assert_array_equal(got[0], 0)
    assert np.abs(got[1]).max() > 0


@pytest.mark.parametrize("samples", [2, 3, 6, 7])
@pytest.mark.parametrize("baseline", ["leave_one_out", "paper", "batch", "group_mean"])
def test_constant_rewards_teach_exactly_nothing(samples, baseline):
  """Also those that floating point cannot sum without an error."""
  valid = jnp.ones((3, samples), bool)
  for value in (0.1, 1 / 3, 1e6, -7.7, 0.0):
    rewards = jnp.full((3, samples), value)
    for normalize in (False, True):
      got = advantages(rewards, valid, baseline, normalize=normalize)
      np.testing.assert_array_equal(got, 0)


@pytest.mark.parametrize("baseline", BASELINES)
def test_equal_samples_are_not_blown_up_by_their_deviation(baseline):
  rewards = jnp.array([[0.1] * 6, [1 / 3] * 6, [0.0, 1.0] * 3])
  valid = jnp.ones_like(rewards, bool)
  got = advantages(rewards, valid, baseline, jnp.zeros(3), normalize=True)
  np.testing.assert_array_equal(got[:2], 0)
  assert np.abs(got[2]).max() > 0.5


def test_an_image_without_a_greedy_reward_is_left_out():
  greedy = jnp.array([jnp.nan, -1.0])
  got = advantages(REWARDS, ALL, "greedy", greedy)
  np.testing.assert_allclose(got, [[0, 0, 0], [1, 1, 4]])


@pytest.mark.parametrize("baseline", BASELINES)
def test_one_sample(baseline):
  greedy = jnp.array([2.0, -1.0])
  got = advantages(REWARDS[:, :1], ALL[:, :1], baseline, greedy)
  want = {"greedy": [-1.0, 1.0], "batch": [1.0, -1.0], "none": [1.0, 0.0]}.get(baseline, [0, 0])
  np.testing.assert_allclose(got[:, 0], want)


@pytest.mark.parametrize("baseline", BASELINES)
def test_credit_is_compared_decision_by_decision(baseline):
  """An advantage of each decision is what it would be if decisions came alone."""
  greedy = jnp.array([[2.0, 0.5], [-1.0, 0.0]])
  credit, valid = jnp.stack([REWARDS, REWARDS**2], axis=-1), ALL.at[0, 2].set(False)
  got = advantages(credit, valid, baseline, greedy, normalize=True)
  for decision in range(2):
    want = advantages(credit[..., decision], valid, baseline, greedy[:, decision], normalize=True)
    np.testing.assert_allclose(got[..., decision], want, rtol=1e-6)


def test_a_function_of_the_users_gets_what_it_asks_for():
  def capped(rewards, valid, *, sampled):
    return jnp.minimum(rewards, sampled)

  got = of.advantages(capped, REWARDS, ALL, greedy=None, sampled=2.0)
  np.testing.assert_array_equal(got, np.minimum(REWARDS, 2.0))
  with pytest.raises(UsageError, match=r"config.reward.baseline: flat returned .* shape \(6,\)"):

    def flat(rewards, valid):
      return rewards.ravel()

    of.advantages(flat, REWARDS, ALL)
