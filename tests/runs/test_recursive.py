"""Whole runs of recursive restoration: both learners; a resumed run is the uninterrupted one."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from rtune.config.load import load_config
from rtune.display.logs import read_metrics
from rtune.errors import UsageError
from rtune.store import run_files, weights
from rtune.training import loop, restore
from rtune.training.setup import prepare

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compiles")]

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "restoration_recursive.py"


def settings(*overrides):
  plain = [("report", "False"), ("tensorboard", "False"), ("phases", "('mle', 'actor_critic')")]
  short = [("mle.steps", "6"), ("actor_critic.discount", "0.5")]
  return load_config(f"{CONFIG}:tiny", [*plain, *short, *overrides])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp("recursive") / "run"
  loop.run(settings(), str(folder))
  return folder


def test_actor_critic_is_a_phase_like_others(whole):
  results = run_files.read_results(whole)
  assert set(results) == {"mle", "actor_critic", "seconds"}
  names = {f"val/PSNR_{at}" for at in ("given", "pass1", "pass2")}
  assert names <= set(results["actor_critic"])
  last = [row for row in read_metrics(whole) if "critic_loss" in row][-1]
  assert last["skipped"] == 0
  assert last["kl_step"] <= 0.01
  assert last["replay"] == 300  # full
  before, after = (
    weights.load_weights(run_files.weights_path(whole, name)) for name in ("mle", "actor_critic")
  )
  same = jax.tree.map(np.array_equal, before["autoencoder"], after["autoencoder"])
  assert all(jax.tree.leaves(same))
  assert not np.array_equal(before["actor"]["out"]["bias"], after["actor"]["out"]["bias"])


def test_a_resumed_run_is_the_uninterrupted_one(whole, tmp_path):
  """Critics, temperature and replay come back from the checkpoint: the last bits say so."""
  folder = tmp_path / "stopped"
  shutil.copytree(whole, folder)
  shutil.rmtree(folder / "checkpoints" / "16")  # as it was after five of the ten steps
  run_files.weights_path(folder, "actor_critic").unlink()
  results = run_files.read_results(folder)
  del results["actor_critic"], results["seconds"]["actor_critic"]
  (folder / run_files.RESULTS).write_text(json.dumps(results))
  loop.run(settings(), str(folder))
  paths = [run_files.weights_path(run, "actor_critic") for run in (whole, folder)]
  assert paths[0].read_bytes() == paths[1].read_bytes()
  rows = [read_metrics(run)[-1] for run in (whole, folder)]
  ours, theirs = ({k: v for k, v in row.items() if not k.startswith("time/")} for row in rows)
  assert ours == theirs


def test_a_policy_without_rounds_is_refused(tmp_path):
  gains = [("policy.fn", "rtune.policies.gains:gains"), ("policy.args", "{}")]
  with pytest.raises(UsageError, match="names 'actor_critic', but rtune"):
    prepare(settings(*gains, ("metrics", "()")))


def test_weights_serve_for_any_number_of_passes(whole):
  run = restore.restore(whole)
  _, params = restore.load_params(run)
  other = restore.with_policy(run, passes=5)
  inputs = {"image": jax.ShapeDtypeStruct((1, 30, 17, 1), "float32")}
  shapes = jax.eval_shape(other.policy.best, params, inputs)
  assert shapes["passes"].shape == (1, 5, 30, 17, 1)
  with pytest.raises(UsageError, match="has no turns, so it cannot be set"):
    restore.with_policy(run, turns=5)
