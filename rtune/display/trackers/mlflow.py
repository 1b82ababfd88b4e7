"""MLflow. Extra `mlflow`."""

import json
import os
import pathlib
import re
import time
from collections.abc import Mapping

from PIL import Image

from rtune.display.trackers.tracker import Session

_NOT_ALLOWED = re.compile(r"[^\w\-. :/]")  # in names
_CONFIG = "config.json"


class Mlflow:
  """A run of MLflow at MLFLOW_TRACKING_URI, in the experiment MLFLOW_EXPERIMENT_NAME or "rtune".

  Signs that MLflow has no room for in names are "_" there.
  """

  def __init__(self, session: Session):
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    self._client, self._metric = MlflowClient(), Metric
    if session.id:
      self.id = session.id
      self._client.update_run(self.id, status="RUNNING")
    else:
      name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "rtune")
      found = self._client.get_experiment_by_name(name)
      experiment = found.experiment_id if found else self._client.create_experiment(name)
      self.id = self._client.create_run(experiment, run_name=session.name).info.run_id
    self._client.log_text(self.id, json.dumps(session.config, indent=2), _CONFIG)

  def numbers(self, step: int, values: Mapping[str, float]) -> None:
    now = int(time.time() * 1000)
    metrics = [self._metric(_free(name), value, now, step) for name, value in values.items()]
    self._client.log_batch(self.id, metrics=metrics, synchronous=True)

  def picture(self, step: int, name: str, path: pathlib.Path) -> None:
    with Image.open(path) as picture:
      given = {"key": _free(name), "step": step, "synchronous": True}
      self._client.log_image(self.id, picture, **given)

  def close(self) -> None:
    self._client.set_terminated(self.id)


def _free(name: str) -> str:
  return _NOT_ALLOWED.sub("_", name)
