"""From names in a config to code: what is missing, misspelt or of the wrong type is named."""

import dataclasses

import pytest

from rtune.config import Part
from rtune.config.names import build_part, check_args, resolve
from rtune.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Scenes:
  """A part as a dataclass."""

  split: str
  num: int = 10
  scale: float = 1.0
  names: tuple[str, ...] = ()


class Folder:
  """A part as a class."""

  def __init__(self, path: str, *, check: bool = True):
    self.path, self.check = path, check


def anything(prediction, truth, **settings):
  return settings


def reward(prediction, truth, *, iou: float = 0.5):
  return iou


def error_of(call, *args) -> str:
  with pytest.raises(UsageError) as error:
    call(*args)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_modules_and_files_are_found(tmp_path):
  assert resolve("rtune.config:Part") is Part
  (tmp_path / "mine.py").write_text("class Mine:\n  inner = 3\n")
  assert resolve(f"{tmp_path}/mine.py:Mine").inner == 3


@pytest.mark.parametrize(
  "name, words",
  [
    ("rtune.config", "write 'package.module:attribute'"),
    ("", "write 'package.module:attribute'"),
    ("rtune.rewards.boxs:recall", "No module named 'rtune.rewards.boxs'"),
    ("no_such_package:recall", "install the package"),
    ("rtune.config:Prat", "Did you mean 'Part'?"),
    ("nowhere/mine.py:Mine", "nowhere/mine.py: no such file"),
  ],
)
def test_what_is_not_there_is_named(name, words):
  assert words in error_of(resolve, name)


def test_arguments_arrive():
  args = {"split": "train", "num": 3, "scale": 2, "names": ["a", "b"]}
  built = build_part(Part(f"{__file__}:Scenes", args), "data.train")
  # Tasks and sources are hashable, so JSON's lists become tuples.
  assert (built.split, built.num, built.scale, built.names) == ("train", 3, 2, ("a", "b"))
  assert hash(built) == hash(dataclasses.replace(built))


@pytest.mark.parametrize(
  "args, words",
  [
    (
      {"split": "a", "nmu": 3},
      "config.data.train.args.nmu. Did you mean config.data.train.args.num",
    ),
    ({"split": "a", "num": "many"}, "config.data.train.args.num must be int, not 'many'"),
    ({"split": "a", "num": 2.5}, "config.data.train.args.num must be int"),
    ({"split": "a", "num": True}, "config.data.train.args.num must be int"),
    ({"split": 3}, "config.data.train.args.split must be str"),
    ({}, "config.data.train.args.split is missing; Scenes needs it"),
  ],
)
def test_wrong_arguments_are_named(args, words):
  assert words in error_of(build_part, Part(f"{__file__}:Scenes", args), "data.train")


@pytest.mark.parametrize(
  "args, words",
  [
    ({"pth": "a"}, "Did you mean config.task.args.path?"),
    ({"check": True}, "config.task.args.path is missing; Folder needs it"),
    ({"path": "a", "check": 1}, "config.task.args.check must be bool"),
  ],
)
def test_plain_classes_are_checked_too(args, words):
  assert words in error_of(build_part, Part(f"{__file__}:Folder", args), "task")


def test_functions_get_some_arguments_from_elsewhere():
  check_args(reward, {"iou": 1}, "reward", 2)
  check_args(anything, {"whatever": 1}, "reward", 2)
  message = error_of(check_args, reward, {"io": 0.9}, "reward", 2)
  assert message == "Unknown config key config.reward.args.io. Did you mean config.reward.args.iou?"
  # The prediction is not the config's to give.
  assert "Unknown" in error_of(check_args, reward, {"prediction": 1}, "reward", 2)
