"""`rtune.load(workdir)`: a trained model that predicts and samples, in a notebook or a command.

Dimension key:
  B: batch of images
  S: samples for each image
"""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from rtune.config import trust as trusting
from rtune.data.source import Example, Source
from rtune.devices import sharding
from rtune.errors import UsageError
from rtune.inference import blindness, programs
from rtune.inference.images import AnyImage, Images, pixels_of
from rtune.store import reading
from rtune.store.remote import copies
from rtune.tasks.task import Features, Record, view
from rtune.training import restore
from rtune.training.evaluation import Judged, Judging, batches, judge, predictor, scoring_of
from rtune.training.phases import phase_of
from rtune.training.predicting import Predict
from rtune.training.restore import Restored


class Answer(NamedTuple):
  """What a model says of one image.

  Attributes:
    prediction: of the task's own type (rtune/predictions), as rewards see it: a box is in fractions
      of the model's input there.
    record: the same in the image's own pixels, as results files and drawings have it: "boxes",
      "labels" and "scores" of detection, for instance.
    reward: of the run's reward; None where it has none, or needs a truth that was not given; NaN
      where it has no opinion.
    log_prob: of a sample's whole answer, in nats; None of the best answer.
    actions: of a sample, as the policy drew them; None of the best answer.
  """

  prediction: Any
  record: Record
  reward: float | None = None
  log_prob: float | None = None
  actions: Any = None


class Model:
  """The weights that one phase of a run has left; made by `load`.

  Attributes:
    run: what the workdir says: config, task, policy and more.
    phase: whose weights these are.
    params: nested dicts of arrays.
  """

  def __init__(self, run: Restored, phase: str, params: Any, trust: bool):
    self.run, self.phase, self.params, self._trust = run, phase, params, trust
    self._compiled: dict[Any, Callable[..., Any]] = {}

  def predict(
    self, images: Sequence[AnyImage], *, beam: int = 1, batch_size: int | None = None
  ) -> list[Answer]:
    """The best answer for each image.

    Args:
      images: files, images of Pillow, or arrays [H, W, 3] of uint8, each of any size.
      beam: size of beam search, where the policy knows it; 1 is greedy.
      batch_size: images at once; None: as the run evaluates, and not more than there are.

    Raises:
      UsageError: one image instead of several, or a beam or batch size that cannot be.
      DataError: an image that cannot be read.
    """
    if isinstance(images, str | os.PathLike | np.ndarray) or not isinstance(images, Sequence):
      raise UsageError("predict takes a list of images; put one image in a list: [image].")
    source = Images(self.run.task, images)
    if not len(source):
      return []
    with self._reading():
      judged = self.judged(source, beam=beam, batch_size=batch_size)
      return [Answer(one.prediction, one.record) for one in judged]

  def judged(
    self, source: Source, *, beam: int = 1, batch_size: int | None = None
  ) -> Iterator[Judged]:
    """The best answers for the examples of a source, in its order; without their rewards.

    For commands, within `rtune.store.reading.reading`: a task may look up code as it reads.
    """
    run = self._sized(len(source), batch_size)
    # The reward may be gone with its data; nobody asks for it here.
    judging = Judging(run.task, run.frozen, run.config.data, run.mesh, (), scoring=None)
    yield from judge(judging, self.params, self._predictor(beam), source)

  def sample(
    self, image: AnyImage, n: int, *, truth: Mapping[str, Any] | None = None, seed: int = 0
  ) -> list[Answer]:
    """Draws `n` answers for one image, as tuning does, with their rewards where they can be known.

    Args:
      truth: what is annotated, as a source has it (rtune/data/source.py), such as "boxes" and
        "labels" in pixels of the image; an example of a source may be given as it is.
      seed: the same seed draws the same answers.

    Raises:
      UsageError: `n` is below 1.
      DataError: the image cannot be read.
    """
    if n < 1:
      raise UsageError(f"n is {n}; at least one answer must be drawn.")
    run, raw = self.run, self._example(image, truth)
    with self._reading():
      batch, inputs = self._batch(raw)
      draw = self._program(("sample", n), lambda: programs.drawing(run.task, run.policy, n))
      key = jax.random.key(seed)
      actions, predictions, log_prob = draw(run.frozen, self.params, inputs, key)
      rewards = self._rewards(actions, predictions, inputs, truth is not None)
    rows, log_prob_S = sharding.local_rows, sharding.local_rows(log_prob)[0].tolist()
    features = {name: value[0] for name, value in batch.features.items()}
    local = jax.tree.map(rows, (predictions, actions))
    ones = [jax.tree.map(lambda x, at=at: x[0, at], local) for at in range(n)]
    return [
      Answer(one, self._record(one, features, raw), reward, log, drawn)
      for (one, drawn), reward, log in zip(ones, rewards or [None] * n, log_prob_S, strict=True)
    ]

  def log_prob(
    self, image: AnyImage, samples: Sequence[Answer], params: Any = None
  ) -> Float[Array, " s"]:
    """How likely samples of an image are, in nats for each; `jax.grad` goes through it.

    Args:
      samples: of `sample`, of this model or another one of the same policy, for this image.
      params: in place of the model's own, such as these after an update.

    Raises:
      UsageError: answers that were not sampled.
    """
    if not samples or any(one.actions is None for one in samples):
      raise UsageError("log_prob takes samples, as model.sample draws them; give at least one.")
    with self._reading():
      _, inputs = self._batch(self._example(image))
    actions_1S = jax.tree.map(lambda *x: np.stack(x)[None], *[one.actions for one in samples])
    run = self.run
    score = self._program("log_prob", lambda: programs.scoring(run.task, run.policy))
    return score(self.params if params is None else params, inputs, actions_1S)

  def draw(self, image: AnyImage, answer: Answer | Mapping[str, Any]) -> np.ndarray:
    """The picture [H, W, 3] of an answer on its image, or of what is annotated.

    Args:
      answer: of this model, or an example of a source, whose annotation is drawn.
    """
    seen = view(self.run.task)
    record = answer.record if isinstance(answer, Answer) else seen.annotated(dict(answer))
    return seen.draw(pixels_of(image), record)

  def _example(self, image: AnyImage, truth: Mapping[str, Any] | None = None) -> Example:
    """As a source has it: the image, and what is annotated."""
    raw = view(self.run.task).unlabeled(pixels_of(image), 0)
    return raw | {name: value for name, value in (truth or {}).items() if name != "image"}

  def _batch(self, raw: Example) -> tuple[Any, Features]:
    """The batch of one example, on the host and on the devices."""
    ((batch, inputs),) = batches(
      self._sized(1, None).config.data, self.run.task, self.run.mesh, [raw], 1
    )
    return batch, inputs

  def _record(self, prediction: Any, features: Features, raw: Example) -> Record:
    return view(self.run.task).record(prediction, features, raw)

  def _rewards(
    self, actions: Any, predictions: Any, batch: Features, knows_truth: bool
  ) -> list[float] | None:
    """Of the samples of the first image; NaN where one has no opinion."""
    config, task = self.run.config, self.run.task
    make = functools.partial(scoring_of, config, task, self.run.mesh)
    scoring = self._program("scoring", make)
    if scoring is None or not (knows_truth or blindness.is_blind(config.reward, task, predictions)):
      return None
    scores = scoring.score(self.run.frozen, actions, batch)
    reward_S, valid_S = (sharding.local_rows(x)[0].tolist() for x in (scores.reward, scores.valid))
    return [x if valid else math.nan for x, valid in zip(reward_S, valid_S, strict=True)]

  def _sized(self, count: int, batch_size: int | None) -> Restored:
    """The run with a batch size; few images need no batch of hundreds."""
    devices, most = self.run.mesh.size, self.run.config.data.eval_batch_size
    alone = view(self.run.task).own_size
    usual = 1 if alone else min(most, -(-max(count, 1) // devices) * devices)
    return restore.with_batch_size(self.run, batch_size or usual)

  def _predictor(self, beam: int) -> Predict:
    return self._program(("predict", beam), lambda: predictor(self.run, beam)(phase_of(self.phase)))

  def _program(self, key: Any, make: Callable[[], Any]) -> Any:
    """What was compiled for an earlier call is taken again."""
    if key not in self._compiled:
      self._compiled[key] = make()
    return self._compiled[key]

  def _reading(self) -> contextlib.AbstractContextManager[None]:
    return reading.reading([self.run.folder], self._trust, tell=False)


def load(
  workdir: str | os.PathLike[str],
  phase: str = "",
  *,
  weights: str = "last",
  trust: bool = False,
  passes: int | None = None,
) -> Model:
  """The model that a run has trained.

  Args:
    workdir: folder of the run, or "hf://user/name" of one on a hub (rtune/store/hub.py), or a URL
      such as "gs://bucket/run".
    phase: whose weights; "": of the last phase that is finished.
    weights: "last" or "best" of that phase.
    trust: run the code of others that the workdir names. Without it, what asks for such code is
      left out or refused.
    passes: of a recursive restorer; None: as in training.

  Raises:
    UsageError: the folder is no workdir, or has no such weights.
    DataError: the hub cannot be reached.
    StorageError: the weights were altered, or the URL cannot be read.
  """
  workdir = copies.local_copy(workdir, "workdir")
  if weights not in ("last", "best"):
    raise UsageError(f"weights is {weights!r}; it must be 'last' or 'best'.")
  with reading.reading([workdir], trust, tell=not trusting.is_limited()):
    run = restore.restore(workdir, weights)
    if passes is not None:
      run = restore.with_policy(run, passes=passes)
    phase, params = restore.load_params(run, phase)
  if not phase_of(phase).learns.answers:
    raise UsageError(
      f"{run.folder}: the phase {phase} has trained a code model, which predicts nothing by "
      "itself; give --phase mle or reward, once one is finished."
    )
  return Model(run, phase, params, trust)
