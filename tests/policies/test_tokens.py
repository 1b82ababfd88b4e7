"""Sampling, greedy decoding and teacher forcing are one distribution, whatever makes them fast."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune import config as configs
from rtune.benchmark.plain_sampler import plain_sample
from rtune.devices.compiling import jit_once
from rtune.models import encoder_decoder
from rtune.policies import heads
from rtune.policies import tokens as ar
from rtune.policies.space import Ending

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIZE, VOCAB, LENGTH = 16, 7, 13
BOX_ENDING = Ending(token=0, stride=6)


def model_config(dtype="float32", remat=False, cache_block=64, dropout=0.0, drop_path=0.0, depth=1):
  regular = {"dropout": dropout, "drop_path": drop_path}
  return configs.Model(
    encoder=configs.Encoder(patch_size=8, width=16, depth=1, num_heads=2, mlp_dim=32, **regular),
    decoder=configs.Decoder(width=16, depth=depth, num_heads=2, mlp_dim=32, **regular),
    dtype=dtype,
    remat=remat,
    cache_block=cache_block,
  )


def make(length=LENGTH, vocab=VOCAB, ending=None, **settings):
  config = model_config(**settings)
  model = encoder_decoder.build(config, vocab, length)
  return ar.autoregressive(model, length, ending, config.cache_block)


def random_images(num, seed=0):
  pixels = np.random.default_rng(seed).integers(0, 256, (num, SIZE, SIZE, 3), np.uint8)
  return jnp.asarray(pixels)


def random_params(policy, seed=0, scale=0.3):
  """Parameters of no particular model; those of `init` say the same for every prefix."""
  params = jit_once(policy.init)(jax.random.key(seed), random_images(1))
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
  noisy = [x + scale * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
  return jax.tree.unflatten(tree, noisy)


def with_logit(params, token, value):
  """The same parameters with a bias for one token."""
  bias = params["decoder"]["LogitsDense"]["bias"].at[token].add(value)
  dense = {**params["decoder"]["LogitsDense"], "bias": bias}
  return {**params, "decoder": {**params["decoder"], "LogitsDense": dense}}


def draw(policy, params, images, samples=3, seed=5):
  sample = jax.jit(policy.sample, static_argnums=3)
  return sample(params, images, jax.random.key(seed), samples)


@pytest.fixture(scope="module")
def drawn():
  """A policy without end, its parameters, images, and samples."""
  policy = make(depth=2)
  policy = policy._replace(score=jax.jit(policy.score), best=jax.jit(policy.best))
  params, images = random_params(policy), random_images(3)
  return policy, params, images, draw(policy, params, images)


def test_sampled_log_prob_is_that_of_teacher_forcing(drawn):
  policy, params, images, sampled = drawn
  scored = policy.score(params, images, sampled.actions)
  np.testing.assert_allclose(sampled.log_prob, scored.log_prob, atol=1e-5)
  assert len(np.unique(sampled.actions)) == VOCAB
  spread = np.std(scored.outputs, axis=(0, 1, 2))
  assert (spread > 0.1).all(), "logits that do not depend on the prefix would hide a wrong cache"


def test_greedy_tokens_are_the_largest_teacher_forced_logits(drawn):
  policy, params, images, _ = drawn
  tokens = policy.best(params, images)
  thrice = jnp.repeat(tokens[:, None], 3, axis=1)
  logits = policy.score(params, images, thrice).outputs[:, 0]
  np.testing.assert_array_equal(tokens, np.argmax(logits, axis=-1))


def test_samples_beside_each_other_are_tiled_images(drawn):
  policy, params, images, sampled = drawn
  tiled = jnp.repeat(images, 3, axis=0)
  alone = draw(policy, params, tiled, samples=1)
  shape = sampled.actions.shape
  np.testing.assert_array_equal(alone.actions.reshape(shape), sampled.actions)
  np.testing.assert_allclose(alone.log_prob.reshape(shape), sampled.log_prob, atol=1e-5)
  one_by_one = policy.score(params, tiled, sampled.actions.reshape(-1, 1, LENGTH))
  together = policy.score(params, images, sampled.actions)
  for of in (lambda scored: scored.log_prob, policy.entropy, lambda scored: scored.outputs):
    got, want = of(one_by_one), of(together)
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-5)


def test_an_image_does_not_see_the_others(drawn):
  policy, params, images, sampled = drawn
  others = images.at[1:].set(random_images(2, seed=9))
  again = draw(policy, params, others)
  np.testing.assert_array_equal(again.actions[0], sampled.actions[0])
  assert (again.actions[1:] != sampled.actions[1:]).any()
  together, changed = (policy.best(params, x) for x in (images, others))
  np.testing.assert_array_equal(together[0], changed[0])


def test_entropy_is_its_definition(drawn):
  policy, params, images, sampled = drawn
  scored = policy.score(params, images, sampled.actions)
  logits = np.asarray(scored.outputs, np.float64)
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  np.testing.assert_allclose(policy.entropy(scored), -(p * np.log(p)).sum(-1), atol=1e-5)
  taken = np.take_along_axis(p, np.asarray(sampled.actions)[..., None], -1)[..., 0]
  np.testing.assert_allclose(scored.log_prob, np.log(taken), atol=1e-5)


@pytest.mark.parametrize("ending", [None, Ending(token=0, stride=2)])
def test_samples_follow_the_distribution_of_the_model(ending):
  length, vocab, num = 3, 3, 20_000
  policy = make(length, vocab, ending)
  params, images = random_params(policy, seed=3, scale=0.2), random_images(2)
  every = np.array(list(itertools.product(range(vocab), repeat=length)))
  ended = np.asarray(ar.alive(jnp.asarray(every), ending)) == 0
  every = np.unique(np.where(ended, 0, every), axis=0)
  grouped = jnp.broadcast_to(every, (2, *every.shape)).astype(jnp.int32)
  log_prob = jax.jit(policy.score)(params, images, grouped).log_prob
  probability = np.exp(np.sum(log_prob, axis=-1))
  np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-5)
  assert np.abs(probability[0] - probability[1]).max() > 0.02, "the image must matter"
  actions = np.asarray(draw(policy, params, images, num).actions)
  for drawn, expected in zip(actions, probability * num, strict=True):
    counts = np.array([(drawn == sequence).all(axis=1).sum() for sequence in every])
    assert counts.sum() == num, "a sequence that the model cannot say"
    assert expected.min() > 5
    # Chi-square, by the normal approximation of Wilson and Hilferty: beyond 4 is one in 30,000.
    freedom = len(every) - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    spread = 2 / (9 * freedom)
    assert ((statistic / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5 < 4


def test_alive_by_hand():
  tokens = jnp.array([
    [5, 0, 1, 3, 0, 2, 0, 1],  # the 0 at 1 is not where a pair begins, those at 4 and 6 are
    [0, 1, 1, 1, 1, 1, 1, 1],
    [1, 0, 1, 0, 1, 0, 1, 0],
  ])  # fmt: skip
  want = [[1, 1, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0], [1] * 8]
  np.testing.assert_array_equal(ar.alive(tokens, Ending(0, 2)), want)
  np.testing.assert_array_equal(ar.alive(tokens, None), np.ones((3, 8)))
  want_3 = [[1] * 4 + [0] * 4, [1] * 8, [1, 1, 1, 1, 1, 1, 1, 1]]
  np.testing.assert_array_equal(ar.alive(tokens, Ending(3, 3)), want_3)


def test_after_its_end_a_sequence_is_zero():
  policy = make(18, ending=BOX_ENDING)
  params, images = with_logit(random_params(policy), 0, 1.0), random_images(3)
  sampled = draw(policy, params, images, samples=6)
  scored = jax.jit(policy.score)(params, images, sampled.actions)
  mask = np.asarray(scored.mask)
  lengths = mask.sum(axis=-1)
  assert set(np.unique(lengths)) == {1, 7, 13, 18}, "ends at the start of a box only, or never"
  assert (np.diff(mask) <= 0).all()
  entropy = policy.entropy(scored) * scored.mask
  for value in (sampled.actions, sampled.log_prob, scored.log_prob, entropy):
    assert (np.asarray(value)[mask == 0] == 0).all()
  assert (np.asarray(sampled.log_prob)[mask == 1] < 0).all()
  np.testing.assert_allclose(sampled.log_prob, scored.log_prob, atol=1e-5)


def test_what_follows_the_end_changes_nothing():
  policy = make(18, ending=BOX_ENDING)
  params, images = random_params(policy), random_images(2)
  rng = np.random.default_rng(0)
  actions = rng.integers(1, VOCAB, (2, 2, 18))
  actions[:, :, 6] = 0
  garbage = actions.copy()
  garbage[:, :, 7:] = rng.integers(0, VOCAB, (2, 2, 11))

  def total(params, actions):
    scored = policy.score(params, images, jnp.asarray(actions, jnp.int32))
    return jnp.sum(scored.log_prob), scored

  value_and_grad = jax.jit(jax.value_and_grad(total, has_aux=True))
  (_, one), grads = value_and_grad(params, actions)
  (_, other), grads_2 = value_and_grad(params, garbage)
  for name in ("log_prob", "mask"):
    np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
  entropies = [policy.entropy(scored) * scored.mask for scored in (one, other)]
  np.testing.assert_array_equal(*entropies)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, grads_2)


def test_decoding_stops_when_all_have_ended(monkeypatch):
  policy = make(18, ending=BOX_ENDING, cache_block=10)
  params, images = random_params(policy), random_images(2)
  never, at_once = with_logit(params, 0, -50.0), with_logit(params, 0, 50.0)
  one_step, calls = heads.categorical.log_prob, []

  def counted(logits, tokens):
    jax.debug.callback(lambda: calls.append(1))
    return one_step(logits, tokens)

  monkeypatch.setattr(heads, "categorical", heads.categorical._replace(log_prob=counted))
  sample = jax.jit(policy.sample, static_argnums=3)
  for at_end, steps in ((at_once, 1), (never, 18)):
    calls.clear()
    actions = np.asarray(sample(at_end, images, jax.random.key(0), 2).actions)
    jax.effects_barrier()
    assert len(calls) == steps
    assert (actions == 0).all() if steps == 1 else (actions[..., ::6] > 0).all()


@pytest.mark.parametrize("block", [5, LENGTH - 1])
def test_cache_blocks_change_nothing(drawn, block):
  _, params, images, sampled = drawn
  again = draw(make(cache_block=block, depth=2), params, images)
  np.testing.assert_array_equal(again.actions, sampled.actions)
  np.testing.assert_allclose(again.log_prob, sampled.log_prob, atol=1e-5)


def test_dropout_only_with_a_key():
  policy, plain = make(dropout=0.5, drop_path=0.5, depth=2), make(depth=2)
  params, images = random_params(plain), random_images(2)
  sampled, want = (draw(p, params, images) for p in (policy, plain))
  np.testing.assert_array_equal(sampled.actions, want.actions)
  log_prob = jax.jit(lambda key: policy.score(params, images, want.actions, key).log_prob)
  without = log_prob(None)
  np.testing.assert_allclose(without, want.log_prob, atol=1e-5)
  one, other = log_prob(jax.random.key(0)), log_prob(jax.random.key(1))
  np.testing.assert_array_equal(one, log_prob(jax.random.key(0)))
  for a, b in ((one, other), (one, without)):
    assert np.abs(a - b).max() > 0.1


@pytest.mark.slow
def test_remat_changes_no_value_and_no_gradient():
  images, actions = random_images(2), jnp.ones((2, 2, LENGTH), jnp.int32)
  params, results = random_params(make()), []
  for remat in (False, True):
    policy = make(remat=remat, dropout=0.3)

    def loss(params, key, policy=policy):
      return jnp.mean(policy.score(params, images, actions, key).log_prob)

    results.append(jax.jit(jax.value_and_grad(loss))(params, jax.random.key(0)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *results)


@pytest.mark.slow
def test_bfloat16_samples_what_it_updates():
  policy = make(24, vocab=60, ending=BOX_ENDING, dtype="bfloat16")
  params, images = random_params(policy, scale=0.1), random_images(3)
  sampled = draw(policy, params, images, samples=4)
  scored = jax.jit(policy.score)(params, images, sampled.actions)
  assert scored.outputs.dtype == sampled.log_prob.dtype == jnp.float32
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  assert np.std(sampled.log_prob) > 0.1
  assert np.abs(sampled.log_prob - scored.log_prob).max() < 2e-2


def test_largest_is_argmax():
  values = np.random.default_rng(0).integers(0, 5, (4, 3, 17)).astype(np.float32)
  np.testing.assert_array_equal(heads.largest(jnp.asarray(values)), np.argmax(values, axis=-1))
  row = jnp.array([[-jnp.inf, -jnp.inf], [jnp.nan, jnp.nan]])
  np.testing.assert_array_equal(heads.largest(row), [0, 1])


@pytest.mark.parametrize("block", [LENGTH, 5])
def test_samples_are_those_of_the_plain_sampler(block):
  policy = make(depth=2, cache_block=block)
  model = encoder_decoder.build(model_config(depth=2), VOCAB, LENGTH)
  params, images = random_params(policy), random_images(3)
  plain = jax.jit(lambda key: plain_sample(model, params, images, key, 4, LENGTH))
  for seed in range(3):
    ours, want = draw(policy, params, images, 4, seed), plain(jax.random.key(seed))
    np.testing.assert_array_equal(ours.actions, want.actions)
    np.testing.assert_allclose(ours.log_prob, want.log_prob, atol=1e-5)
