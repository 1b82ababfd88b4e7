"""REINFORCE, KL and entropy against exact enumeration and closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune import config as configs
from rtune.errors import UsageError
from rtune.policies import heads
from rtune.policies.policy import Policy, Scored
from rtune.training import losses
from rtune.training.advantages import advantages, named

BASELINES = ("leave_one_out", "paper", "greedy", "batch", "none", "group_mean")
IMAGES, SAMPLES, LENGTH, DRAWS = 2, 4, 2, 20_000
# What the two-token policy is paid for each answer, by image; some 2.0 away from zero, as that is
# where a baseline earns its keep.
PAID = jnp.array([[[2.0, 3.0], [1.0, 2.5]], [[3.0, 2.0], [2.0, 1.0]]])


def scored_from(logits_BSLV, actions_BSL):
  """What a policy would answer: the log-probability of two tokens drawn one after the other."""
  taken = heads.categorical.log_prob(logits_BSLV, actions_BSL)
  return Scored(taken, jnp.ones_like(taken), logits_BSLV)


# Losses ask for these of it, and for nothing else.
POLICY = Policy(
  *[None] * 4,
  entropy=lambda scored: heads.categorical.entropy(scored.outputs),
  divergence=lambda scored, reference: heads.categorical.kl(scored.outputs, reference.outputs),
)


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


def draw(theta, key):
  """Answers of the two-token policy."""
  one, two = jax.random.uniform(key, (2, IMAGES, SAMPLES))
  first = (one < jax.nn.sigmoid(theta[:, :1])).astype(jnp.int32)
  then = jnp.where(first == 0, theta[:, 1:2], theta[:, 2:3])
  return jnp.stack([first, (two < jax.nn.sigmoid(then)).astype(jnp.int32)], -1)


def estimates(theta):
  """Of each baseline, the estimates of DRAWS independent batches, from the same answers."""
  greedy = reward_of(jnp.array([[[1, 1]], [[0, 1]]]))[:, 0]

  def loss(theta, actions, baseline):
    rewards = reward_of(actions)
    valid = jnp.ones_like(rewards, bool)
    compared = advantages(named(baseline), rewards, valid, greedy=greedy)
    return losses.reinforce(scored_from(toy_logits(theta, actions), actions), compared)

  def one(key):
    actions = draw(theta, key)
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
  # The mean of the group holds each sample itself: it shrinks the gradient by one in S.
  shrunk = 1 - 1 / SAMPLES if baseline == "group_mean" else 1
  assert np.linalg.norm(exact) > 15 * np.linalg.norm(error), "too noisy to tell"
  np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - shrunk * exact), 4 * error)


def test_leave_one_out_is_quiet(toy):
  noise = {name: drawn.var(axis=0).sum() for name, drawn in toy[1].items()}
  assert noise["leave_one_out"] < 0.5 * noise["none"]
  assert noise["leave_one_out"] < noise["paper"]


REWARDS = jnp.array([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])


def random_scored(seed, mask=None):
  rng = np.random.default_rng(seed)
  logits = jnp.asarray(rng.normal(size=(2, 3, 4, 5)) * 2, jnp.float32)
  scored = scored_from(logits, jnp.asarray(rng.integers(0, 5, (2, 3, 4))))
  mask = jnp.ones((2, 3, 4)) if mask is None else mask
  return scored._replace(log_prob=scored.log_prob * mask, mask=mask)


def test_reinforce_and_imitation_by_definition():
  scored = random_scored(0)
  compared = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)), jnp.float32)
  log_prob = np.asarray(scored.log_prob, np.float64)
  want = -np.mean(np.asarray(compared)[..., None] * log_prob)
  np.testing.assert_allclose(losses.reinforce(scored, compared), want, rtol=1e-5)
  np.testing.assert_allclose(losses.imitation(scored), -log_prob.mean(), rtol=1e-5)


def test_no_gradient_flows_through_advantages():
  gradient = jax.grad(lambda a: losses.reinforce(random_scored(0), a))(REWARDS)
  np.testing.assert_array_equal(gradient, 0)


def test_kl_is_its_closed_form():
  mask = jnp.asarray(np.random.default_rng(2).integers(0, 2, (2, 3, 4)), jnp.float32)
  scored, reference = random_scored(0, mask), random_scored(1, mask)
  p, q = (jax.nn.softmax(np.asarray(s.outputs, np.float64)) for s in (scored, reference))
  kl = np.sum(p * np.log(p / q), axis=-1)
  for loss in (losses.kl, losses.kl_of_next):
    got = loss(scored, POLICY, reference)
    np.testing.assert_allclose(got, np.mean(kl * np.asarray(mask)), rtol=1e-5)
    assert got > 0.1
    np.testing.assert_array_equal(loss(scored, POLICY, scored), 0)


def test_kl_gradient_pulls_to_the_reference_only():
  scored, reference = random_scored(0), random_scored(1)

  def of(logits, reference_logits):
    return losses.kl_of_next(
      scored._replace(outputs=logits), POLICY, reference._replace(outputs=reference_logits)
    )

  ours, theirs = jax.grad(of, (0, 1))(scored.outputs, reference.outputs)
  np.testing.assert_array_equal(theirs, 0)
  p, q = jax.nn.softmax(scored.outputs), jax.nn.softmax(reference.outputs)
  ratio = jnp.log(p / q)
  want = p * (ratio - jnp.sum(p * ratio, -1, keepdims=True)) / scored.log_prob.size
  np.testing.assert_allclose(ours, want, atol=1e-6)


def test_kl_of_two_hand_made_distributions():
  def fixed(p):
    logits = jnp.log(jnp.array(p, jnp.float32)).reshape(1, 1, 1, 2)
    return scored_from(logits, jnp.zeros((1, 1, 1), jnp.int32))

  got = losses.kl(fixed([0.5, 0.5]), POLICY, fixed([0.25, 0.75]))
  np.testing.assert_allclose(got, 0.5 * np.log(2) + 0.5 * np.log(2 / 3), rtol=1e-5)


def test_credit_and_weights_of_decisions():
  """An advantage of each decision, and how much each counts; alike ones are as good as one."""
  scored = random_scored(0, jnp.ones((2, 3, 4)).at[0, 1, 2:].set(0))
  log_prob = np.asarray(scored.log_prob, np.float64)
  credit = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4)), jnp.float32)
  weights = (1.0, 0.0, 0.5, 2.0)
  want = -np.mean(np.asarray(credit) * log_prob * np.array(weights))
  np.testing.assert_allclose(losses.reinforce(scored, credit, weights), want, rtol=1e-5)
  alike = jnp.broadcast_to(REWARDS[..., None], credit.shape)
  np.testing.assert_allclose(
    losses.reinforce(scored, alike), losses.reinforce(scored, REWARDS), rtol=1e-5
  )


@pytest.mark.parametrize("name", ["kl", "entropy"])
def test_gradients_of_whole_answers_are_the_exact_ones(name):
  """Of the expectation, in which a decision answers for what comes after it."""
  theta = jnp.array([[0.4, -0.3, 1.8], [-0.6, 1.2, 0.1]])
  given = () if name == "entropy" else (jnp.array([[0.0, 1.0, -1.0], [0.5, -1.0, 1.0]]),)

  def loss(theta, actions):
    scored = scored_from(toy_logits(theta, actions), actions)
    reference = [scored_from(toy_logits(other, actions), actions) for other in given]
    return getattr(losses, name)(scored, POLICY, *reference)

  def exact(theta):
    """Of whole answers, from the log-probabilities of all four."""
    every = jnp.array(list(itertools.product((0, 1), repeat=LENGTH)))
    actions = jnp.broadcast_to(every, (IMAGES, 4, LENGTH))
    ours, *theirs = (
      jnp.sum(scored_from(toy_logits(x, actions), actions).log_prob, -1) for x in (theta, *given)
    )
    return jnp.mean(jnp.sum(jnp.exp(ours) * (ours - sum(theirs)), -1)) / LENGTH

  def one(key):
    return jax.value_and_grad(loss)(theta, draw(theta, key))

  keys = jax.random.split(jax.random.key(0), DRAWS)
  values, gradients = jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys))
  value, gradient = jax.value_and_grad(exact)(theta)
  assert abs(values.mean() - value) < 4 * values.std() / DRAWS**0.5
  error = gradients.std(axis=0) / DRAWS**0.5
  assert np.linalg.norm(gradient) > 15 * np.linalg.norm(error), "too noisy to tell"
  np.testing.assert_array_less(np.abs(gradients.mean(axis=0) - gradient), 4 * error + 1e-7)


def test_weights_that_do_not_fit_the_answers_are_refused():
  ones = jnp.ones((1, 2, 2))
  scored = Scored(-ones, ones, None)
  with pytest.raises(UsageError, match="3 weights for 2 decisions"):
    losses.reinforce(scored, jnp.ones((1, 2)), (1.0, 1.0, 1.0))


def nearness(prediction, truth, *, scale):
  """A reward with a gradient."""
  return {"reward": -scale * jnp.sum((prediction - truth) ** 2)}


def test_the_gradient_of_a_reward_itself():
  """Of the mean over images of -3 (x - y)^2: what is minimized has 2 * 3 (x - y) / images."""
  extras = losses.extra_losses(
    configs.Imitate(
      losses=(
        configs.Weighted(
          "rtune.training.losses:reward_of_best",
          {"reward": f"{__file__}:nearness", "args": {"scale": 3.0}},
          0.5,
        ),
      )
    )
  )
  assert losses.needed(extras) == {"scored", "best", "truth"}
  best, truth = jnp.array([[1.0, 2.0], [0.0, 4.0]]), jnp.array([[0.0, 2.0], [1.0, 1.0]])

  def loss(best):
    offered = {"scored": random_scored(0), "best": best, "truth": truth}
    weighted, _ = losses.terms(extras, offered)
    return weighted["reward_of_best"]

  np.testing.assert_allclose(loss(best), 0.5 * 3 * (1 + 10) / 2)
  np.testing.assert_allclose(jax.grad(loss)(best), 0.5 * 3 * (best - truth), rtol=1e-6)
