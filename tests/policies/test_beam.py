"""Beam search finds what trying everything finds, and never does worse than greedy decoding."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune import config as configs
from rtune.devices.compiling import jit_once
from rtune.errors import UsageError
from rtune.models import encoder_decoder
from rtune.policies.beam import beam_search
from rtune.policies.policy import Policy
from rtune.policies.space import Ending
from rtune.policies.tokens import autoregressive
from rtune.tasks.detection import Detection
from rtune.training.predicting import best_answers

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIZE = 16


def network(vocab, length):
  side = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32}
  config = configs.Model(
    encoder=configs.Encoder(patch_size=8, **side),
    decoder=configs.Decoder(**side),
    dtype="float32",
  )
  return encoder_decoder.build(config, vocab, length)


def make(vocab, length, ending):
  """A policy, its parameters (random ones) and two images."""
  policy = autoregressive(network(vocab, length), length, ending)
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (2, SIZE, SIZE, 3), np.uint8))
  params = jit_once(policy.init)(jax.random.key(0), images)
  noisy = jax.tree.map(lambda x: x + rng.normal(size=x.shape).astype(np.float32) * 0.6, params)
  return policy, noisy, images


def likelihood(policy, params, images, actions):
  """Log-probabilities [B, S] of actions [B, S, L]."""
  return jax.jit(policy.score)(params, images, actions).log_prob.sum(-1)


def search(policy, params, images, beam):
  return jax.jit(policy.best, static_argnums=2)(params, images, beam)


def everything(vocab, length, ending):
  """All answers, with token 0 after their end."""
  found = set()
  for tokens in itertools.product(range(vocab), repeat=length):
    tokens = list(tokens)
    if ending is not None:
      ends = [i for i in range(0, length, ending.stride) if tokens[i] == ending.token]
      tokens[ends[0] + 1 if ends else length :] = [0] * (length - (ends[0] + 1 if ends else length))
    found.add(tuple(tokens))
  return np.array(sorted(found), np.int32)


@pytest.mark.parametrize("ending", [Ending(), Ending(token=1, stride=2), None])
def test_a_beam_without_bounds_finds_the_likeliest_answer(ending):
  policy, params, images = make(4, 4, ending)
  answers = everything(4, 4, ending)
  both = jnp.broadcast_to(answers, (2, *answers.shape))
  scores = np.asarray(likelihood(policy, params, images, both))
  np.testing.assert_allclose(np.exp(scores).sum(1), 1, atol=1e-4)
  found = np.asarray(search(policy, params, images, 64))
  np.testing.assert_array_equal(found, answers[scores.argmax(1)])


def test_a_beam_of_one_is_greedy():
  policy, params, images = make(9, 8, Ending())
  greedy = jax.jit(policy.best)(params, images)
  found = jax.jit(lambda *given: beam_search(network(9, 8), *given, 1, 8, 0, 1))(params, images)
  np.testing.assert_array_equal(found, greedy)
  np.testing.assert_array_equal(search(policy, params, images, 1), greedy)


def test_a_wider_beam_finds_likelier_answers():
  policy, params, images = make(12, 10, Ending())
  scores = []
  for beam in (1, 4, 40):
    found = search(policy, params, images, beam)
    scores.append(np.asarray(likelihood(policy, params, images, found[:, None]))[:, 0])
  # Not a law for every image; of these parameters it is so, and strictly.
  assert np.all(np.diff(scores, axis=0) >= -1e-5)
  assert np.mean(scores[2]) > np.mean(scores[0]) + 0.01


def test_after_the_end_there_are_zeros():
  policy, params, images = make(4, 12, Ending(token=2))
  found = np.asarray(search(policy, params, images, 3))
  ended = np.cumsum(found == 2, axis=1) - (found == 2)
  assert ended.any()
  assert (found[ended > 0] == 0).all()


def test_a_policy_without_beam_search_says_so():
  task, policy = Detection(), Policy(*[print] * 6)
  best_answers(task, policy, 1)
  with pytest.raises(UsageError, match="beam of 3"):
    best_answers(task, policy, 3)
