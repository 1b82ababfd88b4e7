"""A workdir from a stranger runs no code that its reader has not chosen."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from rtune import evaluate, predict
from rtune.analyze import __main__ as analyze
from rtune.compare import __main__ as compare
from rtune.config import trust
from rtune.config.names import resolve
from rtune.devices import processes
from rtune.errors import UsageError
from rtune.report import __main__ as report
from rtune.store import reading

REWARD = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")

def reward(prediction, truth):
  return prediction.present.astype(float).sum()
"""


@pytest.fixture(autouse=True)
def stranger(monkeypatch, tmp_path):
  """Nothing is trusted yet; commands start without settings that outlast them."""
  monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
  monkeypatch.setattr(processes, "start", lambda auto=False: None)


@pytest.fixture
def downloaded(tiny_run, tmp_path):
  """(dotted key, part) -> a copy of a finished run whose config names that part."""

  def make(key, part):
    folder = tmp_path / "downloaded"
    shutil.copytree(tiny_run, folder)
    config = json.loads((folder / "config.json").read_text())
    *parents, last = key.split(".")
    node = config
    for name in parents:
      node = node[name]
    if isinstance(part, dict) and isinstance(node.get(last), dict):
      node[last] |= part
    else:
      node[last] = part
    (folder / "config.json").write_text(json.dumps(config))
    return folder

  return make


# Exit codes of evaluate, report, analyze, predict: they go on where they need no such code.
CODES = {
  "data.val": (2, 0, 2, 0),
  "task": (2, 2, 2, 2),
  "policy": (2, 2, 2, 2),
  "metrics": (2, 2, 0, 2),
  "reward": (0, 0, 2, 0),
}


# The others differ in what they name, not in who looks at it.
SLOW = ("data.val", "task", "policy", "metrics")


@pytest.mark.parametrize(
  "key", [pytest.param(key, marks=pytest.mark.slow) if key in SLOW else key for key in CODES]
)
def test_no_command_runs_what_a_config_names(downloaded, tmp_path, capsys, key):
  marker = tmp_path / "ran"
  part = {"fn": "os:system", "args": {"command": f"touch {marker}"}}
  folder = downloaded(key, [part] if key == "metrics" else part)
  commands = {
    evaluate.main: ["--limit=1"],
    report.main: ["--limit=1"],
    analyze.main: ["--images=1", "--samples=2"],
    predict.main: [str(_picture(tmp_path)), f"--out={tmp_path / 'out'}"],
  }
  for (command, args), wanted in zip(commands.items(), CODES[key], strict=True):
    code = command(["--workdir", str(folder), *args])
    told = capsys.readouterr().err
    assert code == wanted, told
    assert "names code that is not rtune's own: os:system" in told
    assert "Traceback" not in told
    assert not marker.exists(), command
  assert compare.main([str(folder), f"--out={tmp_path / 'compared'}"]) == 0
  assert not marker.exists()


def _picture(folder):
  path = folder / "a.png"
  Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(path)
  return path


def test_a_foreign_reward_is_left_out_until_it_is_trusted(downloaded, tmp_path, capsys):
  marker, file = tmp_path / "ran", tmp_path / "my_rewards.py"
  file.write_text(REWARD.format(marker=str(marker)))
  folder = downloaded("reward", {"fn": f"{file}:reward", "args": {}})
  args = ["--workdir", str(folder), "--limit=2"]

  def metrics(*flags, code=0):
    assert evaluate.main([*args, *flags]) == code
    found = json.loads((folder / "evaluation_reward_first2.json").read_text())["metrics"]
    return found, marker.exists(), capsys.readouterr().err

  found, ran, told = metrics()
  assert "reward" not in found and found["boxes"] >= 0
  assert not ran and "my_rewards.py:reward" in told and told.count("--trust") == 1
  found, ran, told = metrics("--trust")
  assert found["reward"] >= 0 and ran
  marker.unlink()
  found, _, told = metrics()  # asked once
  assert found["reward"] >= 0 and "--trust" not in told
  file.write_text(file.read_text() + "\n# Something else.\n")
  marker.unlink(missing_ok=True)
  found, ran, told = metrics()
  assert "reward" not in found and not ran and "--trust" in told


def test_code_that_is_needed_is_refused_in_one_line(downloaded, tmp_path, capsys):
  folder = downloaded("data.val", {"fn": "os:system", "args": {"command": "true"}})
  assert evaluate.main(["--workdir", str(folder)]) == 2
  last = capsys.readouterr().err.splitlines()[-1]
  assert last.startswith("error: the workdir names os:system") and "--trust" in last


def test_other_arguments_are_asked_for_again():
  parts = [{"fn": "os:system", "args": {"command": "true"}}]
  trust.remember(parts)
  assert trust.remembered(parts)
  assert not trust.remembered([{"fn": "os:system", "args": {"command": "rm"}}])


@pytest.mark.parametrize(
  "name",
  [
    *("os:system", "subprocess:run", "builtins:exec", "my.py:x", "rtune.evaluate:main"),
    *("rtune.store.run_files:write_whole", "rtune.data.sources.tfds:prepare"),
    *("rtune.rewards.boxes:jnp", "rtune.data.sources.coco:np", "rtune.tasks.task:load.x"),
    *("rtune.data.files.lpips_weights:unpickled", "rtune.config.names:resolve"),
  ],
)
def test_what_is_no_part_of_rtune(name):
  assert not trust.is_own(name)
  with trust.limited(frozenset()), pytest.raises(UsageError, match="--trust"):
    resolve(name)


@pytest.mark.parametrize(
  "name",
  [
    *("rtune.tasks.detection:Detection", "rtune.rewards.boxes:recall", "rtune.data.shapes:Shapes"),
    *("rtune.data.corrupt:blur", "rtune.training.losses:kl_of_next", "rtune.models.unet:unet"),
    *("rtune.policies.tokens:tokens", "rtune.metrics.boxes:coco_boxes"),
  ],
)
def test_parts_of_rtune(name):
  with trust.limited(frozenset()):
    assert callable(resolve(name))


def test_names_are_limited_within_only():
  with reading.reading(["/no/such/folder"]), pytest.raises(UsageError):
    resolve("os:getcwd")
  assert resolve("os:getcwd")


def test_a_folder_that_cannot_be_written_is_said(monkeypatch, capsys):
  monkeypatch.setenv("XDG_CONFIG_HOME", "/dev/null")
  trust.remember([{"fn": "my:own", "args": {}}])
  assert "is not remembered" in capsys.readouterr().err


def test_own_configs_name_no_foreign_code(tiny_run):
  assert trust.foreign(json.loads((tiny_run / "config.json").read_text())) == []
