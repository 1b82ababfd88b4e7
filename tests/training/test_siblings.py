"""Samples that are copies of others: what counts as one, and that training says so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.display import console
from rtune.policies.policy import Sampled
from rtune.training import siblings
from rtune.training.watch import Watch

SHAPE = (2, 4, 8, 8, 1)  # two images of four samples


def drawn(seed=0):
  rng = np.random.default_rng(seed)
  actions = {"image": rng.random(SHAPE, np.float32), "gains": rng.random((2, 4, 3), np.float32)}
  return actions, rng.random((2, 4, 5), np.float32)


def share(actions, log_prob):
  sampled = jax.tree.map(jnp.asarray, Sampled(actions, log_prob))
  return float(siblings.copied_share(sampled))


def test_pictures_that_differ_are_no_copies():
  assert share(*drawn()) == 0


@pytest.mark.parametrize("pair", [(0, 3), (2, 1)])
def test_a_picture_of_another_sample_is_a_copy(pair):
  actions, log_prob = drawn()
  first, second = pair
  actions["image"][1, first] = actions["image"][1, second]
  assert share(actions, log_prob) == 0.5  # of one image of two
  # Where nothing but pictures is known of what was drawn, its log-probability tells.
  assert share({"image": actions["image"]}, log_prob) == 0.5


def test_the_same_draw_twice_is_no_copy():
  actions, log_prob = drawn()
  for array in (*actions.values(), log_prob):
    array[0, 1] = array[0, 2]
  assert share(actions, log_prob) == 0
  assert float(siblings.unique_share(jax.tree.map(jnp.asarray, actions))) == 7 / 8


def test_tokens_and_few_numbers_are_not_looked_at():
  tokens = jnp.zeros((2, 4, 100), jnp.int32)
  assert siblings.copied_share(Sampled(tokens, jnp.zeros((2, 4, 100)))) is None
  steps = {"stops": jnp.zeros((2, 4, 5)), "moves": tokens}
  assert siblings.copied_share(Sampled(steps, jnp.zeros((2, 4, 100)))) is None


def test_training_warns_of_copies_once(capsys, monkeypatch):
  monkeypatch.setattr(console, "_warned", set())
  watch = Watch(limit=2, examples=lambda step: "")
  for step, copied in enumerate((0.0, 0.25, 0.5), 1):
    watch.look(step, {"copied": jnp.asarray(copied), "skipped_in_a_row": jnp.asarray(0)})
  watch.settle()
  said = capsys.readouterr()
  lines = [line for line in (said.out + said.err).splitlines() if "warning" in line.lower()]
  assert len(lines) == 1
  assert "step 2: of 25 % of the images two samples are the same picture" in lines[0]
