"""A split -> greedy predictions -> the task's metric. Every image counts exactly once.

Dimension key:
  B: batch of images
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rtune import config, sharding
from rtune.data import loader
from rtune.data.source import Source
from rtune.policies.policy import Policy
from rtune.progress import Progress
from rtune.rewards.scoring import Scoring
from rtune.tasks.task import Task

Predict = Callable[..., Any]


def make_predict(task: Task, policy: Policy, frozen: Any) -> Predict:
  """(params, batch) -> (actions [B, ...], predictions [B, ...]) by greedy decoding, jitted."""

  @jax.jit
  def predict(params, batch):
    actions = policy.mode(params, batch["image"])[:, None]
    scored = policy.log_prob(params, batch["image"], actions)
    predictions = task.decode(frozen, actions, batch, scored)
    return actions, jax.tree.map(lambda x: x[:, 0], predictions)

  return predict


def evaluate(
  params: Any,
  predict: Predict,
  task: Task,
  source: Source,
  data: config.Data,
  mesh: Mesh,
  scoring: Scoring | None = None,
  num_examples: int = 0,
) -> dict[str, float]:
  """The task's metric of a split, and the mean reward where a reward is given.

  Args:
    num_examples: how many of the split, from the first on; 0 = all.
  """
  metric = task.metric()
  state, rewards = metric.init(), []
  total = min(len(source), num_examples or len(source))
  with Progress(total, "evaluate", "image", images_per_unit=1) as progress:
    for batch, inputs in _batches(task, source, data, mesh, num_examples):
      actions, predictions = predict(params, inputs)
      predictions = jax.tree.map(sharding.local_rows, predictions)
      for row, truth in enumerate(batch.truths):
        one = jax.tree.map(lambda x, row=row: x[row], predictions)
        features = {name: value[row] for name, value in batch.features.items()}
        state = metric.update(state, task.record(one, features, truth), truth)
      if scoring is not None:
        scores = sharding.local_rows(scoring.score(actions, inputs).reward)[batch.mask, 0]
        rewards.extend(scores.tolist())
      progress.update(min(total, int(batch.indices[-1]) + 1))
  values = metric.compute(sharding.gather_objects(state))
  rewards = sharding.gather_objects(rewards)
  return {**values, "reward": float(np.mean(rewards))} if scoring is not None else values


def _batches(
  task: Task, source: Source, data: config.Data, mesh: Mesh, num_examples: int
) -> Iterator[tuple[loader.EvalBatch, dict[str, jax.Array]]]:
  """Batches of the split, on the host and on the devices."""
  batches = loader.eval_batches(
    source,
    task.example,
    batch_size=data.eval_batch_size,
    num_threads=data.threads,
    prefetch=data.prefetch,
    num_examples=num_examples,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  try:
    for batch in batches:
      yield batch, sharding.put_batch(mesh, batch.features)
  finally:
    batches.close()
