"""The dictionary of a code model against loops over its words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.models import dictionary

WORDS, WIDTH, MOMENTUM, MIN_COUNT = 6, 3, 0.9, 0.1


@pytest.fixture(autouse=True)
def quick(quick_compiles):
  """Many small programs, none of which runs for long."""


def some_state(seed=0):
  rng = np.random.default_rng(seed)
  return {
    "dictionary": jnp.asarray(rng.normal(size=(WORDS, WIDTH)), jnp.float32),
    "counts": jnp.asarray(rng.uniform(0.5, 3, WORDS), jnp.float32),
  }


def some_vectors(seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=(4, 5, WIDTH)), jnp.float32)


def learn(state, codes, vectors, key=0):
  step = jax.jit(dictionary.learn, static_argnums=(3, 4))
  return step(state, codes, vectors, MOMENTUM, MIN_COUNT, jax.random.key(key))


def test_nearest_is_the_nearest():
  state, vectors = some_state(), some_vectors()
  words = np.asarray(dictionary.codewords(state))
  np.testing.assert_allclose(np.linalg.norm(words, axis=-1), 1.0, rtol=1e-6)
  means = np.asarray(state["dictionary"] / state["counts"][:, None])
  np.testing.assert_allclose(words, means / np.linalg.norm(means, axis=1)[:, None], rtol=1e-5)
  codes = np.asarray(dictionary.nearest(vectors, jnp.asarray(words)))
  for place in np.ndindex(4, 5):
    distances = [np.sum((np.asarray(vectors[place]) - word) ** 2) for word in words]
    assert codes[place] == np.argmin(distances)


def test_sums_and_counts_follow_the_data():
  state = some_state()
  expected = {name: np.array(value) for name, value in state.items()}
  for turn in range(3):
    vectors = some_vectors(turn)
    codes = dictionary.nearest(vectors, dictionary.codewords(state))
    expected = {name: MOMENTUM * value for name, value in expected.items()}
    for place in np.ndindex(4, 5):
      expected["counts"][codes[place]] += 1
      expected["dictionary"][codes[place]] += np.asarray(vectors[place])
    state, said = learn(state, codes, vectors)
    assert said["revived"] == 0
    for name, value in expected.items():
      np.testing.assert_allclose(state[name], value, rtol=1e-5, atol=1e-6)


def test_usage_and_perplexity_are_of_the_batch():
  codes = jnp.asarray([[0, 0, 1, 1, 5]] * 4, jnp.int32)
  said = learn(some_state(), codes, some_vectors())[1]
  share = np.array([0.4, 0.4, 0.2])
  np.testing.assert_allclose(said["usage"], 3 / 6, rtol=1e-6)
  np.testing.assert_allclose(said["perplexity"], np.exp(-np.sum(share * np.log(share))), rtol=1e-5)


def test_a_dead_word_takes_half_of_the_most_used_one():
  state = some_state()
  state["counts"] = jnp.asarray([2.0, 1.0, 0.01, 9.0, 0.5, 0.02])
  codes = jnp.asarray([[0, 1, 3, 3, 4]] * 4, jnp.int32)
  vectors = some_vectors()
  after, said = learn(state, codes, vectors)
  assert said["revived"] == 2
  sums = MOMENTUM * np.array(state["dictionary"])
  np.add.at(sums, np.asarray(codes), np.asarray(vectors))
  # Word 3 counts 0.9 * 9 + 8 = 16.1; word 2 is the least and takes half of it, then word 5 half of
  # the larger of what is left, which is the first of the two halves.
  np.testing.assert_allclose(after["counts"], [5.8, 4.9, 4.025, 8.05, 4.45, 4.025], rtol=1e-5)
  np.testing.assert_allclose(after["dictionary"][3], sums[3] / 2, rtol=1e-5)
  words = np.asarray(dictionary.codewords(after))
  for dead in (2, 5):
    assert not np.array_equal(words[dead], words[3])
    np.testing.assert_allclose(words[dead], words[3], atol=3e-3)
  other = learn(state, codes, vectors, key=1)[0]
  assert not np.array_equal(other["dictionary"], after["dictionary"])


def test_revival_ends_where_there_is_not_enough_for_all():
  state = {"dictionary": jnp.ones((WORDS, WIDTH)), "counts": jnp.full(WORDS, 0.01)}
  codes = jnp.zeros((1, 1), jnp.int32)
  vectors = jnp.ones((1, 1, WIDTH))
  after, _ = jax.jit(dictionary.learn, static_argnums=(3, 4))(
    state, codes, vectors, MOMENTUM, 0.4, jax.random.key(0)
  )
  counts = sorted(np.asarray(after["counts"]).tolist())
  np.testing.assert_allclose(counts, [0.009] * 4 + [1.009 / 2] * 2, rtol=1e-5)


def test_vectors_that_are_not_finite_end_too():
  state, vectors = some_state(), some_vectors() * jnp.nan
  state["counts"] = state["counts"] * jnp.nan
  learn(state, jnp.zeros((4, 5), jnp.int32), vectors)
