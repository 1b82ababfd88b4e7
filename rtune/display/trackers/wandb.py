"""Weights & Biases. Extra `wandb`."""

import os
import pathlib
import uuid
from collections.abc import Mapping

from rtune.display import console
from rtune.display.trackers.tracker import Session

_FINISH_S = 60.0  # that wandb may still upload after the end; what is left, `wandb sync` can send


class Wandb:
  """A run of wandb; its steps are a number of their own, so that resumed steps may come again.

  WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE are read as usual. It never asks for a key: the
  terminal is the training's.
  """

  def __init__(self, session: Session):
    import wandb

    self._wandb = wandb
    wandb.setup(wandb.Settings(silent=True))
    self._run = wandb.init(
      project=os.environ.get("WANDB_PROJECT", "rtune"),
      id=session.id or uuid.uuid4().hex[:8],
      name=session.name,
      resume="allow",
      dir=str(session.folder),
      config=dict(session.config),
      allow_val_change=True,
      settings=wandb.Settings(console="off", silent=True, finish_timeout=_FINISH_S),
    )
    self.id = self._run.id
    self._run.define_metric("step")
    self._run.define_metric("*", step_metric="step")
    if self._run.url:
      console.say(f"wandb: {self._run.url}")

  def numbers(self, step: int, values: Mapping[str, float]) -> None:
    self._run.log({"step": step, **values})

  def picture(self, step: int, name: str, path: pathlib.Path) -> None:
    self._run.log({"step": step, name: self._wandb.Image(str(path))})

  def close(self) -> None:
    self._run.finish()
