"""A split -> predictions, greedy or of beam search -> the task's metric. Every image counts once.

Dimension key:
  B: batch of images
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rtune import config as configs
from rtune.config.names import build_part
from rtune.data import loader
from rtune.data.source import Example, Source
from rtune.devices import processes, sharding
from rtune.display import console
from rtune.display.progress import Progress
from rtune.errors import DataError, UsageError
from rtune.metrics.metric import Metric
from rtune.policies.policy import Policy
from rtune.tasks.task import Task
from rtune.training import restore
from rtune.training.codes import make_reconstruct
from rtune.training.restore import Restored
from rtune.training.scoring import Scoring, make_scoring

Predict = Callable[..., Any]


class Judged(NamedTuple):
  """What came out for one image.

  Attributes:
    index: its place in the source.
    record: the prediction as the metric wants it.
    truth: the example without its image.
    reward: NaN where it could not be computed or was not asked for.
  """

  index: int
  record: Mapping[str, Any]
  truth: Example
  reward: float


def make_predict(task: Task, policy: Policy, frozen: Any, beam: int = 1) -> Predict:
  """(params, batch) -> (actions [B, ...], predictions [B, ...]), jitted.

  By greedy decoding, or beam search with a `beam` of more than one. Raises UsageError where a
  policy has no beam search.
  """
  if beam > 1 and policy.search is None:
    raise UsageError(f"A beam of {beam} is asked for, but this task's policy has no beam search.")

  @functools.partial(jax.jit, compiler_options=policy.compiler_options)
  def predict(frozen, params, batch):
    images = batch["image"]
    best = policy.mode(params, images) if beam <= 1 else policy.search(params, images, beam)
    actions = best[:, None]
    scored = policy.log_prob(params, batch["image"], actions)
    predictions = task.decode(frozen, actions, batch, scored)
    return actions, jax.tree.map(lambda x: x[:, 0], predictions)

  return functools.partial(predict, frozen)


def evaluate(
  params: Any,
  predict: Predict,
  task: Task,
  source: Source,
  data: configs.Data,
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
  for one in judge(params, predict, task, source, data, mesh, scoring, num_examples):
    state = metric.update(state, one.record, one.truth)
    rewards.append(one.reward)
  values = metric.compute(processes.gather_objects(state))
  rewards = processes.gather_objects(rewards)
  return {**values, "reward": mean_reward(rewards)} if scoring is not None else values


def mean_reward(rewards: list[float]) -> float:
  """The mean over the images whose reward could be computed; NaN if there is none."""
  valid = [reward for reward in rewards if math.isfinite(reward)]
  return float(np.mean(valid)) if valid else math.nan


def judge(
  params: Any,
  predict: Predict,
  task: Task,
  source: Source,
  data: configs.Data,
  mesh: Mesh,
  scoring: Scoring | None = None,
  num_examples: int = 0,
) -> Iterator[Judged]:
  """Predictions of a split one by one, in its order; of several processes each yields its own."""
  total = min(len(source), num_examples or len(source))
  params = sharding.gather(params, mesh)
  with Progress(total, "evaluate", "image", images_per_unit=1) as progress:
    for batch, inputs in _batches(task, source, data, mesh, num_examples):
      actions, predictions = predict(params, inputs)
      predictions = jax.tree.map(sharding.local_rows, predictions)
      rewards = [math.nan] * len(batch.truths)
      if scoring is not None:
        scores = sharding.local_rows(scoring.score(actions, inputs).reward)
        rewards = scores[batch.mask, 0].tolist()
      for row, truth in enumerate(batch.truths):
        one = jax.tree.map(lambda x, row=row: x[row], predictions)
        features = {name: value[row] for name, value in batch.features.items()}
        record = task.record(one, features, truth)
        yield Judged(int(batch.indices[row]), record, truth, rewards[row])
      progress.update(min(total, int(batch.indices[-1]) + 1))


def _batches(
  task: Task, source: Source, data: configs.Data, mesh: Mesh, num_examples: int
) -> Iterator[tuple[loader.EvalBatch, dict[str, jax.Array]]]:
  """Batches of the split, on the host and on the devices."""
  processes = sorted({device.process_index for device in mesh.devices.flat})
  batches = loader.eval_batches(
    source,
    task.example,
    batch_size=data.eval_batch_size,
    num_threads=data.threads,
    prefetch=data.prefetch,
    num_examples=num_examples,
    process_index=processes.index(jax.process_index()),
    process_count=len(processes),
  )
  try:
    for batch in batches:
      yield batch, sharding.put_batch(mesh, batch.features)
  finally:
    batches.close()


class Evaluation(NamedTuple):
  """All that an evaluation of one phase says.

  Attributes:
    values: the metric's numbers, and the mean reward where the run has one.
    classes: the metric's number of each class; {} where it has none.
    judged: each image's outcome, without its truth.
    state: of the metric, for `Metric.results`.
  """

  phase: str
  values: dict[str, float]
  classes: dict[str, float]
  judged: list[Judged]
  state: list


def evaluate_phase(
  run: Restored, phase: str, predict: Predict, source: Source, metric: Metric, num_examples: int
) -> Evaluation:
  """Evaluates the weights that a phase has left behind ("" = the last), in this process alone.

  Args:
    predict: of `make_predict`; one for all phases compiles once. The phase codes has its own.
    num_examples: how many of `source`, from the first on; 0 = all.
  """
  phase, params = restore.load_params(run, phase)
  predict = make_reconstruct(run.task) if phase == "codes" else predict
  reward, data = run.config.reward, run.config.data
  scoring = make_scoring(reward, run.task, run.frozen, run.mesh) if reward.fn else None
  total = min(len(source), num_examples or len(source))
  console.stage(f"{phase}: evaluating on {total} images")
  judged, state = [], metric.init()
  for one in judge(params, predict, run.task, source, data, run.mesh, scoring, num_examples):
    state = metric.update(state, one.record, one.truth)
    judged.append(one._replace(truth={}))  # maps of thousands of images would fill the memory
  values = metric.compute(state)
  if scoring is not None:
    values["reward"] = mean_reward([one.reward for one in judged])
  return Evaluation(phase, values, metric.details(state) if metric.details else {}, judged, state)


def open_source(run: Restored, annotations: str = "", images: str = "") -> Source:
  """The run's validation data, or a user's file with the same classes.

  Raises:
    DataError: what is wrong with the data, or that its classes are others.
  """
  if annotations:
    source = run.task.source(annotations, images)
  else:
    source = build_part(run.config.data.val, "data.val")
  for text in getattr(source, "warnings", ()):
    console.warn(text)
  ours, theirs = (getattr(part, "category_ids", None) for part in (run.task, source))
  if ours != theirs:
    raise DataError(
      f"{annotations or 'data.val'} has other categories than the model was trained on: ids "
      f"{theirs}, not {ours}. Give the file the same 'categories' section."
    )
  return source
