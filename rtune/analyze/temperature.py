"""What the temperature of samples trades: how near pictures are to the truth, and how they look.

For policies with a temperature, such as flows (Blau & Michaeli 2018 on why one has to choose).
"""

import dataclasses
import inspect
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from matplotlib.figure import Figure

from rtune.analyze.figures import COLORS, LABELS
from rtune.analyze.tables import Table
from rtune.config.names import resolve
from rtune.data.files.lpips_weights import load_lpips
from rtune.data.source import Source
from rtune.display import console
from rtune.errors import UsageError
from rtune.metrics.metric import Metric
from rtune.metrics.pictures import restoring
from rtune.policies.policy import Policy
from rtune.tasks.task import Task
from rtune.training import restore
from rtune.training.evaluation import evaluate, judging_of
from rtune.training.phases import phase_of
from rtune.training.predicting import Predict, best_answers
from rtune.training.restore import Restored
from rtune.training.setup import build_policy, metrics_of

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_DISTORTION = ("PSNR", "SSIM")
_LOOKS = {"LPIPS": "LPIPS (lower looks nearer)", "LR_PSNR": "consistency, LR_PSNR in dB"}


def has_temperature(run: Restored) -> bool:
  """Whether the run's policy is built with one, and its answers are measured as pictures."""
  parameters = inspect.signature(resolve(run.config.policy.fn)).parameters
  return "temperature" in parameters and any(m.files for m in metrics_of(run.config, run.task))


def over_temperature(run: Restored, source: Source, images: int, seed: int) -> Table:
  """The numbers of one sample an image at each temperature, for every finished phase.

  At 0 it is the best answer. Metrics are those of the run, and LPIPS where its weights are there.
  """
  judging = judging_of(run, _metrics(run))
  phases = [name for name in restore.finished(run) if phase_of(name).learns.answers]
  predicts = {t: _predict(run, t, seed) for t in TEMPERATURES}
  rows = []
  for phase in phases:
    _, params = restore.load_params(run, phase)
    for temperature, predict in predicts.items():
      console.stage(f"{phase}: one sample an image at temperature {temperature:g}")
      values = evaluate(judging, params, predict, source, images)
      rows.append({"phase": phase, "temperature": temperature, **values})
  return rows


def sampled_answers(task: Task, policy: Policy, seed: int) -> Predict:
  """As `best_answers`, one sample an image; every call draws anew."""
  calls = itertools.count()

  @jax.jit
  def draw(frozen, params, batch, call):
    key = jax.random.fold_in(jax.random.key(seed), call)
    actions = policy.sample(params, task.inputs(batch), key, 1).actions
    predictions = task.decode(frozen, actions, batch, None)
    return actions, jax.tree.map(lambda x: x[:, 0], predictions)

  return lambda frozen, params, batch: draw(frozen, params, batch, next(calls))


def draw_trade(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """A line a phase, its points the temperatures; nothing where looks were not measured."""
  looks = next((name for name in _LOOKS if name in rows[0]), "")
  nearness = [name for name in _DISTORTION if name in rows[0]]
  if not looks or not nearness:
    return
  figure = Figure(figsize=(5.2 * len(nearness), 4.4), dpi=130, layout="constrained")
  for axes, name in zip(figure.subplots(1, len(nearness), squeeze=False)[0], nearness, strict=True):
    for phase in dict.fromkeys(row["phase"] for row in rows):
      own = [row for row in rows if row["phase"] == phase]
      x, y = ([row[key] for row in own] for key in (name, looks))
      axes.plot(x, y, "o-", color=COLORS[phase], label=LABELS[phase])
      for row in own:
        axes.annotate(f"{row['temperature']:g}", (row[name], row[looks]), fontsize=7)
    axes.set_xlabel(f"{name} of samples")
    axes.set_ylabel(_LOOKS[looks])
  figure.axes[0].legend(frameon=False, title="numbers: temperature", fontsize=9)
  figure.savefig(path)


def _predict(run: Restored, temperature: float, seed: int) -> Predict:
  if not temperature:
    return best_answers(run.task, run.policy)
  part = run.config.policy
  part = dataclasses.replace(part, args={**part.args, "temperature": temperature})
  policy = build_policy(dataclasses.replace(run.config, policy=part), run.task)
  return sampled_answers(run.task, policy, seed)


def _metrics(run: Restored) -> list[Metric]:
  found = metrics_of(run.config, run.task)
  try:
    load_lpips("alex")
  except UsageError as error:
    console.say(f"perception against distortion: without LPIPS. {error}")
    return found
  return [*found, restoring(measures=("LPIPS",))]
