"""Kept features save time, and nothing else is left out for it."""

import pathlib

import pytest

from rtune.benchmark import cached_features
from rtune.benchmark.loop import make_loop
from rtune.benchmark.timing import interleaved
from rtune.config.load import load_config
from rtune.training.setup import prepare

RECALL = pathlib.Path(__file__).resolve().parents[2] / "configs" / "detection_recall.py"
SMALL = {
  "task.args.image_size": "32",
  "task.args.max_boxes": "2",
  "model.encoder.width": "16",
  "model.encoder.mlp_dim": "16",
  "mle.batch_size": "4",
  "reward.batch_size": "4",
  "reward.num_samples": "2",
}


@pytest.fixture(scope="module")
def loop(quick_compiles):
  settings = cached_features.SETTINGS | SMALL
  return make_loop(prepare(load_config(str(RECALL), list(settings.items()))))


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["mle", "reward"])
def test_steps_with_kept_features_do_the_same_in_less_time(loop, phase):
  calls = cached_features.steppers(loop, phase)
  computed, kept = (calls[name]() for name in ("computed", "kept"))
  assert set(computed) == set(kept)
  for name in {"loss", "nll", "grad_norm"} & set(computed):
    assert float(kept[name]) == pytest.approx(float(computed[name]), rel=0.02, abs=1e-4)
  assert interleaved(calls, 3).ratio("computed", "kept") > 1.5
