"""REINFORCE against exact enumeration, and what rewards that say nothing must not do."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.policies.policy import Scored
from rtune.training import losses

BASELINES = ("leave_one_out", "paper", "greedy", "batch", "none")
IMAGES, SAMPLES, LENGTH, DRAWS = 2, 4, 2, 20_000
# What the two-token policy is paid for each answer, by image; some 2.0 away from zero, as that is
# where a baseline earns its keep.
PAID = jnp.array([[[2.0, 3.0], [1.0, 2.5]], [[3.0, 2.0], [2.0, 1.0]]])


def scored_from(logits_BSLV, actions_BSL):
  """What a policy would answer: the log-probability of two tokens drawn one after the other."""
  log_probs = jax.nn.log_softmax(logits_BSLV)
  taken = jnp.take_along_axis(log_probs, actions_BSL[..., None], -1)[..., 0]
  entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, -1)
  return Scored(taken, entropy, jnp.ones_like(taken), logits_BSLV)


def toy_logits(theta, actions_BSL):
  """theta [B, 3]: the logit of token 1 first, after a 0, and after a 1; token 0 has logit 0."""
  first_BS = jnp.broadcast_to(theta[:, :1], actions_BSL.shape[:2])
  then_BS = jnp.where(actions_BSL[..., 0] == 0, theta[:, 1:2], theta[:, 2:3])
  ones_BSL = jnp.stack([first_BS, then_BS], axis=-1)
  return jnp.stack([jnp.zeros_like(ones_BSL), ones_BSL], axis=-1)


def reward_of(actions_BSL):
  image_B1 = jnp.arange(actions_BSL.shape[0])[:, None]
  return PAID[image_B1, actions_BSL[..., 0], actions_BSL[..., 1]]


def exact_gradient(theta):
  """Of the expected reward, averaged over images, by going through all four answers."""
  every = jnp.array(list(itertools.product((0, 1), repeat=LENGTH)))
  actions = jnp.broadcast_to(every, (IMAGES, 4, LENGTH))

  def expected(theta):
    log_prob = scored_from(toy_logits(theta, actions), actions).log_prob
    return jnp.mean(jnp.sum(jnp.exp(jnp.sum(log_prob, -1)) * reward_of(actions), -1))

  return jax.grad(expected)(theta)


def estimates(theta):
  """Of each baseline, the estimates of DRAWS independent batches, from the same answers."""
  greedy = reward_of(jnp.array([[[1, 1]], [[0, 1]]]))[:, 0]

  def draw(key):
    one, two = jax.random.uniform(key, (2, IMAGES, SAMPLES))
    first = (one < jax.nn.sigmoid(theta[:, :1])).astype(jnp.int32)
    then = jnp.where(first == 0, theta[:, 1:2], theta[:, 2:3])
    return jnp.stack([first, (two < jax.nn.sigmoid(then)).astype(jnp.int32)], -1)

  def loss(theta, actions, baseline):
    rewards = reward_of(actions)
    advantages = losses.advantages(rewards, jnp.ones_like(rewards, bool), baseline, greedy)
    return losses.reinforce(scored_from(toy_logits(theta, actions), actions), advantages)

  def one(key):
    actions = draw(key)
    return {name: -LENGTH * jax.grad(loss)(theta, actions, name) for name in BASELINES}

  keys = jax.random.split(jax.random.key(0), DRAWS)
  return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys))


@pytest.fixture(scope="module")
def toy():
  """The exact gradient, and the estimates of every baseline."""
  theta = jnp.array([[0.4, -0.3, 0.8], [-0.6, 0.2, 0.1]])
  return exact_gradient(theta), estimates(theta)


@pytest.mark.parametrize("baseline", BASELINES)
def test_gradient_is_the_exact_one(toy, baseline):
  exact, drawn = toy[0], toy[1][baseline]
  error = drawn.std(axis=0) / DRAWS**0.5
  # The mean of the batch holds each sample itself: it shrinks the gradient by one in BS.
  shrunk = 1 - 1 / (IMAGES * SAMPLES) if baseline == "batch" else 1
  assert np.linalg.norm(exact) > 15 * np.linalg.norm(error), "too noisy to tell"
  np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - shrunk * exact), 4 * error)


def test_leave_one_out_is_quiet(toy):
  noise = {name: drawn.var(axis=0).sum() for name, drawn in toy[1].items()}
  assert noise["leave_one_out"] < 0.5 * noise["none"]
  assert noise["leave_one_out"] < noise["paper"]


advantages = jax.jit(losses.advantages, static_argnames=("baseline", "normalize"))
REWARDS = jnp.array([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
ALL = jnp.ones((2, 3), bool)


def test_advantages_by_hand():
  greedy = jnp.array([2.0, -1.0])
  want = {
    "leave_one_out": [[-3.0, -1.5, 4.5], [-1.5, -1.5, 3.0]],
    "paper": [[-9.0, 0.0, 0.0], [-4.5, 0.0, 0.0]],
    "greedy": [[-1.0, 0.0, 4.0], [1.0, 1.0, 4.0]],
    "batch": [[-1.0, 0.0, 4.0], [-2.0, -2.0, 1.0]],
    "none": REWARDS,
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
@pytest.mark.parametrize("baseline", ["leave_one_out", "paper", "batch"])
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
  want = {"greedy": [-1.0, 1.0], "batch": [0.5, -0.5], "none": [1.0, 0.0]}.get(baseline, [0, 0])
  np.testing.assert_allclose(got[:, 0], want)


def random_scored(seed, mask=None):
  rng = np.random.default_rng(seed)
  logits = jnp.asarray(rng.normal(size=(2, 3, 4, 5)) * 2, jnp.float32)
  scored = scored_from(logits, jnp.asarray(rng.integers(0, 5, (2, 3, 4))))
  mask = jnp.ones((2, 3, 4)) if mask is None else mask
  return scored._replace(log_prob=scored.log_prob * mask, mask=mask)


def test_reinforce_and_imitation_by_definition():
  scored = random_scored(0)
  advantages = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)), jnp.float32)
  log_prob = np.asarray(scored.log_prob, np.float64)
  want = -np.mean(np.asarray(advantages)[..., None] * log_prob)
  np.testing.assert_allclose(losses.reinforce(scored, advantages), want, rtol=1e-5)
  np.testing.assert_allclose(losses.imitation(scored), -log_prob.mean(), rtol=1e-5)


def test_no_gradient_flows_through_advantages():
  gradient = jax.grad(lambda a: losses.reinforce(random_scored(0), a))(REWARDS)
  np.testing.assert_array_equal(gradient, 0)


def test_kl_is_its_closed_form():
  mask = jnp.asarray(np.random.default_rng(2).integers(0, 2, (2, 3, 4)), jnp.float32)
  scored, reference = random_scored(0, mask), random_scored(1, mask)
  p, q = (jax.nn.softmax(np.asarray(s.logits, np.float64)) for s in (scored, reference))
  kl = np.sum(p * np.log(p / q), axis=-1)
  got = losses.kl_divergence(scored, reference)
  np.testing.assert_allclose(got, np.mean(kl * np.asarray(mask)), rtol=1e-5)
  assert got > 0.1
  np.testing.assert_array_equal(losses.kl_divergence(scored, scored), 0)


def test_kl_gradient_pulls_to_the_reference_only():
  scored, reference = random_scored(0), random_scored(1)

  def of(logits, reference_logits):
    return losses.kl_divergence(
      scored._replace(logits=logits), reference._replace(logits=reference_logits)
    )

  ours, theirs = jax.grad(of, (0, 1))(scored.logits, reference.logits)
  np.testing.assert_array_equal(theirs, 0)
  p, q = jax.nn.softmax(scored.logits), jax.nn.softmax(reference.logits)
  ratio = jnp.log(p / q)
  want = p * (ratio - jnp.sum(p * ratio, -1, keepdims=True)) / scored.log_prob.size
  np.testing.assert_allclose(ours, want, atol=1e-6)


def test_kl_of_two_hand_made_distributions():
  def fixed(p):
    logits = jnp.log(jnp.array(p, jnp.float32)).reshape(1, 1, 1, 2)
    return scored_from(logits, jnp.zeros((1, 1, 1), jnp.int32))

  got = losses.kl_divergence(fixed([0.5, 0.5]), fixed([0.25, 0.75]))
  np.testing.assert_allclose(got, 0.5 * np.log(2) + 0.5 * np.log(2 / 3), rtol=1e-5)
