"""A reward that rises while what it stands for falls is told, once, and by the report."""

import dataclasses
import json
import math
import pathlib

import pytest

from rtune import config as configs
from rtune.config.names import resolve
from rtune.errors import UsageError
from rtune.report.write import write_report
from rtune.store import run_files
from rtune.tasks.colorization import Colorization
from rtune.tasks.detection import Detection
from rtune.tasks.panoptic import Panoptic
from rtune.tasks.restoration import Restoration
from rtune.training import hacking
from rtune.training.hacking import Hacking, found

TOYS = pathlib.Path(__file__).resolve().parents[1] / "toys"
toy_config = resolve(f"{TOYS / 'test_runs.py'}:toy_config")


def rows(rewards, values, name="val/AP"):
  both = zip(rewards, values, strict=True)
  return [
    {"step": 10 * place, "val/reward": reward, name: value}
    for place, (reward, value) in enumerate(both)
  ]


@pytest.mark.parametrize(
  "rewards, values, step",
  [
    ((0.1, 0.2, 0.3), (0.5, 0.4, 0.3), 20),
    ((0.1, 0.2, 0.3, 0.4), (0.5, 0.4, 0.5, 0.4), None),  # never twice in a row
    ((0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.4, 0.3), 30),
    ((0.1, 0.2, 0.3), (0.5, 0.49, 0.48), None),  # less than 5 %: noise
    ((0.3, 0.2, 0.1), (0.5, 0.4, 0.3), None),  # both fall: tuning fails, nothing is hacked
    ((0.1, 0.2, 0.3), (0.3, 0.4, 0.5), None),
    ((0.1, math.nan, 0.2, 0.3), (0.5, 0.1, 0.4, 0.3), 30),
    ((0.1,), (0.5,), None),
    ((), (), None),
  ],
)
def test_when_it_is_told(rewards, values, step):
  signs = found(rows(rewards, values), ("val/AP", "val/none"), ())
  assert [one.step for one in signs] == ([] if step is None else [step])


def test_less_is_better_of_some():
  given = rows((0.1, 0.2, 0.3), (0.2, 0.3, 0.4), "val/LPIPS")
  (sign,) = found(given, ("val/LPIPS",), ("LPIPS",))
  assert sign.values == (0.2, 0.4) and sign.reward == (0.1, 0.3)
  assert "val/LPIPS got worse, from 0.2 to 0.4" in str(sign)
  assert found(given, ("val/LPIPS",), ()) == []


def test_what_is_watched():
  config = toy_config("tokens")
  assert hacking.watched_by(config, Detection()) == ("val/AR", "val/AP")
  assert hacking.watched_by(config, Restoration()) == ("val/PSNR", "val/SSIM")
  assert hacking.watched_by(config, Panoptic()) == ("val/PQ", "val/PQ_things", "val/PQ_stuff")
  assert hacking.watched_by(config, Colorization()) == ("val/colorfulness", "val/hasler_susstrunk")
  reward = dataclasses.replace(config.reward, watched=("val/AP50",))
  mine = dataclasses.replace(config, reward=reward)
  assert hacking.watched_by(mine, Detection()) == ("val/AP50",)
  tree = json.loads(configs.to_json(mine))
  assert configs.parse(tree).reward.watched == ("val/AP50",)
  tree["reward"]["watched"] = ["AP50"]
  with pytest.raises(UsageError, match=r"config\.reward\.watched\[0\] is 'AP50'"):
    configs.parse(tree)


@pytest.fixture
def hacked(boxes_run, tmp_path) -> pathlib.Path:
  """A run whose log says that AP has fallen in tuning, from what imitation had ended with."""
  folder = tmp_path / "run"
  folder.mkdir()
  for name in ("config.json", "weights"):
    (folder / name).symlink_to(boxes_run / name)
  noted = {"mle": {"val/reward": 0.1, "val/AP": 0.5, "val/AR": 0.2}, "seconds": {"mle": 1.0}}
  (folder / "results.json").write_text(json.dumps(noted))
  lines = [
    {"step": 22, "loss": 1.0, "val/reward": 0.2, "val/AP": 0.4, "val/AR": 0.3},
    {"step": 23, "loss": 1.0},
    {"step": 24, "loss": 1.0, "val/reward": 0.3, "val/AP": 0.3, "val/AR": 0.3},
  ]
  (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  return folder


def test_it_is_told_once_also_after_an_interruption(hacked, capsys):
  config = run_files.read_config(hacked)
  hacking_ = Hacking(config, Detection(), hacked, "reward", 20, 22)
  hacking_.look(24, {"val/reward": 0.3, "val/AP": 0.3, "val/AR": 0.3})
  hacking_.look(26, {"val/reward": 0.4, "val/AP": 0.2, "val/AR": 0.3})
  said = capsys.readouterr().err
  assert said.count("The reward may be hacked") == 1
  assert "reward step 24: the reward has risen from 0.1 to 0.3" in said


def test_the_report_says_so(hacked, monkeypatch):
  monkeypatch.setattr("rtune.report.write.open_source", _no_data)
  text = write_report(hacked).read_text()
  assert "Is the reward hacked?" in text
  assert "while val/AP got worse, from 0.5 to 0.3" in text
  lines = (hacked / "metrics.jsonl").read_text().replace('"val/AP": 0.3', '"val/AP": 0.5')
  (hacked / "metrics.jsonl").write_text(lines)
  assert "Is the reward hacked?" not in write_report(hacked).read_text()


def _no_data(run, args):
  raise UsageError("gone")
