"""A replay: the last decisions of many answers, on the device and in the checkpoint.

Dimension key:
  N: decisions that are added, or drawn
  M: decisions that it holds at most
  F: features of a state
  A: numbers that are chosen
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rtune.policies.policy import Control


class Decisions(NamedTuple):
  """What was decided, and what came of it.

  Attributes:
    state: what was seen.
    choice: what was chosen.
    reward: what the decision earned.
    weight: 0 for what was no decision, or has no valid reward; else 1.
    following: what the same place saw in the next round; None where nobody looks ahead.
    goes_on: whether it decided there; None likewise.
  """

  state: Float[Array, "n f"]
  choice: Float[Array, "n a"]
  reward: Float[Array, " n"]
  weight: Float[Array, " n"]
  following: Float[Array, "n f"] | None = None
  goes_on: Float[Array, " n"] | None = None


class Replay(NamedTuple):
  """A ring.

  Attributes:
    decisions: M of them.
    place: where the next one goes.
    filled: how many there are.
  """

  decisions: Decisions
  place: Int[Array, ""]
  filled: Int[Array, ""]


def empty(control: Control, capacity: int, looks_ahead: bool) -> Replay:
  """A replay without decisions."""
  state, choice = jnp.zeros((capacity, control.features)), jnp.zeros((capacity, control.numbers))
  number = jnp.zeros(capacity)
  found = Decisions(state, choice, number, jnp.zeros(capacity))
  if looks_ahead:
    found = found._replace(following=jnp.zeros_like(state), goes_on=jnp.zeros(capacity))
  return Replay(found, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def add(replay: Replay, decisions: Decisions) -> Replay:
  """Writes over the oldest; of more than fit the last ones stay."""
  capacity, number = len(replay.decisions.reward), len(decisions.reward)
  kept = min(capacity, number)
  # Those before would be written over: places must be different for all that are written at once.
  first = replay.place + (number - kept)
  places = (first + jnp.arange(kept)) % capacity
  written = jax.tree.map(
    lambda old, new: old.at[places].set(new[number - kept :]), replay.decisions, decisions
  )
  filled = jnp.minimum(replay.filled + number, capacity)
  return Replay(written, (replay.place + number) % capacity, filled)


def draw(replay: Replay, key: Array, number: int) -> Decisions:
  """Any of those that are there, all as likely, with replacement."""
  places = jax.random.randint(key, (number,), 0, jnp.maximum(replay.filled, 1))
  return jax.tree.map(lambda x: x[places], replay.decisions)


def decisions_of(
  control: Control,
  states: Float[Array, "b s t f"],
  mask: Float[Array, "b s t"],
  choices: Float[Array, "b s t a"],
  rewards: Float[Array, "b s t"],
  looks_ahead: bool,
) -> Decisions:
  """The decisions of a batch of answers; a reward that is not finite does not count."""
  valid = jnp.isfinite(rewards)
  weight = mask * valid.astype(mask.dtype)
  found = Decisions(states, choices, jnp.where(valid, rewards, 0.0), weight)
  if looks_ahead:
    found = found._replace(following=_later(control, states), goes_on=_later(control, mask))
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), found)


def _later(control: Control, values: Float[Array, "b s t *v"]) -> Float[Array, "b s t *v"]:
  """The same place in the next round; 0 after the last."""
  places = values.shape[2] // control.rounds
  none = jnp.zeros_like(values[:, :, :places])
  return jnp.concatenate([values[:, :, places:], none], axis=2)
