"""What a task must say. Tasks are frozen dataclasses, so that compiled functions may key on them.

A newcomer writes these functions in one file; everything else is shared.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rtune import config
from rtune.data.source import Example, Source
from rtune.metrics.metric import Metric
from rtune.policies.policy import Policy, Scored

Features = Mapping[str, Any]  # arrays of one image, or of a batch with a leading dimension


@runtime_checkable
class Task(Protocol):
  """Turns a vision problem into answers that a policy can sample, and back.

  A task whose pictures do not show what the model is given may have `given(image)` beside: an image
  [H, W, 3] as the model gets it, for the report.
  """

  headline: tuple[str, ...]  # names of the metric's numbers that the final table shows

  def bind(self, source: Source) -> "Task":
    """This task with what it must know of the training data, such as class names."""
    ...

  def knows(self, names: Collection[str]) -> Mapping[str, Any]:
    """What a reward with parameters of these names gets of them, such as the words of the data.

    Raises:
      UsageError: a reward that asks for these and no more cannot read this task's predictions.
    """
    ...

  def save(self, folder: pathlib.Path) -> None:
    """Writes into a workdir what `bind` has learned and no config can hold."""
    ...

  def load(self, folder: pathlib.Path) -> "Task":
    """This task with what `save` has written; UsageError where that is of another task."""
    ...

  def example(self, raw: Example, rng: np.random.Generator | None, judged: bool = True) -> Features:
    """One image on the host, with static shapes; `rng` None means evaluation.

    `judged` false means that nobody will ask for its `truth`, which may take time to prepare.
    """
    ...

  def policy(self, model: config.Model) -> Policy:
    """What answers are drawn from."""
    ...

  def targets(self, frozen: Any, batch: Features, key: Any) -> Any:
    """The answers that imitation imitates: actions [B, L]. jit."""
    ...

  def decode(self, frozen: Any, actions: Any, batch: Features, scored: Scored | None) -> Any:
    """Actions [B, S, L] to predictions with the same leading dimensions. jit.

    `scored`, where given, is the policy's own opinion of these actions.
    """
    ...

  def credit(self) -> Any:
    """Weight of each position in the REINFORCE term: [L], or 1.0 for all."""
    ...

  def truth(self, batch: Features) -> Any:
    """What a reward may see of each image. jit."""
    ...

  def record(self, prediction: Any, features: Features, raw: Example) -> Mapping[str, Any]:
    """A prediction of one image as the metric and the results file want it. Host."""
    ...

  def metric(self, fast: bool = False) -> Metric:
    """What is reported; `fast` asks for a quicker scorer of equal digits where there is one."""
    ...

  def unlabeled(self, image: np.ndarray, image_id: int) -> Example:
    """An example as `example` wants it, of an image [H, W, 3] that nobody has annotated."""
    ...

  def annotated(self, raw: Example) -> Mapping[str, Any]:
    """The truth of an example as a record, to be drawn beside predictions."""
    ...

  def text(self, record: Mapping[str, Any]) -> tuple[str, ...]:
    """A record in words, one line each, for the report; () where its picture says it all."""
    ...

  def source(self, annotations: str, images: str) -> Source:
    """A user's annotation file with its folder of images ("" = as the file says)."""
    ...

  def draw(self, image: np.ndarray, record: Mapping[str, Any]) -> np.ndarray:
    """The picture [H, W, 3] of a record on its image."""
    ...


def settings(task: Task) -> dict[str, Any]:
  """The fields of a task that its config holds: all but those with `learned` in their metadata."""
  fields = dataclasses.fields(task)
  return {f.name: getattr(task, f.name) for f in fields if not f.metadata.get("learned")}
