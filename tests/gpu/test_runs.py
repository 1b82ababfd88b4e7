"""Every config's variant `tiny` runs on a GPU, in the types that GPUs compute with."""

import pathlib

import pytest

from rtune.config.load import load_config
from rtune.display.logs import read_metrics
from rtune.training import loop

pytestmark = pytest.mark.gpu
FILES = sorted((pathlib.Path(__file__).resolve().parents[2] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tiny_runs(path, tmp_path):
  config = load_config(f"{path}:tiny", [("tensorboard", "false"), ("eval_every", "0")])
  assert set(loop.run(config, str(tmp_path))) == {*config.phases, "seconds"}
  rows = read_metrics(tmp_path)
  assert sum(row.get("skipped", 0) for row in rows) == 0
  # Updates are those of the distribution that was sampled from.
  gaps = [row["log_prob_gap"] for row in rows if "log_prob_gap" in row]
  assert max(gaps, default=0) < 0.2
