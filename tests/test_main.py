"""The command line: a mistake is one clear line and an exit code, and leaves nothing behind."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from jax.sharding import AbstractMesh
from PIL import Image

from rtune import config as configs
from rtune import evaluate, main
from rtune.config.load import load_config
from rtune.devices import processes, sharding
from rtune.display.logs import read_metrics
from rtune.errors import UsageError
from rtune.report import write as report
from rtune.store import run_files
from rtune.training import loop, setup

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIG = str(ROOT / "configs" / "detection_recall.py")
TINY = f"--config={CONFIG}:tiny"
# What `python -m rtune.main` does, and what it has cost and imported.
MEASURED = """
import runpy, sys, time
try:
  runpy.run_module("rtune.main", run_name="__main__", alter_sys=True)
except SystemExit as end:
  heavy = {"jax", "flax", "orbax", "grain", "tensorflow", "matplotlib"} & set(sys.modules)
  print(end.code, time.process_time(), sorted(heavy))
"""


@pytest.fixture
def fails(tmp_path, capsys):
  """Runs a command that must fail, (arguments, exit code) -> the one message it gives."""

  def run(*args: str, code: int = 2) -> str:
    workdir = tmp_path / "run"
    capsys.readouterr()
    assert main.main([*args, f"--workdir={workdir}"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert shown.err.count("error: ") == 1
    assert not workdir.exists()
    return shown.err.partition("error: ")[2].rstrip("\n")

  return run


@pytest.fixture
def write(tmp_path):
  """Writes a file, (name, text or what becomes JSON) -> its path."""

  def run(name: str, content) -> str:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)

  return run


def coco(tmp_path: pathlib.Path, category_id: int = 3) -> dict:
  """A sound annotation file's content for one image, which is written too."""
  Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
  box = {"id": 1, "image_id": 1, "category_id": category_id, "bbox": [1, 2, 9, 8], "iscrowd": 0}
  return {
    "images": [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}],
    "categories": [{"id": category_id, "name": "ant"}],
    "annotations": [box],
  }


# Flags.


def test_both_ways_to_write_a_flag():
  args = ["--config", "a/b.py:tiny", "--config.seed=3", "--config.init_from", "x", "--force"]
  flags = main.parse_flags([*args, "--workdir=runs/mine"])
  assert flags == main.Flags(
    "a/b.py:tiny", (("seed", "3"), ("init_from", "x")), "runs/mine", frozenset(["force"])
  )


def test_workdir_is_named_after_config_and_time():
  assert main.parse_flags(["--config=a/b.py:tiny"]).workdir.startswith("runs/b_20")


@pytest.mark.parametrize(
  "args, words",
  [
    ([], "--config is missing"),
    (["--config="], "--config is missing"),
    (["--workdir=x"], "--config is missing"),
    (["--config"], "--config needs a value"),
    (["--config=a.py", "--workdir"], "--workdir needs a value"),
    (["--config=a.py", "--config.seed"], "--config.seed needs a value"),
    (["a.py"], "'a.py' is not a flag"),
    (["--confg=a.py"], "Unknown flag --confg"),
    (["--config=a.py", "--force=yes"], "Unknown flag --force"),
  ],
)
def test_wrong_flags_show_the_usage(args, words, capsys):
  assert main.main(args) == 2
  shown = capsys.readouterr()
  assert shown.err.startswith(f"error: {words}")
  assert "usage: python -m rtune.main --config" in shown.err
  assert "Traceback" not in shown.err


@pytest.mark.parametrize("workdir", ["gs:/bucket/run", "s3:/run", "gs://"])
def test_a_url_that_is_none_is_no_workdir(workdir, tmp_path, monkeypatch, capsys):
  """Of which a folder "gs:" would be made; what is one is in store/test_remote.py."""
  monkeypatch.chdir(tmp_path)
  assert main.main([TINY, f"--workdir={workdir}"]) == 2
  assert f"--workdir {workdir} is no folder of this machine" in capsys.readouterr().err
  with pytest.raises(UsageError, match="is no folder of this machine"):
    loop.run(load_config(f"{CONFIG}:tiny"), workdir)
  assert evaluate.main(["--workdir", workdir]) == 2
  assert list(tmp_path.iterdir()) == []


THREAD = """
import threading, time
from rtune import main
threading.Thread(target=time.sleep, args=(600,)).start()
main._PATIENCE_S = 0.2
main._leave(75)
"""


def test_a_thread_that_a_reward_has_left_does_not_hold_the_process():
  done = subprocess.run([sys.executable, "-c", THREAD], cwd=ROOT, timeout=60)
  assert done.returncode == 75


# Config files.


@pytest.mark.parametrize(
  "text, words",
  [
    ("def get_config(variant:\n  pass\n", "line 1: '(' was never closed"),
    ("x = 1\ny = 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
    ("x = 1\n", "has no 'get_config'"),
    ("import no_such_module\n", "No module named 'no_such_module'"),
    ("def get_config():\n  return {}\n", "TypeError: get_config() takes 0"),
    (
      "from rtune import config\ndef get_config(variant):\n  c = config.default()\n"
      "  c.mle.optim.learning_rat = 1\n  return c\n",
      'line 4: AttributeError: \'Key "learning_rat" does not exist',
    ),
    (
      "from rtune import config\ndef get_config(variant):\n  c = config.default()\n"
      "  c.mle.step = 1\n  return c\n",
      'Did you mean "steps"',
    ),
  ],
)
def test_broken_config_file_is_named_with_the_line(fails, write, text, words):
  path = write("broken.py", text)
  message = fails(f"--config={path}")
  assert path in message
  assert words in message
  assert "\n" not in message
  assert len(message) < 300


@pytest.mark.parametrize(
  "name, words",
  [
    ("nowhere/mine.py", "nowhere/mine.py: no such file"),
    ("nowhere.mine", "No module named 'nowhere'"),
    (
      f"{CONFIG}:huge",
      "'huge'; behind the colon may stand: control, coco_json, from_scratch, ",
    ),
  ],
)
def test_missing_config_file_or_variant(fails, name, words):
  message = fails(f"--config={name}")
  assert words in message
  assert "\n" not in message


# Overrides.


@pytest.mark.parametrize(
  "override, path, value",
  [
    ("seed=3", "seed", 3),
    ("mle.optim.lr=1e-3", "mle.optim.lr", 1e-3),
    ("mle.optim.lr=1", "mle.optim.lr", 1.0),
    ("tensorboard=false", "tensorboard", False),
    ("shard_parameters=True", "shard_parameters", True),
    ("phases=('mle','control')", "phases", ("mle", "control")),
    ("init_from=12", "init_from", "12"),
    ("init_from=", "init_from", ""),
    ("reward.baseline=greedy", "reward.baseline", "greedy"),
    ("mle.optim.lr_multipliers=(('encoder/.*', 0),)", "mle.optim.lr_multipliers", None),
    ("reward.args.iou=0.9", "reward.args", {"iou": 0.9}),
    ("reward.args.iou_thresholds=(0.5,0.75)", "reward.args", {"iou_thresholds": (0.5, 0.75)}),
    ("reward.args.name=some text", "reward.args", {"name": "some text"}),
    ("data.train.args={'split':'val','num':3}", "data.train.args", {"split": "val", "num": 3}),
  ],
)
def test_overrides(override, path, value):
  key, _, text = override.partition("=")
  config = load_config(f"{CONFIG}:tiny", [(key, text)])
  for name in path.split("."):
    config = getattr(config, name)
  assert config == (value if value is not None else (("encoder/.*", 0.0),))


def test_later_overrides_win_and_args_keep_what_is_not_overridden():
  overrides = [("seed", "1"), ("seed", "2"), ("data.val.args.num", "5"), ("task.args.flip", "0")]
  config = load_config(f"{CONFIG}:tiny", overrides)
  assert config.seed == 2
  assert config.data.val.args["num"] == 5
  assert config.data.val.args["split"] == "val"
  assert config.task.args["flip"] == 0
  assert config.task.args["levels"] == 49


@pytest.mark.parametrize(
  "override, words",
  [
    ("sed=1", "Unknown config key config.sed. Did you mean config.seed?"),
    ("mle.optim.lrr=1", "Did you mean config.mle.optim.lr?"),
    ("rewards.steps=1", "Unknown config key config.rewards. Did you mean config.reward?"),
    ("mle.steps.x=1", "Unknown config key config.mle.steps.x: config.mle.steps is 20."),
    ("=1", "Unknown config key config.."),
    ("seed=1.5", "config.seed must be int, not 1.5 (float)"),
    ("seed=many", "config.seed must be int, not 'many' (str)"),
    ("seed=true", "config.seed must be int, not True (bool)"),
    ("mle.optim.lr=fast", "config.mle.optim.lr must be float, not 'fast'"),
    ("tensorboard=maybe", "config.tensorboard must be bool, not 'maybe'"),
    ("mle=5", "config.mle holds settings of its own; it cannot be 5"),
    ("reward.args=5", "config.reward.args must be a dict, not 5"),
    ("phases=reward", "not 'reward' (str). Write ('reward',)."),
    ("phases=('mle','tune')", "'tune'; phases are codes, mle, control, pseudo, active, "),
    ("phases=()", "config.phases is ()"),
    ("reward.baseline=loo", "it must be one of ('leave_one_out'"),
    ("mle.batch_size=0", "config.mle.batch_size is 0"),
    ("seed=-1", "config.seed is -1"),
  ],
)
def test_wrong_overrides(fails, override, words):
  message = fails(TINY, f"--config.{override}")
  assert words in message
  assert "\n" not in message


def test_unknown_key_is_answered_before_anything_heavy(tmp_path):
  args = [TINY, "--config.mle.stepz=3", f"--workdir={tmp_path}/run"]
  done = subprocess.run(
    [sys.executable, "-c", MEASURED, *args], cwd=ROOT, capture_output=True, text=True, timeout=300
  )
  code, seconds, heavy = done.stdout.split(maxsplit=2)
  assert done.stderr == (
    "error: Unknown config key config.mle.stepz. Did you mean config.mle.steps?\n"
  )
  assert code == "2"
  assert float(seconds) < 3  # of the processor: the machine may be busy with other things
  assert heavy.strip() == "[]"
  assert os.listdir(tmp_path) == []


# What comes to light once the parts are built, and before anything is written.


@pytest.mark.parametrize(
  "override, words",
  [
    ("task.fn=rtune.tasks.detection:Detectio", "Did you mean 'Detection'?"),
    ("task.args.levls=49", "Did you mean config.task.args.levels?"),
    ("task.args.levels=many", "config.task.args.levels must be int"),
    ("task.args.levels=1", "config.task.args.levels is 1; it must be at least 2"),
    ("task.args.image_size=50", "image_size=50 is not a multiple of config.model.encoder.patch"),
    ("data.train.args.nmu=4", "Did you mean config.data.train.args.num?"),
    ("data.train.args.num=many", "config.data.train.args.num must be int"),
    ("data.val.args={'num':4}", "config.data.val.args.split is missing"),
    ("data.val.args.split=test", "split is 'test'; it must be 'train' or 'val'"),
    ("reward.fn=rtune.rewards.boxes:recal", "Did you mean 'recall'?"),
    ("reward.fn=my_rewards.py:tight", "my_rewards.py: no such file"),
    ("reward.args.io=0.9", "Unknown config key config.reward.args.io."),
    ("reward.supervised.fn=rtune.tasks.confidence:expected", "Did you mean 'expected_iou'?"),
    ("mle.optim.name=adamm", "config.mle.optim.name must be one of"),
    ("mle.optim.lr=-1", "config.mle.optim.lr must be zero or more"),
    ("reward.optim.warmup_steps=10", "config.reward.optim.warmup_steps must be"),
    ("model.encoder.num_heads=3", "config.model.encoder.num_heads=3"),
    ("init_from=nowhere/weights.safetensors", "nowhere/weights.safetensors does not exist"),
    ("encoder_init=nowhere/vit.npz", "config.encoder_init: nowhere/vit.npz does not exist"),
    ("warm_start=nowhere", "config.warm_start: nowhere does not exist"),
    ("mle.mistakes.fn=", "config.mle.supervised need each other"),
    ("phases=('reward',)", "add 'mle' to config.phases, or set config.init_from"),
  ],
)
def test_parts_that_do_not_fit(fails, override, words):
  message = fails(TINY, f"--config.{override}")
  assert words in message
  assert "\n" not in message


@pytest.mark.parametrize(
  "override, words",
  [
    ("mle.batch_size=6", "config.mle.batch_size is 6"),
    ("reward.accumulate=2", "config.reward.batch_size is 4"),
    ("data.eval_batch_size=10", "config.data.eval_batch_size is 10"),
  ],
)
def test_batches_that_the_devices_cannot_share(fails, monkeypatch, override, words):
  mesh = AbstractMesh((4, 1), ("data", "fsdp"))
  monkeypatch.setattr(sharding, "make_mesh", lambda: mesh)
  message = fails(TINY, f"--config.{override}")
  assert words in message
  assert "4 device(s)" in message
  assert "use 8" in message or "use 4 or 8" in message


def test_problems_in_annotations_are_one_report(fails, tmp_path, write):
  good = write("good.json", coco(tmp_path))
  bad = coco(tmp_path)
  bad["images"] += [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "../../b.png"}]
  bad["images"] += [{"id": 3, "file_name": "missing.png"}]
  bad["annotations"] += [{"id": 2, "image_id": 9, "category_id": 9, "bbox": [0, 0, 5, 5]}]
  path = write("bad.json", bad)
  paths = [f"--config.data.{name}.args.annotations" for name in ("train", "val")]
  config = f"--config={CONFIG}:coco_json"
  message = fails(config, f"{paths[0]}={path}", f"{paths[1]}={good}", code=3)
  assert message.startswith(f"{path} cannot be used:\n- ")
  for words in ("id used before", "../../b.png", "missing.png", "image_id 9", "category_id 9"):
    assert words in message

  for content, words in (
    ('{"images": [', "is truncated"),
    ("GIF89a", "is not JSON"),
    ("", "is empty"),
    ({"images": [], "categories": []}, "'annotations'"),
  ):
    path = write("bad.json", content)
    message = fails(config, f"{paths[0]}={good}", f"{paths[1]}={path}", code=3)
    assert path in message
    assert words in message

  message = fails(config, f"{paths[0]}={tmp_path}/none.json", f"{paths[1]}={good}", code=3)
  assert f"{tmp_path}/none.json cannot be read: No such file" in message
  message = fails(config, f"{paths[0]}={good}", f"{paths[1]}=", code=3)
  assert "config.data.val.args.annotations" in message or "Annotation file" in message
  renamed = coco(tmp_path, category_id=4)
  renamed["categories"][0]["name"] = "bee"
  other = write("other.json", renamed)
  message = fails(config, f"{paths[0]}={good}", f"{paths[1]}={other}", code=3)
  assert "different categories: only the first has [3 'ant'], only the second [4 'bee']" in message


# Workdirs.


@pytest.fixture
def begun(tmp_path) -> pathlib.Path:
  """The workdir of a tiny run that has just begun."""
  prepared = setup.prepare(load_config(f"{CONFIG}:tiny"))
  run_files.write_config(tmp_path / "begun", prepared.config)
  return tmp_path / "begun"


def content(folder: pathlib.Path) -> dict[str, bytes]:
  files = (path for path in folder.rglob("*") if path.is_file())
  return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_workdir_of_another_config_shows_what_differs(begun, capsys):
  before = content(begun)
  args = [TINY, f"--workdir={begun}", "--config.seed=1", "--config.log_every=7"]
  assert main.main(args) == 2
  message = capsys.readouterr().err
  assert f"{begun} belongs to a run with another config:\n  seed: 0 -> 1\n" in message
  assert "--allow_config_change" in message
  assert "log_every" not in message

  shapes = ["--config.model.decoder.width=64", "--config.task.args.levels=33"]
  assert main.main([*args, *shapes, "--allow_config_change"]) == 2
  message = capsys.readouterr().err
  for line in ("model.decoder.width: 32 -> 64", "seed: 0 -> 1", "task.args.levels: 49 -> 33"):
    assert f"\n  {line}\n" in message
  assert "Use another --workdir." in message
  assert "Traceback" not in message
  assert content(begun) == before | {"run.lock": b""}


def test_changes_that_are_allowed_are_saved(begun):
  def settle(allow: bool, *overrides):
    config = setup.prepare(load_config(f"{CONFIG}:tiny", overrides)).config
    run_files.check_config(begun, config, allow)
    run_files.write_config(begun, config)
    assert configs.to_json(run_files.read_config(begun)) == configs.to_json(config)

  settle(False)
  settle(False, ("log_every", "7"), ("data.threads", "2"), ("checkpoints.every", "3"))
  settle(True, ("seed", "1"))
  with pytest.raises(UsageError, match="seed: 1 -> 2"):
    settle(False, ("seed", "2"))


def test_damaged_config_of_a_workdir_is_named(begun, capsys):
  (begun / "config.json").write_text('{"seed": ')
  assert main.main([TINY, f"--workdir={begun}"]) == 2
  assert f"{begun}/config.json is damaged" in capsys.readouterr().err


def test_unwritable_workdir(tmp_path, capsys):
  (tmp_path / "file").write_text("mine")
  folders = {f"{tmp_path}/file": "is a file, not a folder", "/proc/self/run": "cannot be written"}
  for folder, words in folders.items():
    assert main.main([TINY, f"--workdir={folder}"]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "error: workdir" in message
    assert "Traceback" not in message
  assert (tmp_path / "file").read_text() == "mine"


# Whole runs.


@pytest.fixture
def start(tmp_path, monkeypatch, quick_compiles):
  """Runs the command for two steps of imitation, (name, more flags) -> the workdir."""
  # As in one process of many tests: without settings that outlast them.
  monkeypatch.setattr(processes, "start", lambda auto=False: None)
  settings = ["phases=('mle',)", "mle.steps=2", "mle.optim.warmup_steps=1", "log_every=1"]
  settings += ["eval_every=0", "tensorboard=false"]

  def run(name: str, *more: str) -> pathlib.Path:
    flags = [f"--config.{setting}" for setting in (*settings, *more)]
    assert main.main([TINY, f"--workdir={tmp_path / name}", *flags]) == 0
    return tmp_path / name

  return run


def test_a_report_that_fails_is_a_warning(start, monkeypatch, capsys):
  def broken(*args, **kwargs):
    raise RuntimeError("no paper")

  monkeypatch.setattr(report, "write_report", broken)
  folder = start("run")
  told = capsys.readouterr().err
  assert "the report could not be written (RuntimeError: no paper); the run is complete" in told
  assert f"python -m rtune.report --workdir {folder}" in told
  assert "Traceback" not in told
  assert not (folder / "report.html").exists()
  # Nothing else of the run is missing: its results, its weights, the final table.
  assert set(run_files.read_results(folder)) == {"mle", "seconds"}
  assert run_files.weights_path(folder, "mle").is_file()
  assert told.splitlines()[-1].split()[0] == "mle"


def test_the_report_is_the_last_thing_and_can_be_left_out(start, monkeypatch):
  without = start("without", "report=false")
  assert not (without / "report.html").exists()
  assert (without / "results.json").is_file()
  # It is no other run with one: the same command writes it, and trains nothing.
  weights = run_files.weights_path(without, "mle")
  before = weights.stat().st_mtime_ns
  assert "<html" in (start("without") / "report.html").read_text()
  assert weights.stat().st_mtime_ns == before


NIGHT = ["fn=rtune.data.scenes.shapes:Shapes", "args.split=val", "args.num=10", "args.size=48"]


def test_more_splits_are_evaluated_too(start, capsys):
  folder = start("run", *(f"data.splits.night.{setting}" for setting in NIGHT), "report=false")
  values = run_files.read_results(folder)["mle"]
  of_val = {name.partition("/")[2] for name in values if name.startswith("val/")}
  of_night = {name.partition("/")[2] for name in values if name.startswith("night/")}
  assert {"AR", "AP", "boxes", "reward"} <= of_val == of_night
  last = read_metrics(folder)[-1]
  assert {"val/AR", "night/AR"} <= set(last)

  assert evaluate.main(["--workdir", str(folder), "--split", "night"]) == 0
  summary = json.loads((folder / "evaluation_mle_night.json").read_text())
  assert (summary["annotations"], summary["images"]) == ("night", 10)
  found = {f"night/{name}": value for name, value in summary["metrics"].items()}
  assert found == pytest.approx({name: values[name] for name in found}, abs=1e-6)
  assert {"night/AR", "night/reward"} <= set(found)

  capsys.readouterr()
  assert evaluate.main(["--workdir", str(folder), "--split", "day"]) == 2
  assert "no split 'day' in data.splits; there is night" in capsys.readouterr().err
  both = ["--split", "night", "--annotations", "x.json"]
  assert evaluate.main(["--workdir", str(folder), *both]) == 2
  assert "--split and --annotations" in capsys.readouterr().err


COUNTS = """
from rtune.metrics.metric import Metric


def counts(classes, factor):
  \"\"\"Boxes of an image, and of how many classes there are.\"\"\"

  def compute(state):
    return {"boxes": factor * sum(state) / len(state), "known": float(len(classes))}

  return Metric(list, lambda state, record, truth: [*state, len(record["boxes"])], compute)
"""


def test_several_metrics(start, write):
  path = write("mine.py", COUNTS)
  mine = {"fn": f"{path}:counts", "args": {"factor": 3.0}}
  official = {"fn": "rtune.metrics.boxes:coco_boxes", "args": {}}
  folder = start("run", f"metrics=({official}, {mine})", "report=false")
  values = run_files.read_results(folder)["mle"]
  # The first keeps its name; the classes are those that the task has learned from the data.
  assert values["val/boxes_2"] == pytest.approx(3 * values["val/boxes"])
  assert values["val/known"] == 6
  assert "val/AR" in values

  assert evaluate.main(["--workdir", str(folder)]) == 0
  found = json.loads((folder / "evaluation_mle.json").read_text())["metrics"]
  assert {f"val/{name}": value for name, value in found.items()} == pytest.approx(values, abs=1e-6)

  alone = start("alone", f"metrics=({mine},)", "report=false")
  assert set(run_files.read_results(alone)["mle"]) == {"val/boxes", "val/known", "val/reward"}


@pytest.mark.parametrize(
  "override, words",
  [
    ("metrics=({'fn':'rtune.metrics.boxes:coco_boxs'},)", "Did you mean 'coco_boxes'?"),
    (
      "metrics=({'fn':'rtune.metrics.boxes:coco_boxes','args':{'max_det':3}},)",
      "Did you mean config.metrics[0].args.max_dets?",
    ),
    ("metrics=({'args':{'max_det':3}},)", "config.metrics[0].fn is empty"),
    ("data.splits.night.args.split=val", "config.data.splits.night.fn is empty"),
    ("data.splits.reward.fn=rtune.data.scenes.shapes:Shapes", "config.data.splits names 'reward'"),
    ("data.splits.val.fn=rtune.data.scenes.shapes:Shapes", "config.data.splits names 'val'"),
    (
      "data.splits.night.fn=rtune.data.scenes.shapes:Shapes",
      "config.data.splits.night.args.split is missing",
    ),
  ],
)
def test_metrics_and_splits_that_do_not_fit(fails, override, words):
  message = fails(TINY, f"--config.{override}")
  assert words in message
  assert "\n" not in message
