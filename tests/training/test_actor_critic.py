"""Soft actor-critic: the replay, what critics are taught, the bounded step, and that it learns.

Dimension key:
  B: batch of images
  S: samples for each image
  T: decisions of an answer
  N: decisions in a row
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rtune import config as configs
from rtune.devices.compiling import jit_once
from rtune.errors import UsageError
from rtune.policies.heads import Normal
from rtune.policies.policy import Control, Sampled
from rtune.policies.squashed import tanh_normal
from rtune.training import actor_critic, critics, replay
from rtune.training.optim import Optimizer, of_mixed_types
from rtune.training.scoring import Scores
from rtune.training.update import Making

pytestmark = pytest.mark.usefixtures("quick_compiles")

SETTINGS = configs.ActorCritic(critic_width=16, critic_lr=1e-2, discount=0.5)


def actor(params, states):
  mean = states @ params["kernel"] + params["bias"].reshape(*[1] * (states.ndim - 1), -1)
  return Normal(mean, jnp.full_like(mean, 0.3))


CONTROL = Control(2, 2, 1, lambda *given: None, lambda actions: actions, actor, tanh_normal, None)
PARAMS = {"kernel": jnp.zeros((2, 1)), "bias": jnp.zeros(1)}


def learned(settings, first, given, key):
  """One update of the critics."""
  update = jit_once(functools.partial(critics.learn, CONTROL, settings))
  return update(first, PARAMS, given, key)


def decisions(number, seed=0, looks_ahead=True):
  rng = np.random.default_rng(seed)
  state, following = (jnp.asarray(rng.normal(size=(number, 2)), jnp.float32) for _ in range(2))
  choice = jnp.asarray(rng.normal(size=(number, 1)), jnp.float32)
  reward = -((jnp.tanh(choice[:, 0]) - 0.5) ** 2)
  found = replay.Decisions(state, choice, reward, jnp.ones(number))
  if looks_ahead:
    found = found._replace(following=following, goes_on=jnp.ones(number))
  return found


def test_the_replay_holds_the_last_ones_and_draws_what_is_there():
  held = replay.empty(CONTROL, 5, looks_ahead=False)
  seen = np.zeros(0)
  for first, number in ((1, 3), (4, 4), (8, 7)):
    rewards = np.arange(first, first + number, dtype=np.float32)
    added = decisions(number, looks_ahead=False)._replace(reward=jnp.asarray(rewards))
    held = jax.jit(replay.add)(held, added)
    seen = np.concatenate([seen, rewards])
    assert int(held.filled) == min(len(seen), 5)
    drawn = np.asarray(replay.draw(held, jax.random.key(0), 200).reward)
    assert set(drawn) == set(seen[-5:])


def test_decisions_meet_themselves_in_the_next_round():
  """Two rounds of three places; the last round is followed by nothing."""
  states = jnp.arange(12.0).reshape(1, 1, 6, 2)
  mask = jnp.array([[[1, 1, 1, 1, 0, 1.0]]])
  rewards = jnp.array([[[1, 2, 3, 4, 5, jnp.nan]]])
  found = replay.decisions_of(CONTROL, states, mask, states[..., :1], rewards, True)
  np.testing.assert_array_equal(found.weight, [1, 1, 1, 1, 0, 0])
  np.testing.assert_array_equal(found.reward, [1, 2, 3, 4, 5, 0])
  np.testing.assert_array_equal(found.goes_on, [1, 0, 1, 0, 0, 0])
  np.testing.assert_array_equal(found.following[:3], found.state[3:])
  np.testing.assert_array_equal(found.following[3:], np.zeros((3, 2)))


def test_critics_are_taught_the_reward_and_the_discounted_soft_value_ahead():
  """The gradient of one update is that of the written out objective."""
  given = decisions(8)
  given = given._replace(
    weight=jnp.array([1, 1, 1, 1, 1, 1, 0, 0.0]), goes_on=jnp.array([1, 0] * 4, jnp.float32)
  )
  first = critics.first(CONTROL, SETTINGS, jax.random.key(1))
  key = jax.random.key(2)
  found, said = learned(SETTINGS, first, given, key)
  choice = tanh_normal.sample(key, actor(PARAMS, given.following))
  log_prob = tanh_normal.log_prob(actor(PARAMS, given.following), choice)[:, 0]
  ahead = np.asarray(critics.values(SETTINGS, first.target, given.following, choice)).min(0)
  soft = ahead - SETTINGS.temperature * np.asarray(log_prob)
  wanted = np.asarray(given.reward) + 0.5 * np.asarray(given.goes_on) * soft
  held = np.asarray(critics.values(SETTINGS, first.params, given.state, given.choice))
  want = ((held - wanted) ** 2).sum(0)[:6].mean()
  assert float(said["critic_loss"]) == pytest.approx(want, rel=1e-4)
  moved = jax.tree.map(
    lambda t, o, n: np.abs(t - (0.995 * o + 0.005 * n)).max(),
    *(found.target, first.target, found.params),
  )
  assert max(jax.tree.leaves(moved)) < 1e-6


@pytest.mark.parametrize(("scale", "rises"), [(0.05, False), (3.0, True)])
def test_the_temperature_follows_what_entropy_is_wanted(scale, rises):
  settings = configs.ActorCritic(target_entropy=-1.0 if not rises else 5.0)
  first = critics.first(CONTROL, settings, jax.random.key(1))
  found, _ = learned(settings, first, decisions(32), jax.random.key(2))
  assert bool(found.log_temperature > first.log_temperature) == rises


def test_critics_and_actor_find_the_best_choice():
  """A bandit whose best squashed choice is 0.5, whatever is seen."""
  settings = configs.ActorCritic(critic_width=32, critic_lr=3e-3, temperature=0.01)
  first = critics.first(CONTROL, settings, jax.random.key(1))
  optimizer = Optimizer(*of_mixed_types(optax.adam(1e-2)), optax.tree.norm)
  given = decisions(512, looks_ahead=False)

  @jax.jit
  def learn(found, number):
    held, params, opt_state = found
    key = jax.random.fold_in(jax.random.key(3), number)
    held, _ = critics.learn(CONTROL, settings, held, params, given, key)
    grads = jax.grad(lambda p: critics.actor_loss(CONTROL, settings, held, p, given, key)[0])(
      params
    )
    updates, opt_state = optimizer.update(grads, opt_state)
    return (held, optax.apply_updates(params, updates), opt_state), None

  start = first, PARAMS, optimizer.init(PARAMS)
  (_, params, _), _ = jax.lax.scan(learn, start, jnp.arange(400))
  found = np.tanh(np.asarray(actor(params, given.state).mean))
  assert abs(found.mean() - 0.5) < 0.2  # it begins at 0


@pytest.mark.parametrize("bound", [0.01, 1e-5, 0.0])
def test_the_step_of_the_actor_is_bounded(bound):
  """KL of normals of one deviation is the squared distance of means over two variances."""
  new = {"kernel": PARAMS["kernel"], "bias": jnp.full(1, 0.2)}
  found, said = critics.bounded(CONTROL, PARAMS, new, decisions(6), bound)
  want = float(found["bias"][0]) ** 2 / (2 * 0.3**2)
  assert float(said["kl_step"]) == pytest.approx(want, rel=1e-2)
  if bound:
    assert want <= bound < 4 * want  # the last halving was needed
    assert float(found["bias"][0]) == pytest.approx(0.2 * float(said["step_share"]))
  else:
    assert float(found["bias"][0]) == pytest.approx(0.2)


def test_a_step_without_a_finite_distance_is_not_taken():
  new = {"kernel": PARAMS["kernel"], "bias": jnp.full(1, jnp.inf)}
  found, said = critics.bounded(CONTROL, PARAMS, new, decisions(6), 0.01)
  assert float(said["step_share"]) == 0
  np.testing.assert_array_equal(found["bias"], [0.0])


def test_a_reward_without_credit_is_refused():
  policy = types.SimpleNamespace(control=CONTROL)
  making = Making(None, policy, *[None] * 8)
  scores = Scores(jnp.zeros((1, 1)), jnp.ones((1, 1), bool), {})
  sampled = Sampled(jnp.zeros((1, 1, 2, 1)), jnp.zeros((1, 1, 2)))
  with pytest.raises(UsageError, match="gives no credit for single decisions"):
    actor_critic._decided(making, PARAMS, {}, sampled, scores)
