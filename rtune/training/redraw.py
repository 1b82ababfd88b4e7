"""Images whose samples all score alike draw again (`reward.resample`).

Where siblings are compared such an image teaches nothing. DAPO (2503.14476, dynamic sampling) draws
for other prompts until a batch has none of them. Here the same images draw again, so that a step
sees its own batch and nothing else, and a run can be resumed at any step. The expected gradient of
an image keeps its direction: samples that are alike add nothing to it. It only grows, by one over
the probability that samples differ, as far as the rounds suffice.

Shapes are static: a round draws for a whole batch, which holds the alike images over and over. Of
the draws for an image the first one counts whose samples differ.

Dimension key:
  B: batch of images
  S: samples for each image
  T: decisions of an answer
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool

from rtune.devices import sharding
from rtune.policies.policy import Sampled
from rtune.training.scoring import Scores
from rtune.training.update import Batch

Drawn = tuple[Sampled, Scores]


def alike(scores: Scores) -> Bool[Array, " b"]:
  """Images whose valid samples all have one reward, or the same credit where there is any."""
  earned_BST = scores.reward[..., None] if scores.credit is None else scores.credit
  valid_BS1 = scores.valid[..., None]
  lowest_BT = jnp.min(jnp.where(valid_BS1, earned_BST, jnp.inf), axis=1)
  highest_BT = jnp.max(jnp.where(valid_BS1, earned_BST, -jnp.inf), axis=1)
  return jnp.all(lowest_BT >= highest_BT, axis=-1)


def same_parts(slices: Sequence[Scores]) -> list[Scores]:
  """Scores with the same parts; in the first step a slice may not know yet which there are."""
  if len({jax.tree.structure(scores) for scores in slices}) == 1:
    return list(slices)  # nothing is made here, in the loop, but in that first step
  names = dict.fromkeys(name for scores in slices for name in scores.parts)
  credit = next((scores.credit for scores in slices if scores.credit is not None), None)

  def filled(scores: Scores) -> Scores:
    none = jnp.full_like(scores.reward, jnp.nan)
    parts = {name: scores.parts.get(name, none) for name in names}
    if credit is None or scores.credit is not None:
      return scores._replace(parts=parts)
    return scores._replace(parts=parts, credit=jnp.full_like(credit, jnp.nan))

  return [filled(scores) for scores in slices]


def redrawing(mesh: Mesh, rounds: int, draw: Callable[[Any, Batch, int], Drawn]):
  """(state, batch, drawn) -> drawn, with what has come of at most so many rounds.

  Args:
    draw: (state, batch, number of the round, from 1 on) -> samples and their scores.
  """
  across = sharding.batch_sharding(mesh)
  again = jax.jit(_again, out_shardings=(across, sharding.replicated(mesh)))
  taken = jax.jit(_taken, out_shardings=across)
  some = jax.jit(lambda scores: jnp.any(alike(scores)), out_shardings=sharding.replicated(mesh))

  def redraw(state: Any, batch: Batch, drawn: Drawn) -> Drawn:
    for number in range(1, rounds + 1):
      if not jax.device_get(some(drawn[1])):
        break
      filled, rows = again(drawn[1], batch)
      sampled, scores = draw(state, filled, number)
      before, scores = same_parts([drawn[1], scores])
      drawn = taken(rows, (drawn[0], before), (sampled, scores))
    return drawn

  return redraw


def _again(scores: Scores, batch: Batch) -> tuple[Batch, Array]:
  """A batch of the alike images, over and over, and which image stands in each of its rows."""
  same_B = alike(scores)
  order_B = jnp.argsort(~same_B, stable=True)
  rows_B = order_B[jnp.arange(len(same_B)) % jnp.maximum(jnp.sum(same_B), 1)]
  return jax.tree.map(lambda x: x[rows_B], batch), rows_B


def _taken(rows_B: Array, old: Drawn, new: Drawn) -> Drawn:
  """`old`, but for alike images the first draw of `new` whose samples differ."""
  images_B1 = jnp.arange(len(rows_B))[:, None]
  differs_BB = (images_B1 == rows_B[None]) & ~alike(new[1])[None]
  takes_B = jnp.any(differs_BB, axis=1) & alike(old[1])
  first_B = jnp.argmax(differs_BB, axis=1)

  def pick(before, after):
    takes = takes_B.reshape(-1, *[1] * (before.ndim - 1))
    return jnp.where(takes, after[first_B], before)

  return jax.tree.map(pick, old, new)
