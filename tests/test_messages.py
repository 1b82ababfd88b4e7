"""Every mend that a message names can be followed by the command that shows it."""

import ast
import inspect
import pathlib
import re

import pytest

from rtune import analyze, class_weights, evaluate, main, predict, report
from rtune.config import checks, data_args
from rtune.config import knobs as configs
from rtune.data.sources.clean import CleanPictures
from rtune.data.sources.coco import CocoDetection
from rtune.data.sources.coco_captions import CocoCaptions
from rtune.data.sources.coco_labels import CocoLabels
from rtune.data.sources.coco_panoptic import CocoPanoptic
from rtune.data.sources.label_folder import LabelFolder
from rtune.data.sources.pairs import Pairs
from rtune.data.sources.photographs import Photographs
from rtune.data.sources.tfds import TfdsDetection
from rtune.data.sources.tfds_captions import TfdsCaptions
from rtune.data.sources.tfds_labels import TfdsLabels
from rtune.errors import DataError, UsageError

PACKAGE = pathlib.Path(main.__file__).parent
SOURCES = (
  *(CleanPictures, CocoCaptions, CocoDetection, CocoLabels, CocoPanoptic, LabelFolder, Pairs),
  *(Photographs, TfdsDetection, TfdsCaptions, TfdsLabels),
)
# A flag in the message of a module that several commands use -> the command that it is for.
OF_MAIN = ("force", "allow_config_change", "workdir", "config", "distributed")


def texts() -> list[tuple[str, str]]:
  """(module, text) of all strings in the package but docstrings; {} stands for what is put in."""
  found = []
  for path in sorted(PACKAGE.rglob("*.py")):
    tree = ast.parse(path.read_text())
    docs = {
      id(node.body[0].value)
      for node in ast.walk(tree)
      if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
      and node.body
      and isinstance(node.body[0], ast.Expr)
    }
    module = path.relative_to(PACKAGE).with_suffix("").as_posix()
    inner = {
      id(v) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for v in node.values
    }
    if module == "report/page":  # its style sheet has names such as --back
      continue
    for node in ast.walk(tree):
      if isinstance(node, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
        found.append((module, "".join(map(str, parts))))
      elif isinstance(node, ast.Constant) and id(node) not in docs | inner:
        found += [(module, node.value)] if isinstance(node.value, str) else []
  return found


TEXTS = texts()


def flags_of(command: str) -> set[str]:
  """The flags of a command, without dashes."""
  folder = PACKAGE / command
  path = folder / "__main__.py" if folder.is_dir() else PACKAGE / f"{command}.py"
  text = path.read_text()
  found = set(re.findall(r'"--(\w+)"', text)) | ({"trust"} if "reading.run(" in text else set())
  found |= {"weights"} if "add_weights()" in text else set()
  return found | set(main._SWITCHES) | {"config", "workdir"} if command == "main" else found


COMMANDS = ("main", "evaluate", "predict", "class_weights", "analyze", "compare", "report", "plan")
COMMANDS += ("benchmark", "export", "push")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_the_flags_that_its_own_messages_name(command):
  flags = flags_of(command)
  assert flags or command == "main"
  for module, text in TEXTS:
    if module.split("/")[0] != command:
      continue
    if " " not in text:
      continue  # one argument of another program, such as pip or XLA
    named = re.findall(r"(?:^|[\s\"'`])--([a-z]\w*)(?![\w.]*[.:])", text)
    elsewhere = re.search(r"python -m rtune\.(\w+)", text)
    other = flags_of(elsewhere[1]) if elsewhere else set()
    if "launch/gpu_check.sh" in text:
      other |= flags_of("benchmark/gpu_check")
    # A module may be a command of its own, such as analyze.passes.
    other |= set(re.findall(r'"--(\w+)"', (PACKAGE / f"{module}.py").read_text()))
    for flag in named:
      assert flag in flags | other | {"help", "data"}, f"{module}: {text!r}"


def test_shared_modules_name_flags_of_the_command_that_shows_them():
  for module, text in TEXTS:
    if module.split("/")[0] in COMMANDS:
      continue
    elsewhere = re.search(r"python -m rtune\.(\w+)", text)
    known = flags_of(elsewhere[1]) if elsewhere else set()
    for flag in re.findall(r"(?:^|[\s\"'`])--([a-z]\w*)(?![\w.]*[.:])", text):
      tools = ("input", "output", "upgrade")  # of other programs, such as fiftyone convert
      users = [c for c in COMMANDS if flag in flags_of(c)]
      assert flag in (*known, *OF_MAIN, "data", "help", *tools) or users, f"{module}: {text!r}"


def test_settings_that_messages_name_exist():
  config = configs.default()
  for _, text in TEXTS:
    for name in re.findall(r"\bconfig\.([a-z_]+(?:\.[a-z_]+)*)(?=[ ,;:='.]|$)", text):
      if ".args" not in name and name not in ("json", "py", "key"):
        checks.get(config, name)


def test_arguments_that_messages_about_files_name_are_those_of_sources():
  """`images`, allow_outside_root, ...: what --data.NAME and --config.data.*.args.NAME can set."""
  arguments = {name for source in SOURCES for name in inspect.signature(source).parameters}
  # Fields of files, and what others than sources take.
  fields = {"file_name", "coco_url", "sentences", "name", "root", "isthing", "image_id", "iscrowd"}
  for module, text in TEXTS:
    if not module.startswith("data/") or module == "data/files/lpips_weights":
      continue
    for name in re.findall(r"`(\w+)`", text):
      assert name in arguments | fields, f"{module}: {text!r}"
  assert {"allow_outside_root", "max_pixels", "masks", "least_color"} <= arguments


@pytest.mark.parametrize(
  "command", [evaluate, predict, class_weights, analyze, report], ids=lambda c: c.__name__
)
def test_help_names_the_arguments_of_data(command, capsys):
  entry = (
    command
    if hasattr(command, "main")
    else __import__(f"{command.__name__}.__main__", fromlist=["main"])
  )
  with pytest.raises(SystemExit):
    entry.main(["--help"])
  assert "--data.allow_outside_root" in capsys.readouterr().out


def test_arguments_of_data_are_taken_in_both_ways():
  args = ["--workdir", "w", "--data.max_pixels=7", "--data.allow_outside_root", "true", "--limit=3"]
  rest, found = data_args.take([*args, "--data.masks=a b"])
  assert rest == ["--workdir", "w", "--limit=3"]
  assert found == {"max_pixels": 7, "allow_outside_root": True, "masks": "a b"}
  with pytest.raises(UsageError, match=r"--data\.masks needs a value"):
    data_args.take(["--data.masks"])


@pytest.mark.parametrize("given", ["--data.", ""])
def test_an_error_says_how_its_arguments_are_set(tmp_path, given):
  prefix = given or "--config.data.val.args."
  (tmp_path / "a.json").write_text('{"images": [{"id": 1, "file_name": "../a.jpg"}]}')
  with (
    pytest.raises(DataError, match=f"{prefix}allow_outside_root=\\.\\.\\."),
    data_args.hinting(Photographs, "data.val", given),
  ):
    Photographs(str(tmp_path / "a.json"))
  with pytest.raises(DataError) as error, data_args.hinting(Photographs, "data.val", given):
    Photographs(str(tmp_path / "none.json"))
  assert prefix not in str(error.value)
  with pytest.raises(UsageError) as error, data_args.hinting(Pairs, "data.val", given):
    Pairs(split="val")
  assert str(error.value).endswith(f" with {prefix}layout=..., {prefix}degraded=...")
