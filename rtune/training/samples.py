"""Samples while training: every N steps what is drawn for a few fixed images, and what it is worth.

Parameters are only read, and what is drawn has a random key of its own, the same each time: so
training stays what it is, and what changes from table to table is the model.

Dimension key:
  B: batch of images
  S: answers for each image, the greedy one first
  T: decisions of an answer
"""

import dataclasses
import functools
import io
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from rtune.data.source import Example
from rtune.devices import processes, sharding
from rtune.disk import write_whole
from rtune.display.clock import Clock
from rtune.display.draw import side_by_side
from rtune.display.logs import MetricLog
from rtune.errors import DataError
from rtune.policies.policy import Policy
from rtune.store import sample_table
from rtune.tasks.task import Record, Task, view
from rtune.training.evaluation import batches
from rtune.training.losses import counted
from rtune.training.phases import Phase
from rtune.training.scoring import Scoring, make_scoring
from rtune.training.setup import Setup
from rtune.training.update import State

_IMAGES, _SAMPLES = 4, 4
_SEED = 2**24  # no phase has this one
_SIDE = 320  # of one picture in a row, in pixels


class Answer(NamedTuple):
  """One answer for one image; the numbers may be NaN."""

  record: Record
  log_prob: float
  reward: float
  parts: Mapping[str, float]


class Samples:
  """Makes the tables of one phase; all processes make the same calls.

  Args:
    offset: step of the log at which the phase begins.
    first: step of the phase after which it goes on.
  """

  def __init__(
    self,
    setup: Setup,
    folder: pathlib.Path,
    log: MetricLog,
    clock: Clock,
    phase: Phase,
    offset: int,
    first: int,
  ):
    self._setup, self._folder, self._log, self._clock = setup, folder, log, clock
    self._phase, self._offset = phase, offset
    # The code model of a phase that trains one draws nothing.
    self._every = setup.config.samples_every if phase.learns.answers else 0
    if jax.process_index() == 0:
      sample_table.drop_after(folder, offset + first)

  def look(self, done: int, state: State) -> None:
    """Draws and writes where it is time for it, after so many steps of the phase.

    Raises:
      StorageError: the disk refused it.
    """
    if not self._every or done % self._every:
      return
    with self._clock("samples"):
      answers = processes.gather_objects(list(self._answers(state)))
      if jax.process_index() == 0:
        self._write(self._offset + done, answers)

  @functools.cached_property
  def _examples(self) -> list[tuple[int, Example]]:
    """The images with their places, evenly spread over the validation data."""
    val, config = self._setup.val, self._setup.config
    places = np.linspace(0, len(val) - 1, min(_IMAGES, len(val))).astype(int).tolist()
    found = []
    for place in dict.fromkeys(places):
      try:
        found.append((place, val[place]))
      except DataError:
        if config.data.on_error != "skip":
          raise
    return found

  @functools.cached_property
  def _draw(self) -> Callable[..., Any]:
    return drawing(self._setup.task, self._setup.policy)

  @functools.cached_property
  def _scoring(self) -> Scoring | None:
    """The run's reward; None where it reads a statistic that this phase does not follow."""
    config = self._setup.config
    if not (config.reward.fn or config.reward.fns):
      return None
    scoring = make_scoring(config.reward, self._setup.task, self._setup.mesh)
    followed = getattr(getattr(config, self._phase.name), "running", None)
    return None if scoring.running and followed != config.reward.running else scoring

  def _answers(self, state: State) -> Iterator[tuple[int, list[Answer]]]:
    """(which of the examples, its answers); of several processes each yields its own."""
    setup, raws = self._setup, [raw for _, raw in self._examples]
    task, mesh, devices = setup.task, setup.mesh, setup.mesh.size
    size = 1 if view(task).own_size else -(-len(raws) // devices) * devices
    data = dataclasses.replace(setup.config.data, eval_batch_size=size, threads=1)
    frozen = self._phase.learns.frozen(setup.frozen, state.params)
    given = frozen, sharding.gather(state.params, mesh)
    key = jax.random.fold_in(jax.random.key(setup.config.seed), _SEED)
    for batch, inputs in batches(data, task, mesh, raws, len(raws)):
      actions, *drawn = self._draw(*given, inputs, key)
      predictions, log_prob_BS = jax.tree.map(sharding.local_rows, drawn)
      worth = None
      if self._scoring is not None:
        scores = self._scoring.score(frozen, actions, inputs, state.running)
        worth = jax.tree.map(sharding.local_rows, (scores.reward, scores.parts))
      for row, index in enumerate(batch.indices[: len(batch.truths)]):  # others are padding
        features = {name: value[row] for name, value in batch.features.items()}
        yield (
          int(index),
          [
            Answer(
              view(task).record(_at(predictions, row, s), features, raws[index]),
              float(log_prob_BS[row, s]),
              *_worth(worth, row, s),
            )
            for s in range(1 + _SAMPLES)
          ],
        )

  def _write(self, step: int, answers: list[tuple[int, list[Answer]]]) -> None:
    rows, seen = [], view(self._setup.task)
    for index, ones in sorted(answers, key=lambda one: one[0]):
      place, raw = self._examples[index]
      path = sample_table.picture_path(self._folder, step, place)
      write_whole(path, _png(self._picture(raw, ones)))
      shared = {"step": step, "phase": self._phase.name, "image": place}
      shared["image_id"] = _plain(raw.get("image_id", place))
      for s, one in enumerate(ones):
        row = {"answer": _name(s), "log_prob": _finite(one.log_prob)}
        row |= {"reward": _finite(one.reward)}
        row |= {"parts": {name: _finite(value) for name, value in one.parts.items()}}
        row |= {"text": list(seen.text(one.record)), "picture": f"{path.parent.name}/{path.name}"}
        rows.append({**shared, **row})
      self._log.picture(step, f"samples/{place}", path)
    sample_table.add(self._folder, rows)

  def _picture(self, raw: Example, answers: list[Answer]) -> np.ndarray:
    """What is given and what is true, then the answers, in a row."""
    seen, image = view(self._setup.task), raw["image"]
    shown = [("input", seen.given(image))] if seen.given else []
    shown.append(("truth", seen.draw(image, seen.annotated(raw))))
    for s, one in enumerate(answers):
      worth = f" {one.reward:.2f}," if math.isfinite(one.reward) else ""
      caption = f"{_name(s)}:{worth} log p {one.log_prob:.1f}"
      shown.append((caption, seen.draw(image, one.record)))
    return side_by_side([_fitted(picture) for _, picture in shown], [name for name, _ in shown])


def drawing(task: Task, policy: Policy) -> Callable[..., Any]:
  """(frozen, params, batch, key) -> actions, predictions [B, S, ...], log-probabilities [B, S]."""

  @functools.partial(jax.jit, compiler_options=policy.compiler_options)
  def draw(frozen, params, batch, key):
    inputs = task.inputs(batch)
    best = policy.best(params, inputs)
    sampled = policy.sample(params, inputs, key, _SAMPLES).actions
    actions = jax.tree.map(
      lambda one, many: jnp.concatenate([one[:, None], many], axis=1), best, sampled
    )
    scored = policy.score(params, inputs, actions)
    predictions = task.decode(frozen, actions, batch, scored)
    return actions, predictions, jnp.sum(counted(scored), axis=-1)

  return draw


def _at(tree: Any, row: int, s: int) -> Any:
  return jax.tree.map(lambda x: x[row, s], tree)


def _worth(worth: Any, row: int, s: int) -> tuple[float, dict[str, float]]:
  """An answer's reward and its parts; NaN where the run has none that can be known here."""
  if worth is None:
    return math.nan, {}
  reward, parts = _at(worth, row, s)
  return float(reward), {name: float(value) for name, value in parts.items()}


def _name(s: int) -> str:
  return f"sample {s}" if s else "greedy"


def _finite(value: float) -> float | None:
  return value if math.isfinite(value) else None


def _plain(value: Any) -> int | str:
  return int(value) if isinstance(value, (int, np.integer)) else str(value)


def _fitted(picture: np.ndarray) -> np.ndarray:
  """Small ones enlarged by a whole number, large ones shrunk."""
  scale = max(1, _SIDE // max(picture.shape[:2]))
  image = Image.fromarray(picture.repeat(scale, 0).repeat(scale, 1))
  image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
  return np.array(image)


def _png(picture: np.ndarray) -> bytes:
  file = io.BytesIO()
  Image.fromarray(picture).save(file, "PNG")
  return file.getvalue()
