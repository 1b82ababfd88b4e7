"""From names in a config to code: what is missing, misspelt or of the wrong type is named."""

import dataclasses
import importlib
import importlib.util
import inspect
import os
import pathlib
import pickle
import sys

import pytest

from rtune.config import Part, load, moved, names
from rtune.config.names import build_part, check_args, resolve
from rtune.errors import DataError, UsageError


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


# An attribute of each module that has moved, by the name that old configs give it.
OLD_NAMES = (
  "rtune.data.captioned_shapes:CaptionedShapes",
  "rtune.data.coco:CocoDetection",
  "rtune.data.coco_captions:CocoCaptions",
  "rtune.data.coco_counts:COCO_COUNTS",
  "rtune.data.coco_panoptic:CocoPanoptic",
  "rtune.data.colored_shapes:ColoredShapes",
  "rtune.data.panoptic_shapes:PanopticShapes",
  "rtune.data.photographs:Photographs",
  "rtune.data.shapes:Shapes",
  "rtune.data.tfds:TfdsDetection",
  "rtune.data.tfds_captions:TfdsCaptions",
  "rtune.data.tfds_photographs:TfdsPhotographs",
  "rtune.rewards.confidence:expected_iou",
)
# What a file may hold whose annotations are text.
LATE = """
from __future__ import annotations
import dataclasses
from typing import TYPE_CHECKING, NamedTuple
if TYPE_CHECKING:
  from nowhere import Boxes
Number = float
@dataclasses.dataclass(frozen=True)
class Data:
  num: int = 10
  boxes: Boxes | None = None
class Plain:
  def __init__(self, boxes: Boxes, num: int = 10):
    self.boxes, self.num = boxes, num
class Pair(NamedTuple):
  num: int
  boxes: Boxes | None = None
def reward(prediction: Boxes, truth: Boxes, *, iou: Number = 0.5, name: "str" = "", other=None):
  return iou
"""


@pytest.fixture
def write(tmp_path):
  """Writes a file, (name, text or bytes) -> its path; what is loaded of it is forgotten after."""
  before = set(names._FILES)

  def run(name: str, content: str | bytes) -> str:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)

  yield run
  for name in set(names._FILES) - before:
    del names._FILES[name], sys.modules[name]


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
    ("rtune.config:Prat", "rtune.config has no 'Prat'. Did you mean 'Part'?"),
    (f"{__file__}:Scene", "has no 'Scene'. Did you mean 'Scenes'?"),
    ("rtune.data.shapes:Shape", "Did you mean 'Shapes'?"),
    ("nowhere/mine.py:Mine", "nowhere/mine.py: no such file"),
  ],
)
def test_what_is_not_there_is_named(name, words):
  assert words in error_of(resolve, name)


@pytest.mark.parametrize("name", OLD_NAMES)
def test_old_names_of_what_has_moved_go_on_working(name):
  module, _, attribute = name.partition(":")
  # An entry must never hide a module that exists.
  assert importlib.util.find_spec(module) is None
  new = importlib.import_module(moved._MOVED[module])
  assert resolve(name) is getattr(new, attribute)
  assert resolve(f"{moved._MOVED[module]}:{attribute}") is getattr(new, attribute)


def test_every_module_that_has_moved_is_tried():
  assert sorted(moved._MOVED) == sorted({name.partition(":")[0] for name in OLD_NAMES})


def test_a_file_is_executed_once(write, tmp_path, monkeypatch):
  counted = "import pathlib\nwith open(pathlib.Path(__file__).with_suffix('.ran'), 'a') as f:\n"
  path = write("mine.py", counted + "  f.write('x')\ndef reward():\n  return 1\n")
  first = resolve(f"{path}:reward")
  os.symlink(path, tmp_path / "other.py")
  monkeypatch.chdir(tmp_path)
  for spelling in (path, "mine.py", f"../{tmp_path.name}/mine.py", "other.py"):
    assert resolve(f"{spelling}:reward") is first
  assert (tmp_path / "mine.ran").read_text() == "x"


def test_an_edited_file_is_executed_anew(write):
  # The same size within the same second, as an editor's "save" in a notebook's loop.
  for value in (1, 2, 3, 1):
    path = write("mine.py", f"VALUE = {value}\n")
    assert resolve(f"{path}:VALUE") == value


def test_files_of_one_name_are_not_confused(write):
  text = "import dataclasses\n@dataclasses.dataclass\nclass Mine:\n  x: int = "
  # One is even called like a module that everybody has.
  files = {"a/mine.py": 1, "b/mine.py": 2, "json.py": 3}
  paths = [write(name, f"{text}{value}\n") for name, value in files.items()]
  built = [resolve(f"{path}:Mine")() for path in paths]
  assert [value.x for value in built] == [1, 2, 3]
  assert [value.x for value in pickle.loads(pickle.dumps(built))] == [1, 2, 3]
  assert pathlib.Path(sys.modules["json"].__file__).parent.name == "json"


def test_a_class_of_a_file_is_like_any_other(write):
  path = write("my.parts.py", LATE)
  made = resolve(f"{path}:Data")(num=3)
  copy = pickle.loads(pickle.dumps(made))
  assert copy == made and type(copy) is type(made)
  assert "num: int = 10" in inspect.getsource(type(made))
  write("my.parts.py", LATE.replace("num: int = 10", "num: int = 11111"))
  assert "num: int = 11111" in inspect.getsource(resolve(f"{path}:Data"))


def test_home_is_understood(write, monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  write("mine.py", "VALUE = 3\n")
  assert resolve("~/mine.py:VALUE") == 3
  assert "~/yours.py: no such file" in error_of(resolve, "~/yours.py:VALUE")


@pytest.mark.parametrize(
  "content, words",
  [
    ("x = 1\ndef f(:\n  pass\n", ", line 2: invalid syntax (SyntaxError)"),
    ("x = 1\n  y = 2\n", ", line 2: unexpected indent (IndentationError)"),
    (b"x = 1\ny = 2\0\n", ", line 2: a NUL byte; save the file as UTF-8 (SyntaxError)"),
    ("x = 1\n".encode("utf-16"), ", line 1: a NUL byte; save the file as UTF-8 (SyntaxError)"),
    ("x = 1\ny = '\xe9'\n".encode("latin-1"), ", line 2: (unicode error) 'utf-8' codec can't"),
    ("# coding: klingon\n", ": unknown encoding: klingon (SyntaxError)"),
    ("x = 1\ny = 1 / 0\n", ", line 2: ZeroDivisionError: division by zero"),
    ("def f():\n  return {}['a']\n\nf()\n", ", line 2: KeyError: 'a'"),
    ("import json\n\njson.loads('{')\n", ", line 3: JSONDecodeError: Expecting property"),
    ("x = 1\nraise ValueError('a\\n  b')\n", ", line 2: ValueError: a b"),
    ("x = 1\nassert False\n", ", line 2: AssertionError"),
    ("import sys\nsys.exit('no GPU')\n", ", line 2: SystemExit: no GPU"),
    ("x = 1\nexec('(')\n", ", line 2: SyntaxError: '(' was never closed (<string>, line 1)"),
    (
      "x = 1\nimport no_such_module\n",
      ", line 2: ModuleNotFoundError: No module named 'no_such_module'. Check the name, or install",
    ),
  ],
)
def test_an_error_in_a_file_is_one_line_that_says_where(write, content, words):
  path = write("mine.py", content)
  before = set(sys.modules)
  # Twice: what failed must not be there half made.
  for _ in range(2):
    assert error_of(resolve, f"{path}:reward").startswith(path + words)
  assert not {name for name in set(sys.modules) - before if name.startswith("mine")}
  write("mine.py", "reward = 3\n")
  assert resolve(f"{path}:reward") == 3


def test_a_file_that_cannot_be_read_is_named(write, monkeypatch):
  path = write("mine.py", "x = 1\n")

  def refuse(file, mode):
    raise PermissionError(13, "Permission denied", str(file))

  monkeypatch.setattr(names, "open", refuse, raising=False)
  assert f"{path}: PermissionError: [Errno 13] Permission denied" in error_of(resolve, f"{path}:x")


def test_an_edit_that_breaks_a_file_leaves_nothing_of_it(write):
  path = write("mine.py", "class Mine:\n  pass\n")
  name = resolve(f"{path}:Mine").__module__
  write("mine.py", "class Mine:\n  pass\n1 / 0\n")
  assert "line 3: ZeroDivisionError" in error_of(resolve, f"{path}:Mine")
  assert name not in sys.modules
  write("mine.py", "class Mine:\n  pass\n")
  assert resolve(f"{path}:Mine") is sys.modules[name].Mine


def test_an_error_in_a_module_says_where_too(write, tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  raises = write("rtune_test_raises.py", "import json\njson.loads('{')\n")
  broken = write("rtune_test_broken.py", "x = 1\ndef f(:\n")
  message = error_of(resolve, "rtune_test_raises:reward")
  assert message.startswith(f"{raises}, line 2: JSONDecodeError: Expecting property")
  message = error_of(resolve, "rtune_test_broken:reward")
  assert message == f"{broken}, line 2: invalid syntax (SyntaxError)"


def test_rtunes_own_errors_pass_unchanged(write):
  path = write("mine.py", "from rtune.errors import DataError\nraise DataError('no images')\n")
  with pytest.raises(DataError, match=r"^no images$"):
    resolve(f"{path}:reward")
  inner = write("inner.py", "x = 1\n1 / 0\n")
  outer = write("outer.py", f"from rtune.config.names import resolve\nresolve({inner!r} ':x')\n")
  assert error_of(resolve, f"{outer}:x") == f"{inner}, line 2: ZeroDivisionError: division by zero"


def test_a_setting_that_nobody_knows_is_one_short_line(write):
  text = "from rtune import config\nBASE = config.default()\nBASE.mle.step = 1\n"
  message = error_of(load.load_config, write("mine.py", text))
  assert 'mine.py, line 3: AttributeError: \'Key "step" does not exist' in message
  assert 'Did you mean "steps"' in message
  assert len(message) < 300


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


@pytest.mark.parametrize(
  "name, args, words",
  [
    ("Data", {"num": "many"}, "config.task.args.num must be int, not 'many'"),
    ("Plain", {"boxes": 3, "num": 2.5}, "config.task.args.num must be int, not 2.5"),
    ("Pair", {"num": True}, "config.task.args.num must be int, not True"),
  ],
)
def test_annotations_that_are_text_are_checked(write, name, args, words):
  path = write("late.py", LATE)
  assert words in error_of(build_part, Part(f"{path}:{name}", args), "task")
  # What only type checkers can name is not checked.
  assert build_part(Part(f"{path}:{name}", {"num": 3, "boxes": "any"}), "task").num == 3


def test_annotations_of_a_function_that_are_text_are_checked(write):
  fn = resolve(write("late.py", LATE) + ":reward")
  check_args(fn, {"iou": 1, "name": "a", "other": 3}, "reward", 2)
  assert "config.reward.args.iou must be float" in error_of(
    check_args, fn, {"iou": "high"}, "reward", 2
  )
  assert "config.reward.args.name must be str" in error_of(check_args, fn, {"name": 3}, "reward", 2)


def test_functions_get_some_arguments_from_elsewhere():
  check_args(reward, {"iou": 1}, "reward", 2)
  check_args(anything, {"whatever": 1}, "reward", 2)
  message = error_of(check_args, reward, {"io": 0.9}, "reward", 2)
  assert message == "Unknown config key config.reward.args.io. Did you mean config.reward.args.iou?"
  # The prediction is not the config's to give.
  assert "Unknown" in error_of(check_args, reward, {"prediction": 1}, "reward", 2)
