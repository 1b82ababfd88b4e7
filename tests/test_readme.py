"""README and docs are true: commands are understood, names exist, the README's example runs."""

import importlib.util
import pathlib
import re
import shlex
import tomllib

import numpy as np
import pytest

from rtune import config as configs
from rtune import main
from rtune.config import checks
from rtune.config.load import load_config
from rtune.config.names import resolve
from rtune.display.logs import read_metrics
from rtune.predictions.boxes import Boxes
from rtune.store import run_files

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", [pytest.param(p.read_text(), id=p.stem) for p in PAGES])


def blocks(language: str, page: str = README) -> list[str]:
  """The contents of the fenced blocks in this language."""
  return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
  """Every `python -m rtune...` of a page as its arguments, from the module on."""
  # Loops of a shell count.
  text = re.sub(r"\$\w+", "1", "".join(blocks("bash", page)))
  lines = text.replace("\\\n", " ").splitlines()
  words = [shlex.split(line, comments=True) for line in lines if "-m rtune." in line]
  return [line[line.index("-m", line.index("&&") if "&&" in line else 0) + 1 :] for line in words]


def test_two_single_lines_do_all():
  run, test, *_ = blocks("bash")
  for command in (run, test):
    assert command.count("\n") == 1
    assert "\\" not in command
    assert re.search(r"python3 -m venv \S+ && \S+/pip install ", command)
  assert re.search(r"&& \S+/python -m rtune\.main --config \S+ --workdir \S+\n", run)
  assert re.search(r"&& \S+/python -m pytest -q -n 2 --dist loadfile\n", test)


def test_the_readme_is_short():
  assert len(README.splitlines()) <= 200


@each_page
def test_links_lead_somewhere(page):
  folder = ROOT if page == README else ROOT / "docs"
  for target in re.findall(r"\]\((?!https?:)([^)#]+)", page):
    assert (folder / target).exists(), target


@each_page
def test_extras_exist(page):
  known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
  named = re.findall(r"(?:rtune|\.)\[([\w,]+)\]", page)
  for extras in named:
    assert set(extras.split(",")) <= set(known)


@each_page
def test_files_exist(page):
  paths = re.findall(r"(?<![\w/.])((?:rtune|configs|launch|tests|notebooks)/[\w./-]*)", page)
  for path in paths:
    assert (ROOT / path.rstrip(".")).exists(), path


@each_page
def test_named_code_exists(page):
  for name in re.findall(r"(?<![\w/])rtune(?:\.\w+)+:\w+", page):
    assert resolve(name)


@each_page
def test_commands_are_understood(page, monkeypatch):
  monkeypatch.chdir(ROOT)
  for module, *args in commands(page):
    if module == "rtune.main":
      flags = main.parse_flags(args)
      if not flags.config.startswith("configs/"):
        continue  # a recipe's own file, which test_recipes writes
      assert load_config(flags.config, flags.overrides)
      continue
    command = importlib.util.find_spec(module)
    if command.submodule_search_locations:  # a package, whose command is its __main__
      command = importlib.util.find_spec(f"{module}.__main__")
    source = pathlib.Path(command.origin).read_text()
    for flag in (arg.partition("=")[0] for arg in args if arg.startswith("--")):
      assert f'"{flag}"' in source, f"{module} {flag}"


@each_page
def test_settings_in_the_text_exist(page):
  for name in re.findall(r"--config\.([\w.]+)", page):
    # Splits are named at will; each has the settings of the validation data.
    name = re.sub(r"^data\.splits\.\w+\b", "data.val", name)
    if ".args." not in name:
      checks.get(configs.default(), name)


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> pathlib.Path:
  """The README's example of a reward, saved as it says."""
  (code,) = blocks("python")
  name = re.match(r"# (\w+\.py)\n", code).group(1)
  path = tmp_path_factory.mktemp("user") / name
  path.write_text(code)
  assert f"--config.reward.fn={name}:tight_recall" in README
  return path


def test_example_rewards_what_it_says(example):
  reward = resolve(f"{example}:tight_recall")
  boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0, 1, 1]], np.float32)
  labels, scores = np.array([0, 1, 2], np.int32), np.ones(3, np.float32)
  truth = Boxes(boxes, labels, np.array([True, True, False]), scores)
  assert reward(truth, truth) == {"reward": pytest.approx(2 - 0.1), "found": 2}
  other_class = truth._replace(labels=np.array([0, 2, 2], np.int32))
  assert reward(other_class, truth)["found"] == 1
  a_little_off = truth._replace(boxes=boxes * np.float32(0.96))
  # IoUs of 0.92, worth 1, and 0.787.
  assert reward(a_little_off, truth)["found"] == pytest.approx(2 * 0.787 / 0.9, abs=1e-3)
  assert reward(a_little_off, truth, iou=0.5)["found"] == 2
  assert reward(truth._replace(present=np.zeros(3, bool)), truth)["reward"] == 0


@pytest.mark.slow
def test_example_tunes_a_model(example, tiny_run, tmp_path, quick_compiles):
  config = f"{ROOT}/configs/detection_recall.py:tiny"
  settings = ["reward.steps=3", "reward.optim.warmup_steps=1", "log_every=1", "eval_every=0"]
  code = main.main(
    [
      *("--config", config, "--workdir", str(tmp_path / "run"), f"--config.init_from={tiny_run}"),
      *(f"--config.reward.fn={example}:tight_recall", "--config.reward.args.iou=0.9"),
      *(f"--config.{setting}" for setting in settings),
    ]
  )
  assert code == 0
  rows = read_metrics(tmp_path / "run")
  assert [row["step"] for row in rows] == [1, 2, 3]
  assert all({"reward/mean", "reward/found", "time/score"} <= set(row) for row in rows)
  assert set(run_files.read_results(tmp_path / "run")) == {"reward", "seconds"}
  assert run_files.read_config(tmp_path / "run").reward.args == {"iou": 0.9}
