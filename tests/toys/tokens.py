"""A toy whose answers are tokens: the name of a picture's light, by a table of what follows what.

Dimension key:
  B: batch of images
  S: samples for each image
  L: tokens of an answer
  V: vocabulary
"""

import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rtune.metrics.metric import Metric
from rtune.policies import heads
from rtune.policies.policy import Policy, Sampled, Scored
from rtune.policies.space import Ending, Tokens
from rtune.policies.tokens import alive

WORDS = ((1, 0, 0), (2, 1, 0), (1, 2, 2), (0, 0, 0))  # the last one is an annotator's slip


def policy(space: Tokens) -> Policy:
  """Logits of a token depend on the token before it, and on how bright the picture is."""
  length, vocab, ending = space.length, space.vocab_size, space.ending

  def init(key, light_B):
    del light_B
    return {"next": jax.random.normal(key, (1 + vocab, vocab)), "light": jnp.zeros(vocab)}

  def logits(params, light_B, before_BSX):
    """`before` is 0 at the beginning, else 1 + the token before."""
    seen_BV = light_B[:, None] * params["light"][None]
    return params["next"][before_BSX] + jnp.expand_dims(seen_BV, [*range(1, before_BSX.ndim)])

  def decode(params, light_B, choose, num_samples):
    before_BS = jnp.zeros((len(light_B), num_samples), jnp.int32)
    over_BS, tokens, log_probs = before_BS > 0, [], []
    for place in range(length):
      logits_BSV = logits(params, light_B, before_BS)
      token_BS = jnp.where(over_BS, 0, choose(place, logits_BSV))
      log_probs.append(jnp.where(over_BS, 0, heads.categorical.log_prob(logits_BSV, token_BS)))
      tokens.append(token_BS)
      if ending and place % ending.stride == 0:
        over_BS |= token_BS == ending.token
      before_BS = 1 + token_BS
    return Sampled(jnp.stack(tokens, -1), jnp.stack(log_probs, -1))

  def sample(params, light_B, key, num_samples):
    def choose(place, logits_BSV):
      return heads.categorical.sample(jax.random.fold_in(key, place), logits_BSV)

    return decode(params, light_B, choose, num_samples)

  def score(params, light_B, actions_BSL, key=None):
    before_BSL = jnp.pad(1 + actions_BSL[..., :-1], ((0, 0), (0, 0), (1, 0)))
    logits_BSLV = logits(params, light_B, before_BSL)
    mask_BSL = alive(actions_BSL, ending)
    log_prob_BSL = heads.categorical.log_prob(logits_BSLV, actions_BSL) * mask_BSL
    return Scored(log_prob_BSL, mask_BSL, logits_BSLV)

  def best(params, light_B, effort=1):
    """Greedy; with more effort the likeliest of all answers."""
    if effort == 1:
      greedy = decode(params, light_B, lambda _, logits: heads.categorical.mode(logits), 1)
      return greedy.actions[:, 0]
    # Of answers that differ behind their end, and are as likely, the one with zeros comes first.
    every_SL = jnp.array([*itertools.product(range(vocab), repeat=length)])
    every_BSL = jnp.broadcast_to(every_SL, (len(light_B), *every_SL.shape))
    return every_SL[jnp.argmax(score(params, light_B, every_BSL).log_prob.sum(-1), axis=1)]

  return Policy(
    init,
    sample,
    score,
    best,
    entropy=lambda scored: heads.categorical.entropy(scored.outputs),
    divergence=lambda scored, reference: heads.categorical.kl(scored.outputs, reference.outputs),
    describe=lambda scored: {"length": scored.mask.sum(-1)},
    search="all",
  )


class Word(NamedTuple):
  tokens: jax.Array


def reward(prediction: Word, truth: Word):
  """A reward: the share of equal tokens, and as much again where all are."""
  same = prediction.tokens == truth.tokens
  return {"reward": same.mean() + same.all().astype(jnp.float32), "whole": same.all()}


def metric() -> Metric:
  """How often the whole word is right."""

  def update(state, record, truth):
    return [*state, bool(np.array_equal(record["tokens"], truth["word"]))]

  return Metric(list, update, lambda state: {"accuracy": float(np.mean(state))})


class Data:
  """Pictures of one gray each, and the name of it."""

  def __init__(self, size: int = 32):
    self._size = size

  def __len__(self):
    return self._size

  def __getitem__(self, index):
    image = np.full((4, 5, 3), 60 * (index % 3), np.uint8)
    word = np.array(WORDS[index % 3 if index % 7 else 3], np.int32)
    return {"image": image, "image_id": index, "word": word}


@dataclasses.dataclass(frozen=True)
class Task:
  """Six functions."""

  vocab_size: int = 3

  def example(self, raw, rng):
    word = raw.get("word", np.zeros(3, np.int32))
    return {"light": np.float32(raw["image"].mean() / 255), "word": word}

  def inputs(self, batch):
    return batch["light"]

  def space(self):
    return Tokens(3, self.vocab_size, Ending(token=0))

  def targets(self, frozen, batch, key):
    return batch["word"]

  def decode(self, frozen, actions, batch, scored):
    return Word(actions)

  def truth(self, batch):
    return Word(batch["word"])
