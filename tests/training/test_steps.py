"""Updates of both phases: what they change, what they must leave alone, what they report."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rtune import config as configs
from rtune.devices import sharding
from rtune.devices.compiling import jit_once
from rtune.policies.tokens import tokens
from rtune.tasks.detection import Detection
from rtune.training import losses, update
from rtune.training.imitate import imitation
from rtune.training.optim import Optimizer, of_mixed_types
from rtune.training.reinforce import _join, _split, reinforce
from rtune.training.scoring import Scores, Scoring

pytestmark = pytest.mark.usefixtures("quick_compiles")

BATCH, SAMPLES = 4, 3
BASELINES = ("leave_one_out", "paper", "greedy", "batch", "none")
TASK = Detection(image_size=16, max_boxes=2, levels=9, classes=("cat", "dog"), category_ids=(1, 2))
PHASE = configs.Reward(fn="rtune.rewards.boxes:recall", batch_size=BATCH, num_samples=SAMPLES)


def sgd(rate) -> Optimizer:
  return Optimizer(*optax.sgd(rate), optax.tree.norm)


def adam(rate) -> Optimizer:
  return Optimizer(*of_mixed_types(optax.adam(rate)), optax.tree.norm)


def make_policy(dropout=0.0):
  sizes = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32, "dropout": dropout}
  encoder = configs.Encoder(patch_size=8, **sizes)
  return tokens(TASK.space(), encoder=encoder, decoder=configs.Decoder(**sizes), dtype="float32")


@pytest.fixture(scope="module")
def batch():
  """Four images with one or two boxes each."""
  rng = np.random.default_rng(0)
  low = rng.uniform(0, 0.5, (BATCH, 2, 2))
  return {
    "image": jnp.asarray(rng.integers(0, 256, (BATCH, 16, 16, 3), np.uint8)),
    "boxes": jnp.asarray(np.concatenate([low, low + 0.4], -1), jnp.float32),
    "labels": jnp.array([[0, 1], [1, -1], [0, 0], [1, 1]], jnp.int32),
    "content": jnp.ones((BATCH, 4)),
  }


@pytest.fixture(scope="module")
def untrained(batch):
  """Parameters whose predictions are neither uniform nor all alike."""

  @jit_once
  def make(key):
    params = make_policy().init(key, batch["image"])
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    noisy = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)

  return jax.tree.map(np.asarray, make(jax.random.key(0)))


@pytest.fixture(scope="module")
def learned(batch, untrained):
  """What imitation of the batch makes of them, and the metrics of every step."""
  optimizer = adam(1e-2)
  step, state = imitating(optimizer), fresh(untrained, optimizer)
  seen = []
  for _ in range(60):
    state, metrics = step(state, batch)
    seen.append({name: float(value) for name, value in metrics.items()})
  return jax.tree.map(np.asarray, state), seen


@pytest.fixture(scope="module")
def params(learned):
  """Parameters whose samples find a box now and then."""
  return learned[0].params


def fresh(params, optimizer, **changes):
  """A state of its own: steps donate theirs."""
  state = update.init_state(jax.tree.map(jnp.array, params), optimizer)
  return state._replace(**changes)


def made_of(optimizer, settings, seed, policy=None, reference=None):
  """What a step is made of."""
  return update.Making(
    TASK,
    policy or make_policy(),
    settings,
    frozen={},
    optimizer=optimizer,
    key=jax.random.key(seed),
    shardings=None,
    mesh=sharding.make_mesh(),
    reference=reference,
    clock=contextlib.nullcontext,
  )


def imitating(optimizer, **changes):
  settings = configs.Imitate(batch_size=BATCH, **changes)
  return imitation(made_of(optimizer, settings, 1)).step


def tuning(optimizer, scoring=None, policy=None, reference=None, **changes):
  settings = dataclasses.replace(PHASE, **changes)
  return reinforce(made_of(optimizer, settings, 2, policy, reference), scoring).step


def paid(function):
  """A scoring that pays actions [B, S, L] by `function`; what is not finite is not valid."""

  @jax.jit
  def score(frozen, actions, batch, running=None):
    del frozen, batch
    reward = function(actions)
    return Scores(reward, jnp.isfinite(reward), {})

  return Scoring(score, on_device=True)


def assert_equal(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


def assert_close(one, other, atol):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), one, other)


def moved(state, params):
  """The largest change of a parameter."""
  pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True)
  return max(np.abs(np.asarray(a) - b).max() for a, b in pairs)


def test_imitation_learns_a_batch(learned):
  state, seen = learned
  assert seen[-1]["loss"] < 0.5 * seen[0]["loss"]
  assert set(seen[0]) == {
    *("loss", "nll", "entropy", "length", "grad_norm", "skipped", "skipped_in_a_row")
  }
  # 7 of 8 slots are full and the empty one ends its sequence: (3 * 12 + 7) / 4 tokens of 12.
  assert seen[0]["length"] == pytest.approx(43 / 4)
  assert seen[0]["nll"] == pytest.approx(seen[0]["loss"] * 48 / 43, rel=1e-5)
  assert state.step == 60
  assert state.skipped == 0


def test_a_lesson_beside_imitation(batch, params):
  """Its loss comes on top; what imitation itself reports and does without it stays."""
  extra = configs.Part("rtune.tasks.confidence:expected_iou")
  mistakes = configs.Part("rtune.tasks.mistakes:boxes")
  lesson = {"mistakes": mistakes, "supervised": extra, "supervised_weight": 0.5}
  optimizer = sgd(1.0)
  (plain, alone), (taught, both) = (
    imitating(optimizer, **changes)(fresh(params, optimizer), batch) for changes in ({}, lesson)
  )
  assert float(both["nll"]) == pytest.approx(float(alone["nll"]), rel=1e-5)
  assert both["supervised"] > 0.01
  assert float(both["loss"]) == pytest.approx(float(alone["loss"] + both["supervised"]), rel=1e-5)
  gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), plain.params, taught.params)
  assert max(jax.tree.leaves(gap)) > 1e-3
  assert losses.extra_losses(configs.Imitate()) == ()


def test_accumulated_imitation_is_imitation(batch, params):
  optimizer = sgd(1.0)
  (one, whole), (two, parts) = (
    imitating(optimizer, accumulate=n)(fresh(params, optimizer), batch) for n in (1, 2)
  )
  assert moved(one, params) > 1e-2
  assert_close(one, two, 1e-6)
  assert_close(whole, parts, 1e-5)


def test_reward_rises(batch, untrained):
  """Paid for tokens 5, the policy learns to say them."""
  optimizer = adam(2e-2)
  step = tuning(optimizer, paid(lambda actions: jnp.mean(actions == 5, axis=-1)))
  state, seen = fresh(untrained, optimizer), []
  for _ in range(60):
    state, metrics = step(state, batch)
    seen.append(float(metrics["reward/mean"]))
  assert np.mean(seen[:5]) < 0.2
  assert np.mean(seen[-5:]) > 0.6


@pytest.fixture(scope="module")
def first_steps(batch, params):
  """State and metrics after the first update with each baseline, paid by recall."""
  optimizer = sgd(1.0)
  return {
    name: tuning(optimizer, baseline=name)(fresh(params, optimizer), batch) for name in BASELINES
  }


@pytest.mark.parametrize("baseline", BASELINES)
def test_every_baseline_steps(first_steps, params, baseline):
  state, metrics = first_steps[baseline]
  assert moved(state, params) > 0
  assert metrics["skipped"] == 0
  assert metrics["log_prob_gap"] < 1e-4
  for name, value in metrics.items():
    assert np.isfinite(value), name
  # The samples do not depend on what they are compared with.
  assert metrics["reward/mean"] == first_steps["none"][1]["reward/mean"]


def test_reward_steps_report(first_steps):
  metrics = first_steps["leave_one_out"][1]
  assert set(metrics) == {
    *("loss", "reinforce", "grad_norm", "skipped", "skipped_in_a_row"),
    *("unrewarded", "unrewarded_in_a_row"),
    *("reward/mean", "reward/std", "reward/min", "reward/max", "reward/alike", "reward/invalid"),
    *("reward/matches", "reward/duplicates", "reward/unmatched", "reward/unjudged"),
    "reward/std_within",
    *("advantage_std", "entropy", "length", "unique", "log_prob_gap"),
  }
  assert metrics["reward/min"] <= metrics["reward/mean"] <= metrics["reward/max"]
  assert 1 / SAMPLES <= metrics["unique"] <= 1
  assert 0 <= metrics["reward/alike"] <= 1
  assert 0 < metrics["length"] <= TASK.length
  assert 0 < metrics["entropy"] <= np.log(TASK.vocab_size)


def test_the_same_step_twice_is_bitwise_the_same(first_steps, batch, params):
  optimizer = sgd(1.0)
  step = tuning(optimizer)
  again = step(fresh(params, optimizer), batch)
  assert_equal(again, first_steps["leave_one_out"])
  _, later = step(fresh(params, optimizer, step=jnp.array(5)), batch)
  assert later["entropy"] != again[1]["entropy"], "another step draws other samples"


def test_accumulated_reward_step_is_the_reward_step(first_steps, batch, params):
  state, metrics = tuning(sgd(1.0), accumulate=2)(fresh(params, sgd(1.0)), batch)
  assert_close(state, first_steps["leave_one_out"][0], 1e-6)
  assert_close(metrics, first_steps["leave_one_out"][1], 1e-5)


def test_samples_drawn_in_parts_stay_with_their_images(batch, params):
  optimizer = sgd(1.0)
  # Each image is paid apart: were parts joined in another order, the wrong images would learn.
  _, metrics = tuning(optimizer, overlap=2)(fresh(params, optimizer), batch)
  assert metrics["log_prob_gap"] < 1e-4
  tree = {"x": jnp.arange(12).reshape(6, 2), "y": jnp.arange(6)}
  assert_equal(_join(_split(tree, 3)), tree)


def test_no_dropout_while_tuning(batch, params):
  optimizer = sgd(1.0)
  step = tuning(optimizer, policy=make_policy(dropout=0.5))
  _, metrics = step(fresh(params, optimizer), batch)
  assert metrics["log_prob_gap"] < 1e-4


def test_kl_is_zero_at_first_and_then_is_not(batch, params):
  optimizer = sgd(10.0)
  reference = jax.tree.map(jnp.array, params)
  step = tuning(optimizer, reference=reference, kl=0.5, entropy=0.1)
  state, first = step(fresh(params, optimizer), batch)
  assert abs(first["kl"]) < 1e-6
  assert first["entropy_bonus"] < 0
  _, second = step(state, batch)
  assert second["kl"] > 1e-5
  terms = ("reinforce", "kl_term", "entropy_bonus")
  assert second["loss"] == pytest.approx(sum(float(second[name]) for name in terms), abs=1e-6)
  assert_equal(reference, params)


def test_extra_loss_is_added(batch, params):
  optimizer = sgd(1.0)
  constant = paid(lambda actions: jnp.ones(actions.shape[:2]))
  # The loss is minus the entropy, so this is the mean entropy itself.
  extra = {"supervised": configs.Part("rtune.training.losses:entropy_of_next")}
  step = tuning(optimizer, constant, supervised_weight=-1.0, **extra)
  state, metrics = step(fresh(params, optimizer), batch)
  assert metrics["loss"] == metrics["supervised"] > 0
  assert moved(state, params) > 1e-4


def test_equal_rewards_move_nothing(batch, params):
  optimizer = sgd(1.0)
  constant = paid(lambda actions: jnp.full(actions.shape[:2], 0.1))
  state, metrics = tuning(optimizer, constant, normalize=True)(fresh(params, optimizer), batch)
  assert_equal(state.params, params)
  assert metrics["reward/alike"] == 1
  assert metrics["advantage_std"] == metrics["grad_norm"] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_invalid_reward_counts_and_the_rest_learns(batch, params, value):
  def reward(actions, broken=value):
    good = jnp.mean(actions, axis=-1)
    return jnp.where(jnp.arange(BATCH * SAMPLES).reshape(good.shape) == 1, broken, good)

  optimizer = sgd(0.1)
  state, metrics = tuning(optimizer, paid(reward))(fresh(params, optimizer), batch)
  assert metrics["reward/invalid"] == 1
  assert metrics["skipped"] == 0
  assert moved(state, params) > 0
  for name, number in metrics.items():
    assert np.isfinite(number), name


def test_a_batch_without_a_valid_reward_changes_nothing(batch, params):
  optimizer = adam(1e-2)
  nothing = paid(lambda actions: jnp.full(actions.shape[:2], jnp.nan))
  step = tuning(optimizer, nothing, entropy=0.1)
  before = fresh(params, optimizer)
  opt_state = jax.tree.map(np.asarray, before.opt_state)
  state, metrics = step(before, batch)
  assert_equal((state.params, state.opt_state), (params, opt_state))
  assert (state.step, state.unrewarded, state.unrewarded_in_a_row) == (1, 1, 1)
  assert metrics["reward/invalid"] == BATCH * SAMPLES
  state, _ = step(state, batch)
  assert (state.step, state.unrewarded, state.unrewarded_in_a_row) == (2, 2, 2)
  assert (state.skipped, state.skipped_in_a_row) == (0, 0)


def test_an_invalid_greedy_reward_does_not_cost_the_batch(batch, params):
  """Greedy answers come one an image; here they are the ones that cannot be judged."""

  def reward(actions):
    good = jnp.mean(actions, axis=-1)
    return jnp.full_like(good, jnp.nan) if actions.shape[1] == 1 else good

  optimizer = sgd(0.1)
  step = tuning(optimizer, paid(reward), baseline="greedy")
  state, metrics = step(fresh(params, optimizer), batch)
  assert metrics["skipped"] == 0
  assert metrics["advantage_std"] == 0
  assert_equal(state.params, params)


def poisoned(params):
  bias = params["decoder"]["LogitsDense"]["bias"].copy()
  bias[0] = np.nan
  dense = {**params["decoder"]["LogitsDense"], "bias": bias}
  return {**params, "decoder": {**params["decoder"], "LogitsDense": dense}}


def test_a_loss_that_is_not_finite_changes_nothing(batch, params):
  optimizer = adam(1e-2)
  step, bad = imitating(optimizer), poisoned(params)
  before = fresh(bad, optimizer)
  opt_state = jax.tree.map(np.asarray, before.opt_state)
  state, metrics = step(before, batch)
  assert not np.isfinite(metrics["loss"])
  assert_equal((state.params, state.opt_state), (bad, opt_state))
  assert (state.step, state.skipped, state.skipped_in_a_row) == (1, 1, 1)
  # One that is applied ends the row and stays in the count.
  state, metrics = step(fresh(params, optimizer, skipped=jnp.array(4)), batch)
  assert (metrics["skipped"], metrics["skipped_in_a_row"]) == (4, 0)
  assert moved(state, params) > 0


def test_an_update_that_is_not_finite_is_not_applied(batch, params):
  optimizer = sgd(np.inf)
  state, metrics = imitating(optimizer)(fresh(params, optimizer), batch)
  assert np.isfinite(metrics["loss"])
  assert_equal(state.params, params)
  assert state.skipped_in_a_row == 1
