"""Tables of samples are of the model as it trains, and leave training as it is."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import optax
import pytest
from PIL import Image

from rtune.config import to_json
from rtune.config.names import resolve
from rtune.display.clock import Clock
from rtune.display.logs import MetricLog, read_metrics
from rtune.errors import StorageError
from rtune.store import run_files, sample_table
from rtune.training import loop, restore, setup
from rtune.training.evaluation import evaluate_phase, predictor
from rtune.training.open_data import open_source
from rtune.training.optim import Optimizer
from rtune.training.phases import phase_of
from rtune.training.samples import Samples
from rtune.training.update import POLICY, State

TOYS = pathlib.Path(__file__).resolve().parents[1] / "toys"
toy_config = resolve(f"{TOYS / 'test_runs.py'}:toy_config")
NAMES = ("tokens", *(pytest.param(x, marks=pytest.mark.slow) for x in ("labels", "image", "agent")))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
  """Name -> workdir of a finished run with tables every 10 of 10 + 30 steps. Read only."""
  done = {}

  def find(name):
    if name not in done:
      done[name] = tmp_path_factory.mktemp(name) / "run"
      loop.run(toy_config(name, samples_every=10), str(done[name]))
    return done[name]

  return find


def weights(folder: pathlib.Path) -> list[bytes]:
  return [run_files.weights_path(folder, phase).read_bytes() for phase in ("mle", "reward")]


def files(folder: pathlib.Path) -> dict[str, bytes]:
  """The table and its pictures."""
  found = {path.name: path.read_bytes() for path in (folder / sample_table.FOLDER).iterdir()}
  return found | {"table": (folder / sample_table.FILE).read_bytes()}


# The first tests, before `quick_compiles` holds for this module: last bits matter here.
@pytest.mark.parametrize("name", NAMES)
def test_training_is_the_same_with_and_without(drawn, name, tmp_path):
  loop.run(toy_config(name), str(tmp_path / "run"))
  assert not (tmp_path / "run" / sample_table.FILE).exists()
  assert weights(drawn(name)) == weights(tmp_path / "run")
  rows = [read_metrics(folder, times=False) for folder in (drawn(name), tmp_path / "run")]
  assert rows[0] == rows[1]


def test_a_resumed_run_has_the_tables_of_the_uninterrupted_one(drawn, tmp_path):
  """As if it had been killed behind step 20, with tables of later steps on the disk."""
  whole, resumed = drawn("tokens"), tmp_path / "run"
  shutil.copytree(whole, resumed)
  for step in (30, 40):
    shutil.rmtree(resumed / "checkpoints" / str(step))
  run_files.weights_path(resumed, "reward").unlink()
  results = run_files.read_results(resumed)
  del results["reward"], results["seconds"]["reward"]
  (resumed / run_files.RESULTS).write_text(json.dumps(results))
  with open(resumed / sample_table.FILE, "a") as file:
    file.write('{"step": 33, "torn')
  (resumed / sample_table.FOLDER / "00000033_5.png").write_bytes(b"of other settings")
  loop.run(toy_config("tokens", samples_every=10), str(resumed))
  assert files(resumed) == files(whole)


@pytest.mark.usefixtures("quick_compiles")
@pytest.mark.parametrize("name", NAMES)
def test_the_table_says_what_was_drawn(drawn, name):
  folder = drawn(name)
  rows = sample_table.read(folder)
  assert [row["step"] for row in rows] == [step for step in (10, 20, 30, 40) for _ in range(20)]
  assert [row["phase"] for row in rows] == ["mle"] * 20 + ["reward"] * 60
  answers = ["greedy", *(f"sample {n}" for n in range(1, 5))]
  assert [row["answer"] for row in rows] == answers * 16
  assert [row["image"] for row in rows[:20:5]] == [0, 10, 20, 31], "spread over 32"

  # What evaluation finds for the best answers of the same weights.
  run = restore.restore(folder)
  judged = evaluate_phase(run, "reward", predictor(run), open_source(run), (), 0).judged
  for row in rows[60::5]:
    assert row["reward"] == pytest.approx(judged[row["image"]].reward, rel=1e-4, abs=1e-5)
  if name in ("tokens", "labels"):
    best = {row["image"]: row["log_prob"] for row in rows[60:] if row["answer"] == "greedy"}
    assert all(row["log_prob"] <= best[row["image"]] + 1e-5 for row in rows[60:]), "the mode"
  for row in rows:
    with Image.open(folder / row["picture"]) as picture:
      assert picture.format == "PNG" and picture.width > 6 * 300, "truth and five answers"
  assert len(files(folder)) == 1 + 16


ON_EIGHT = """
import sys
from rtune.config import from_json
from rtune.training import loop
loop.run(from_json(sys.stdin.read()), sys.argv[1])
"""


@pytest.mark.slow
def test_eight_devices_draw_what_one_draws(drawn, tmp_path):
  """There are fewer images than devices."""
  flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
  text = to_json(toy_config("tokens", samples_every=10))
  command = [sys.executable, "-c", ON_EIGHT, str(tmp_path / "run")]
  subprocess.run(command, input=text, text=True, env=os.environ | flags, check=True, timeout=500)
  both = [sample_table.read(folder) for folder in (drawn("tokens"), tmp_path / "run")]
  for ours, theirs in zip(*both, strict=True):
    names = ("step", "phase", "image", "answer")
    assert [ours[name] for name in names] == [theirs[name] for name in names]
    if ours["answer"] == "greedy":
      assert ours["log_prob"] == pytest.approx(theirs["log_prob"], rel=1e-3)


@pytest.mark.usefixtures("quick_compiles")
def test_pictures_are_passed_on(tmp_path):
  """To trackers, and so to TensorBoard."""
  got = tmp_path / "got"
  (tmp_path / "mine.py").write_text(f"""
import pathlib


class Pictures:
  id = "mine"

  def __init__(self, session):
    self.got = []

  def numbers(self, step, values):
    pass

  def picture(self, step, name, path):
    self.got.append(f"{{step}} {{name}} {{path.name}}")

  def close(self):
    pathlib.Path({str(got)!r}).write_text("\\n".join(self.got))
""")
  config = toy_config("tokens", samples_every=20, trackers=(f"{tmp_path / 'mine.py'}:Pictures",))
  loop.run(config, str(tmp_path / "run"))
  assert got.read_text().splitlines() == [  # step 20 of tuning, which begins after 10
    f"30 samples/{place} 00000030_{place}.png" for place in (0, 10, 20, 31)
  ]


def opened(folder: pathlib.Path, every: int) -> tuple[Samples, State]:
  """Tables of a phase that has just begun, and its state."""
  made = setup.prepare(toy_config("tokens", samples_every=every))
  log = MetricLog(folder, resume_step=-1, process_index=1)  # of a process that writes none
  samples = Samples(made, folder, log, Clock(), phase_of("mle"), 0, 0)
  params = made.policy.init(jax.random.key(0), setup.first_inputs(made))
  return samples, POLICY.init(params, Optimizer(*optax.sgd(0.1), optax.tree.norm))


@pytest.mark.usefixtures("quick_compiles")
def test_nothing_is_drawn_where_it_is_off_or_not_time(tmp_path):
  for every, done in ((0, 10), (10, 5)):
    samples, state = opened(tmp_path, every)
    samples.look(done, state)
    assert not [*tmp_path.iterdir()]


@pytest.mark.usefixtures("quick_compiles")
def test_a_disk_that_refuses_is_named(tmp_path):
  samples, state = opened(tmp_path, 10)
  (tmp_path / sample_table.FOLDER).write_text("a file in the way")
  with pytest.raises(StorageError, match=r"samples/.*could not be written"):
    samples.look(10, state)


def row(step: int, **changes) -> dict:
  shared = {"step": step, "phase": "mle", "image": 0, "image_id": "a", "answer": "greedy"}
  return shared | {"log_prob": -1.0, "reward": None, "parts": {}, "text": ["é"]} | changes


def test_lines_are_kept_replaced_and_dropped(tmp_path):
  for step in (10, 20, 30, 20):  # the last: made again after a kill
    sample_table.add(tmp_path, [row(step), row(step, answer="sample 1")])
  assert [one["step"] for one in sample_table.read(tmp_path)] == [10, 10, 20, 20]
  for step in (10, 20):
    path = sample_table.picture_path(tmp_path, step, 3)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
  (tmp_path / sample_table.FOLDER / "mine_30.png").write_bytes(b"")
  sample_table.drop_after(tmp_path, 10)
  assert [one["step"] for one in sample_table.read(tmp_path)] == [10, 10]
  names = sorted(path.name for path in (tmp_path / sample_table.FOLDER).iterdir())
  assert names == ["00000010_3.png", "mine_30.png"]
  sample_table.drop_after(tmp_path / "empty", 0)
  assert sample_table.read(tmp_path / "empty") == []


@pytest.mark.parametrize(
  "line",
  ["", "[]", "{}", "nul", "\0", '{"step": "3"}', *(
    json.dumps(row(1, **change)) for change in (
      {"parts": []}, {"reward": "high"}, {"parts": {"a": []}}, {"image": None}, {"text": "x"}
    )
  )],
)  # fmt: skip
def test_lines_of_anyone_are_passed_over(tmp_path, line):
  text = json.dumps(row(5)) + "\n" + line + "\n"
  (tmp_path / sample_table.FILE).write_text(text)
  assert sample_table.read(tmp_path) == [row(5)]
