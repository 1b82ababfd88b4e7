"""Many answers for each of a few images, and their rewards: what analyses are made from.

Dimension key:
  B: batch of images
  I: images
  S: samples for each image
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rtune.data import loader
from rtune.data.source import Source
from rtune.devices import sharding
from rtune.display.progress import Progress
from rtune.training import restore
from rtune.training.follow import best_prediction, running_of
from rtune.training.phases import phase_of
from rtune.training.restore import Restored
from rtune.training.scoring import make_scoring

_IMAGES_A_CALL = 8


class Pool(NamedTuple):
  """The answers of one phase's model, as numbers.

  Attributes:
    phase: whose weights.
    images: index of each image in the source.
    reward: NaN where it could not be computed.
    log_prob: of the whole answer, in nats.
    greedy: reward of the greedy answer.
  """

  phase: str
  images: Int[np.ndarray, " i"]
  reward: Float[np.ndarray, "i s"]
  log_prob: Float[np.ndarray, "i s"]
  greedy: Float[np.ndarray, " i"]


class _Sampler(NamedTuple):
  """Device programs.

  Attributes:
    draw: (params, image, key) -> (actions [B, S, ...], log-probability [B, S]).
    mode: (params, image) -> actions [B, 1, ...].
    reward: (actions [B, S, ...], inputs) -> float [B, S] on the host, NaN where there is none.
  """

  draw: Callable[..., tuple[Array, Array]]
  mode: Callable[..., Array]
  reward: Callable[..., np.ndarray]


def draw_pools(
  run: Restored, source: Source, num_images: int, num_samples: int, chunk: int, seed: int
) -> list[Pool]:
  """Draws from the policy of every finished phase; the same arguments give the same pools.

  Args:
    source: its first images are taken.
    chunk: samples of an image that are drawn at once; memory grows with it, not with the whole.
  """
  num_images, chunk = min(num_images, len(source)), min(chunk, num_samples)
  phases = [name for name in restore.finished(run) if phase_of(name).learns.answers]
  running = _statistic(run, phases[0], source, num_images)
  sampler, starts = _make_sampler(run, chunk, running), range(0, num_samples, chunk)
  pools, drawn = [], 0
  with Progress(len(phases) * num_images * num_samples, "draw", "sample") as progress:
    for phase in phases:
      _, params = restore.load_params(run, phase)
      rows = []
      for indices, inputs in _batches(run, source, num_images):
        key = jax.random.fold_in(jax.random.key(seed), int(indices[0]))
        chunks = []
        for start in starts:
          chunks.append(_draw_chunk(sampler, params, inputs, jax.random.fold_in(key, start)))
          drawn += len(indices) * min(chunk, num_samples - start)
          progress.update(drawn)
        # The last chunk is drawn whole, so that one shape is compiled, and cut here.
        both = (np.concatenate(x, axis=1)[:, :num_samples] for x in zip(*chunks, strict=True))
        greedy_B = sampler.reward(sampler.mode(params, inputs), inputs)[:, 0]
        rows.append([indices, *(x[: len(indices)] for x in (*both, greedy_B))])
      pools.append(Pool(phase, *(np.concatenate(x) for x in zip(*rows, strict=True))))
  return pools


def _draw_chunk(
  sampler: _Sampler, params: Any, inputs: dict[str, Any], key: Array
) -> tuple[np.ndarray, np.ndarray]:
  """Rewards and log-probabilities [B, S] of fresh answers."""
  actions, log_prob = sampler.draw(params, inputs, key)
  return sampler.reward(actions, inputs), sharding.local_rows(log_prob)


def _statistic(run: Restored, phase: str, source: Source, num_images: int) -> Any:
  """What the reward reads of predictions, from those of these images; the same for all phases.

  Training's own is that of its last steps, another in each phase: rewards could not be compared.
  """
  running = running_of(run.config.reward, run.task)
  if running is None:
    return None

  @jax.jit
  def follow(state, params, batch):
    inputs = run.task.inputs(batch)
    found = best_prediction(run.task, run.policy, params, inputs, run.frozen, batch)
    return running.update(state, found, run.task.truth(batch))

  _, params = restore.load_params(run, phase)
  state = running.init()
  for _, inputs in _batches(run, source, num_images):
    state = follow(state, params, inputs)
  return state


def _make_sampler(run: Restored, chunk: int, running: Any) -> _Sampler:
  policy, task = run.policy, run.task
  scoring = make_scoring(run.config.reward, task, run.mesh)
  decoding = functools.partial(jax.jit, compiler_options=policy.compiler_options)

  @decoding
  def draw(params, batch, key):
    sampled = policy.sample(params, task.inputs(batch), key, chunk)
    return sampled.actions, jnp.sum(sampled.log_prob, axis=-1)

  @decoding
  def mode(params, batch):
    return jax.tree.map(lambda x: x[:, None], policy.best(params, task.inputs(batch)))

  def reward(actions, inputs):
    scores = scoring.score(run.frozen, actions, inputs, running)
    reward, valid = sharding.local_rows(scores.reward), sharding.local_rows(scores.valid)
    return np.where(valid, reward, np.nan)

  return _Sampler(draw, mode, reward)


def _batches(
  run: Restored, source: Source, num_images: int
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
  """(indices of the images that count, features [B, ...] on the devices)."""
  size = run.config.data.eval_batch_size
  if size > 1:
    size = -(-min(_IMAGES_A_CALL, num_images) // run.mesh.size) * run.mesh.size
  rows, alone = sharding.eval_batch(size, run.mesh)
  batches = loader.eval_batches(
    source,
    run.task.example,
    batch_size=rows,
    alone=alone,
    num_threads=run.config.data.threads,
    prefetch=1,
    num_examples=num_images,
  )
  try:
    for batch in batches:
      yield batch.indices[batch.mask], sharding.put_batch(run.mesh, batch.features)
  finally:
    batches.close()
