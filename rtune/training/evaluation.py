"""A split -> predictions -> the metrics of the config. Every image counts once.

Dimension key:
  B: batch of images
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rtune import config as configs
from rtune.config import trust
from rtune.data import loader
from rtune.data.source import Example, Source
from rtune.data.unreadable import Unreadable, left_out
from rtune.devices import processes, sharding
from rtune.display import console
from rtune.display.progress import Progress
from rtune.metrics.metric import Confusion, Metric
from rtune.tasks.task import Task, view
from rtune.training import restore
from rtune.training.phases import Phase, phase_of
from rtune.training.predicting import Describe, Predict, truth_described
from rtune.training.restore import Restored
from rtune.training.scoring import Scoring, make_scoring


class Judged(NamedTuple):
  """What came out for one image.

  Attributes:
    index: its place in the source.
    record: the prediction as metrics want it.
    truth: the example without its image.
    reward: NaN where it could not be computed or was not asked for.
    numbers: what the policy says of the truth, such as the bits it takes.
    prediction: of the task's type.
    answer: a digest of what the answer shows; None where it has no whole numbers, as pictures.
  """

  index: int
  record: Mapping[str, Any]
  truth: Example
  reward: float
  numbers: Mapping[str, float] = {}
  prediction: Any = None
  answer: bytes | None = None


class Judging(NamedTuple):
  """What predictions are made and judged with.

  Attributes:
    frozen: what the task's functions take under this name.
    scoring: of the run's reward; None where it has none.
    describe: says what the policy finds of the truth; None for nothing.
    unreadable: takes images that cannot be read; None: they are errors.
  """

  task: Task
  frozen: Any
  data: configs.Data
  mesh: Mesh
  metrics: Sequence[Metric]
  scoring: Scoring | None
  describe: Describe | None = None
  unreadable: Unreadable | None = None


def evaluate(
  judging: Judging,
  params: Any,
  predict: Predict,
  source: Source,
  num_examples: int = 0,
  each: Callable[[Judged], None] = lambda one: None,
) -> dict[str, float]:
  """The numbers of all metrics, and the mean reward where there is one.

  Args:
    predict: (frozen, params, batch) -> (actions, predictions).
    num_examples: how many of the source, from the first on; 0 = all.
    each: called with what came out for each image; what it raises ends the evaluation.
  """
  states, rewards, numbers = [metric.init() for metric in judging.metrics], [], []
  for one in judge(judging, params, predict, source, num_examples):
    states = _updated(judging.metrics, states, one)
    rewards.append(one.reward)
    numbers.append(one.numbers)
    each(one)
  states = [processes.gather_objects(state) for state in states]
  values = compute(judging.metrics, states) | _means(processes.gather_objects(numbers))
  rewards = processes.gather_objects(rewards)
  return {**values, "reward": mean_reward(rewards)} if judging.scoring else values


def _means(numbers: Sequence[Mapping[str, float]]) -> dict[str, float]:
  names = numbers[0] if numbers else ()
  return {name: float(np.mean([one[name] for one in numbers])) for name in names}


def _updated(metrics: Sequence[Metric], states: Sequence[list], one: Judged) -> list[list]:
  both = zip(metrics, states, strict=True)
  return [metric.update(state, one.record, one.truth) for metric, state in both]


def compute(metrics: Sequence[Metric], states: Sequence[list]) -> dict[str, float]:
  """The numbers of all metrics; where two have one of the same name the first keeps it."""
  values: dict[str, float] = {}
  for place, (metric, state) in enumerate(zip(metrics, states, strict=True)):
    for name, value in metric.compute(state).items():
      values[name if name not in values else f"{name}_{place + 1}"] = value
  return values


def mean_reward(rewards: list[float]) -> float:
  """The mean over the images whose reward could be computed; NaN if there is none."""
  valid = [reward for reward in rewards if math.isfinite(reward)]
  return float(np.mean(valid)) if valid else math.nan


def judge(
  judging: Judging, params: Any, predict: Predict, source: Source, num_examples: int = 0
) -> Iterator[Judged]:
  """Predictions of a split one by one, in its order; of several processes each yields its own."""
  total = min(len(source), num_examples or len(source))
  params, frozen = sharding.gather(params, judging.mesh), judging.frozen
  record, content = view(judging.task).record, view(judging.task).content
  with Progress(total, "evaluate", "image", images_per_unit=1) as progress:
    given = judging.data, judging.task, judging.mesh
    for batch, inputs in batches(*given, source, num_examples, judging.unreadable):
      actions, predictions = predict(frozen, params, inputs)
      predictions = jax.tree.map(sharding.local_rows, predictions)
      rewards = [math.nan] * len(batch.truths)
      if judging.scoring is not None:
        scores = sharding.local_rows(judging.scoring.score(frozen, actions, inputs).reward)
        rewards = scores[batch.mask, 0].tolist()
      whole = [] if content else [x for x in jax.tree.leaves(actions) if x.dtype.kind in "iu"]
      whole = [sharding.local_rows(x) for x in whole]
      described = judging.describe(frozen, params, inputs) if judging.describe else {}
      described = {name: sharding.local_rows(values) for name, values in described.items()}
      for row, truth in enumerate(batch.truths):
        one = jax.tree.map(lambda x, row=row: x[row], predictions)
        features = {name: value[row] for name, value in batch.features.items()}
        numbers = {name: float(values[row]) for name, values in described.items()}
        shown = record(one, features, truth)
        says = content(one) if content else [x[row] for x in whole]
        answer = _digest(says) if len(says) else None
        yield Judged(int(batch.indices[row]), shown, truth, rewards[row], numbers, one, answer)
      progress.update(min(total, int(batch.indices[-1]) + 1))


def _digest(parts: Sequence[np.ndarray]) -> bytes:
  return hashlib.blake2b(b"".join(x.tobytes() for x in parts), digest_size=16).digest()


def batches(
  data: configs.Data,
  task: Task,
  mesh: Mesh,
  source: Source,
  num_examples: int,
  unreadable: Unreadable | None = None,
) -> Iterator[tuple[loader.EvalBatch, dict[str, jax.Array]]]:
  """Batches of the split, on the host and on the devices."""
  sharing = sorted({device.process_index for device in mesh.devices.flat})
  rows, alone = sharding.eval_batch(data.eval_batch_size, mesh)
  on_host = loader.eval_batches(
    source,
    task.example,
    batch_size=rows,
    num_threads=data.threads,
    prefetch=data.prefetch,
    num_examples=num_examples,
    process_index=sharing.index(jax.process_index()),
    process_count=len(sharing),
    alone=alone,
    unreadable=unreadable,
    timeout_s=data.timeout_s,
  )
  try:
    for batch in on_host:
      yield batch, sharding.put_batch(mesh, batch.features)
  finally:
    on_host.close()


class Evaluation(NamedTuple):
  """All that an evaluation of one phase says.

  Attributes:
    values: the numbers of all metrics, and the mean reward where the run has one.
    classes: the metrics' number of each class; {} where they have none.
    judged: each image's outcome, without its truth.
    states: of the metrics, for `Metric.results`.
    confusion: which classes were taken for which; None where no metric says it.
    metrics: that were computed.
  """

  phase: str
  values: dict[str, float]
  classes: dict[str, float]
  judged: list[Judged]
  states: list[list]
  confusion: Confusion | None = None
  metrics: Sequence[Metric] = ()


def judging_of(run: Restored, metrics: Sequence[Metric]) -> Judging:
  """What predictions of a workdir are judged with."""
  scoring = scoring_of(run.config, run.task, run.mesh)
  describe = truth_described(run.task, run.policy)
  return Judging(run.task, run.frozen, run.config.data, run.mesh, metrics, scoring, describe)


def scoring_of(config: configs.Config, task: Task, mesh: Mesh) -> Scoring | None:
  """The reward that a config names, if it needs nothing but an answer and may be run here."""
  named = [part.fn for part in (config.reward, *config.reward.fns) if part.fn]
  usable = bool(named) and all(trust.allowed(name) for name in named)
  scoring = make_scoring(config.reward, task, mesh) if usable else None
  return None if scoring is None or scoring.running else scoring


def predictor(run: Restored, effort: int = 1) -> Callable[[Phase], Predict]:
  """Phase -> how its weights predict; those that do it alike share what is compiled."""
  make = functools.cache(lambda predict: predict(run.task, run.policy, effort))
  return lambda phase: make(phase.predict)


def evaluate_phase(
  run: Restored,
  phase: str,
  predict: Callable[[Phase], Predict],
  source: Source,
  metrics: Sequence[Metric],
  num_examples: int,
) -> Evaluation:
  """Evaluates the weights that a phase has left behind ("" = the last), in this process alone.

  Args:
    predict: of `predictor`.
    num_examples: how many of `source`, from the first on; 0 = all.
  """
  phase, params = restore.load_params(run, phase)
  judging = judging_of(run, metrics)
  judging = judging._replace(unreadable=left_out(run.config.data, "the evaluated data", source))
  total = min(len(source), num_examples or len(source))
  console.stage(f"{phase}: evaluating on {total} images")
  judged, states = [], [metric.init() for metric in metrics]
  learns = phase_of(phase).learns
  judging = judging._replace(
    frozen=learns.frozen(judging.frozen, params),
    describe=judging.describe if learns.answers else None,
  )
  for one in judge(judging, params, predict(phase_of(phase)), source, num_examples):
    states = _updated(metrics, states, one)
    # Maps of thousands of images would fill the memory.
    judged.append(one._replace(truth={}, prediction=None))
  values = compute(metrics, states) | _means([one.numbers for one in judged])
  if judging.scoring is not None:
    values["reward"] = mean_reward([one.reward for one in judged])
  by_class: dict[str, float] = {}
  both = list(zip(metrics, states, strict=True))
  for metric, state in both:
    by_class |= metric.details(state) if metric.details else {}
  confusion = next((metric.confusion(state) for metric, state in both if metric.confusion), None)
  return Evaluation(phase, values, by_class, judged, states, confusion, metrics)
