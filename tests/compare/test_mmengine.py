"""Logs of MMEngine: losses and metrics told apart, epochs, resumed runs, seeds, percent."""

import dataclasses
import json

import pytest

from rtune.compare import groups, mmengine, runs

CONFIG = """
randomness = dict(seed={seed})
work_dir = './work_dirs/{seed}'
model = dict(type='EncoderDecoder', decode_head=dict(type='{head}', num_classes=19))
optim_wrapper = {{'optimizer': dict(lr=0.01), **dict()}}
"""


def train(step: int, **more) -> dict:
  """A line as MMSegmentation's logger writes it in training."""
  times = {"time": 0.4, "data_time": 0.01, "memory": 9000}
  return {
    "lr": 0.01,
    "loss": 2.0 - step / 1e4,
    "decode.acc_seg": 80.0,
    **times,
    **more,
    "step": step,
  }


def judged(step: int, miou: float) -> dict:
  """A line of an evaluation."""
  return {"aAcc": 95.0, "mIoU": miou, "mAcc": 82.5, "time": 0.2, "data_time": 0.01, "step": step}


@pytest.fixture
def work(made, tmp_path):
  """Writes a work_dir of MMSegmentation; gives its log."""

  def write(name, rows, seed=None, head="ASPPHead", start="20240101_120000"):
    folder = tmp_path / name / start / "vis_data"
    made.log(folder / "scalars.json", rows)
    if seed is not None:
      (folder / "config.py").write_text(CONFIG.format(seed=seed, head=head))
    return folder / "scalars.json"

  return write


def test_losses_and_metrics_are_told_apart(work, call, made, tmp_path):
  rows = [
    train(50, iter=50),
    train(100, iter=100),
    judged(100, 74.5),
    train(150),
    judged(150, 75.0),
  ]
  work("one", rows)
  code, out, _ = call(tmp_path / "one")
  assert code == 0 and "75.00" in out and "mIoU" in out and "0.400" not in out
  losses, metrics = (made.csv(tmp_path / "out" / f"{n}.csv") for n in ("losses", "metrics"))
  assert [(r["step"], r["loss"]) for r in losses] == [
    ("50", "1.995"),
    ("100", "1.99"),
    ("150", "1.985"),
  ]
  assert list(metrics[0])[4:] == ["step", "aAcc", "mIoU", "mAcc"]
  assert [(r["step"], r["mIoU"], r["mAcc"]) for r in metrics] == [
    ("100", "74.5", "82.5"),
    ("150", "75.0", "82.5"),
  ]
  assert metrics[0]["group"] == "one" and metrics[0]["phase"] == "train"


@pytest.mark.parametrize("part", ["", "20240101_120000", "20240101_120000/vis_data/scalars.json"])
def test_any_path_to_it_is_the_run(work, tmp_path, part):
  work("one", [train(50), judged(50, 74.5)])
  (run,) = runs.read_runs([str(tmp_path / "one" / part)])
  assert run.name == "one" and run.final == {
    "train": {"val/aAcc": 95.0, "val/mIoU": 74.5, "val/mAcc": 82.5}
  }


def test_a_line_with_both_and_iter_alone(work, tmp_path):
  work(
    "one", [{"iter": 50, "loss": 1.0, "mIoU": 70.0, "lr": 0.1}, {"epoch": 60, "train/loss": 2.0}]
  )
  (run,) = runs.read_runs([str(tmp_path / "one")])
  assert run.branches[0].rows == [
    {"step": 50, "loss": 1.0, "val/mIoU": 70.0, "lr": 0.1},
    {"step": 60, "loss": 2.0},
  ]


def test_evaluations_by_epoch_stand_at_their_iteration(work, tmp_path):
  rows = [train(50), train(100), {"coco/bbox_mAP": 0.3, "step": 1}, train(200)]
  work("one", [*rows, {"val/coco/bbox_mAP": 0.4, "step": 2}])
  (run,) = runs.read_runs([str(tmp_path / "one")])
  found = [(r["step"], r["val/coco/bbox_mAP"]) for r in run.branches[0].rows if len(r) == 5 or True
           if "val/coco/bbox_mAP" in r]  # fmt: skip
  assert found == [(100, 0.3), (200, 0.4)]


def test_resumed_run_counts_each_step_once(work, made, tmp_path, call):
  first = [train(50), train(100), judged(100, 70.0), train(150), train(200), judged(200, 71.0)]
  work("one", first)
  work("one", [train(150, loss=9.0), judged(200, 72.0)], start="20240102_120000")
  assert call(tmp_path / "one")[0] == 0
  losses, metrics = (made.csv(tmp_path / "out" / f"{n}.csv") for n in ("losses", "metrics"))
  assert [r["step"] for r in losses] == ["50", "100", "150"] and losses[2]["loss"] == "9.0"
  assert [(r["step"], r["mIoU"]) for r in metrics] == [("100", "70.0"), ("200", "72.0")]


def test_seeds_are_read_from_the_config_beside_it(work, tmp_path):
  for seed in range(2):
    for head in ("ASPPHead", "FCNHead"):
      work(f"{head}{seed}", [train(50), judged(50, 70.0 + seed)], seed, head)
  found = groups.make_groups(runs.read_runs([f"{tmp_path}/*Head?"]))
  assert [g.name for g in found] == ["type=ASPPHead", "type=FCNHead"]
  assert [[r.seed for r in g.runs] for g in found] == [[0, 1], [0, 1]]
  settings, seed = mmengine.read_settings([tmp_path / "FCNHead1/20240101_120000/vis_data/x"])
  assert seed == 1 and settings == {
    "model.type": "EncoderDecoder",
    "model.decode_head.type": "FCNHead",
    "model.decode_head.num_classes": "19",
    "optim_wrapper.optimizer.lr": "0.01",
    "optim_wrapper.**": "dict()",
  }


def test_beside_rtune_percent_are_shares(work, made, tmp_path, call):
  work("one", [train(50), judged(50, 74.5)])
  config = dataclasses.replace(made.config(), phases=("mle",))
  made.run(
    tmp_path / "own",
    config,
    [{"step": 20, "loss": 1.0, "val/mIoU": 0.6}],
    {"mle": {"val/mIoU": 0.6}},
  )
  code, out, _ = call(tmp_path / "own", tmp_path / "one", "--metrics", "mIoU")
  assert code == 0 and "0.745" in out and "+0.145" in out


def test_broken_lines_are_counted(work, tmp_path, call):
  path = work("one", [train(50), judged(50, 74.5)])
  text = path.read_text()
  lines = ["not json", "[1, 2]", '{"loss": 1.0}', '{"step": NaN}', "\udcff"]
  path.write_text(text + "\n".join([*lines, "", json.dumps(train(100))]), errors="surrogateescape")
  code, _, err = call(tmp_path / "one")
  assert code == 0 and "5 lines could not be read and are left out" in err
  (run,) = runs.read_runs([str(path)])
  assert [row["step"] for row in run.branches[0].rows] == [50, 100]
