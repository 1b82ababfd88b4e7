"""The packages themselves, each on this machine alone; they are extras, so they may be missing."""

import math

import pytest
from PIL import Image

from rtune.display.trackers.mlflow import Mlflow
from rtune.display.trackers.tracker import Session
from rtune.display.trackers.trackio import Trackio
from rtune.display.trackers.wandb import Wandb

# What others warn of is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")
CONFIG = {"seed": 3, "data": {"train": {"args": {"num": (1, 2)}}}}


def two_sessions(tracker, folder):
  """A run that is logged, and resumed where some steps come again; returns its id."""
  Image.new("RGB", (7, 5), (200, 0, 0)).save(folder / "a.png")
  run = ""
  for first in (0, 2):
    opened = tracker(Session("mine", folder, CONFIG, run))
    assert run in ("", opened.id), "the same run"
    run = opened.id
    for step in range(first, first + 4):
      opened.numbers(step, {"reward/mean": step / 2, "val/AR@[.50:.95]": math.nan})
    opened.picture(first + 3, "samples/0", folder / "a.png")
    opened.close()
  return run


def test_mlflow(tmp_path, monkeypatch):
  mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
  pytest.importorskip("sqlalchemy", reason="mlflow-skinny keeps no runs on this machine")
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
  mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
  run = two_sessions(Mlflow, tmp_path)
  client = mlflow.MlflowClient()
  (found,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
  assert (found.info.run_id, found.info.run_name) == (run, "mine")
  assert found.info.status == "FINISHED"
  history = client.get_metric_history(run, "reward/mean")
  assert sorted((one.step, one.value) for one in history) == [
    *((0, 0.0), (1, 0.5), (2, 1.0), (2, 1.0), (3, 1.5), (3, 1.5), (4, 2.0), (5, 2.5))
  ]
  assert math.isnan(found.data.metrics["val/AR__.50:.95_"])
  assert [file.path for file in client.list_artifacts(run)] == ["config.json", "images"]
  assert len([f for f in client.list_artifacts(run, "images") if f.path.endswith("png")]) == 2


def test_trackio(tmp_path, monkeypatch):
  monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "runs"))
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  trackio = pytest.importorskip("trackio", reason="the extra trackio is not installed")
  from trackio.sqlite_storage import SQLiteStorage

  monkeypatch.setenv("TRACKIO_PROJECT", "tests")
  name = two_sessions(Trackio, tmp_path)
  (run,) = trackio.Api().runs("tests")
  assert run.name == name and name.startswith("mine-")
  rows = SQLiteStorage.get_logs("tests", name)
  values = sorted((row["step"], row["reward/mean"]) for row in rows if "reward/mean" in row)
  assert values == [(step, step / 2) for step in (0, 1, 2, 2, 3, 3, 4, 5)]
  assert len([*(tmp_path / "runs").rglob("*.png")]) == 2


@pytest.fixture
def wandb(monkeypatch, tmp_path):
  """wandb as on a machine whose owner has never logged in."""
  package = pytest.importorskip("wandb", reason="the extra wandb is not installed")
  for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
  monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
  yield package
  package.teardown()


def test_wandb(tmp_path, monkeypatch, wandb):
  monkeypatch.setenv("WANDB_MODE", "offline")
  run = two_sessions(Wandb, tmp_path)
  folders = sorted((tmp_path / "wandb").glob(f"offline-run-*-{run}"))
  assert folders, "where `wandb sync` looks"
  kept = b"".join(file.read_bytes() for file in (tmp_path / "wandb").rglob(f"run-{run}.wandb"))
  for name in (b"reward/mean", b"val/AR@[.50:.95]", b"samples/0"):
    assert name in kept
  assert [*(tmp_path / "wandb").rglob("*.png")]


@pytest.mark.parametrize("reachable", [True, False])
def test_wandb_that_cannot_log_in_raises_and_asks_nothing(monkeypatch, tmp_path, wandb, reachable):
  monkeypatch.setenv("WANDB_MODE", "online")
  if not reachable:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
  error = wandb.errors.CommError if not reachable else wandb.errors.UsageError
  with pytest.raises(error):
    Wandb(Session("mine", tmp_path, CONFIG, ""))
