"""What a task must say. Tasks are frozen dataclasses, so that compiled functions may key on them.

A newcomer writes six functions in one file; nobody inherits. How people see answers (`View`) and
what a task learns from data (`Knowledge`) are records with defaults: a task that needs neither
writes nothing about them.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from rtune.data.augment import GRAY
from rtune.data.source import Example, Source
from rtune.policies.policy import Actions, Inputs, Scored
from rtune.policies.space import Space

Features = Mapping[str, Any]  # arrays of one image, or of a batch with a leading dimension
Record = Mapping[str, Any]  # of one image, with "image_id": what metrics, files and drawings read


@runtime_checkable
class Task(Protocol):
  """Turns a vision problem into answers that a policy can sample, and back."""

  def example(self, raw: Example, rng: np.random.Generator | None) -> Features:
    """One image on the host, with static shapes; `rng` None means evaluation."""
    ...

  def inputs(self, batch: Features) -> Inputs:
    """What the policy sees of a batch: an image, or an image and more. jit."""
    ...

  def space(self) -> Space:
    """What an answer is made of."""
    ...

  def targets(self, frozen: Any, batch: Features, key: Any) -> Actions:
    """The answers that imitation imitates: actions [B, ...]. jit.

    `frozen` is what another network of this task has learned, such as its code model; else {}.
    """
    ...

  def decode(self, frozen: Any, actions: Actions, batch: Features, scored: Scored | None) -> Any:
    """Actions [B, S, ...] to predictions with the same leading dimensions. jit.

    `scored`, where given, is the policy's own opinion of these actions.
    """
    ...

  def truth(self, batch: Features) -> Any:
    """What a reward may see of each image. jit."""
    ...


def _record(prediction: Any, features: Features, raw: Example) -> Record:
  del features
  fields = {name: np.asarray(value) for name, value in prediction._asdict().items()}
  return {"image_id": raw.get("image_id"), **fields}


def _draw(image: np.ndarray, record: Record) -> np.ndarray:
  del record
  return image


def _no_text(record: Record) -> tuple[str, ...]:
  del record
  return ()


def _annotated(raw: Example) -> Record:
  return {name: value for name, value in raw.items() if name != "image"}


def _unlabeled(image: np.ndarray, image_id: int) -> Example:
  return {"image": image, "image_id": image_id}


class Served(NamedTuple):
  """How a program without rtune feeds an exported model and reads its answers.

  Attributes:
    resize: "fit" (aspect kept, at the upper left of the canvas), "stretch", or "none" (as it is, at
      the upper left, mirrored on to the other borders, edge pixels again).
    size: height and width of the canvas in pixels.
    read: what the outputs mean.
    names: what outputs count from 0, such as {"classes": ...}.
    fill: value of the canvas where there is no image.
    gray: what the model is given in place of colors: "lightness" (of CIE Lab), or the weights of R,
      G and B; (): it is given colors.
  """

  resize: str
  size: tuple[int, int]
  read: str
  names: Mapping[str, Sequence[str]] = MappingProxyType({})
  fill: int = GRAY
  gray: str | tuple[float, ...] = ()


class View(NamedTuple):
  """How people see a task's answers. All of it runs on the host, for one image.

  Attributes:
    record: (prediction, features, raw example) -> what the metric and the results file want.
    draw: (image [H, W, 3], record) -> picture [H, W, 3] of the record on its image.
    text: record -> its words, one line each, for the report; () where its picture says it all.
    headline: the numbers of the metrics that matter most, for tables, tiles and curves; (): all.
      By the first of them the best weights of a phase are kept.
    lower: numbers of which less is better.
    watched: numbers that must not fall while the reward rises; (): the first of `headline`.
    annotated: raw example -> its truth as a record, to be drawn beside predictions.
    unlabeled: (image, image id) -> an example as `Task.example` wants it, of an image that nobody
      has annotated.
    given: image -> the image as the model gets it, where that is not what the picture shows.
    source: (annotation file, folder of images or "", more) -> a user's own data as a source; it
      gets those arguments of the run's data that it has a parameter for.
    metrics: names of the metrics that a task is judged by unless the config names others.
    own_size: whether images are evaluated each in its own size: those of a user come one by one.
    served: how an exported model is fed and read.
    content: prediction -> arrays, equal where two answers show the same, however sure they are;
      None: answers are compared by their whole numbers.
  """

  record: Callable[[Any, Features, Example], Record] = _record
  draw: Callable[[np.ndarray, Record], np.ndarray] = _draw
  text: Callable[[Record], tuple[str, ...]] = _no_text
  headline: tuple[str, ...] = ()
  lower: tuple[str, ...] = ()
  watched: tuple[str, ...] = ()
  annotated: Callable[[Example], Record] = _annotated
  unlabeled: Callable[[np.ndarray, int], Example] = _unlabeled
  given: Callable[[np.ndarray], np.ndarray] | None = None
  source: Callable[..., Source] | None = None
  metrics: tuple[str, ...] = ()
  own_size: bool = False
  served: Served | None = None
  content: Callable[[Any], tuple[np.ndarray, ...]] | None = None


def _knows_nothing(names: Collection[str]) -> Mapping[str, Any]:
  del names
  return {}


def _keeps_nothing(folder: pathlib.Path) -> None:
  del folder


class Knowledge(NamedTuple):
  """What a task learns from its training data.

  Attributes:
    bind: source -> the task with what it must know of it, such as class names; None: it needs none.
    knows: names of parameters -> those of them that the task has a value for: so a reward or a
      metric gets the words, or the classes, of the data. UsageError where it asks for these and no
      more cannot read this task's predictions.
    save: writes into a workdir what `bind` has learned and no config can hold.
    load: workdir -> the task with what `save` has written; UsageError where that is of another
      task. None: there is nothing to load.
  """

  bind: Callable[[Source], Task] | None = None
  knows: Callable[[Collection[str]], Mapping[str, Any]] = _knows_nothing
  save: Callable[[pathlib.Path], None] = _keeps_nothing
  load: Callable[[pathlib.Path], Task] | None = None


def view(task: Task) -> View:
  """How people see this task's answers."""
  return getattr(task, "view", View())


def knowledge(task: Task) -> Knowledge:
  """What this task learns from data."""
  return getattr(task, "knowledge", Knowledge())


def bind(task: Task, source: Source) -> Task:
  """The task with what it must know of its training data."""
  learn = knowledge(task).bind
  return learn(source) if learn else task


def load(task: Task, folder: pathlib.Path) -> Task:
  """The task with what it has once learned, from a workdir."""
  read = knowledge(task).load
  return read(folder) if read else task


def settings(task: Task) -> dict[str, Any]:
  """The fields of a task that its config holds: all but those with `learned` in their metadata."""
  fields = (f for f in dataclasses.fields(task) if not f.metadata.get("learned"))
  values = {f.name: getattr(task, f.name) for f in fields}
  return {k: v for k, v in values.items() if not isinstance(v, (View, Knowledge))}
