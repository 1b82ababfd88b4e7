"""A run whose config or workdir has changed goes on, or says in one line why it cannot."""

import json
import pathlib
import shutil

import pytest

from rtune import config as configs
from rtune.config.names import resolve
from rtune.errors import StorageError, UsageError
from rtune.store import run_files
from rtune.training import loop, restore

pytestmark = pytest.mark.usefixtures("quick_compiles")

TOYS = pathlib.Path(__file__).resolve().parents[1] / "toys"
toy_config = resolve(f"{TOYS / 'test_runs.py'}:toy_config")


def config_with(**changes) -> configs.Config:
  """The run of tokens in other words: `reward__steps=4`."""
  tree = json.loads(configs.to_json(toy_config("tokens")))
  for name, value in changes.items():
    *parents, last = name.split("__")
    node = tree
    for parent in parents:
      node = node[parent]
    node[last] = value
  return configs.parse(tree)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
  """A finished run of 10 + 30 steps with checkpoints every 10. Read only."""
  folder = tmp_path_factory.mktemp("finished") / "run"
  loop.run(config_with(), str(folder))
  return folder


@pytest.fixture
def half(finished, tmp_path) -> pathlib.Path:
  """The same run as it was after step 20, in the middle of tuning."""
  folder = tmp_path / "half"
  shutil.copytree(finished, folder)
  for step in (30, 40):
    shutil.rmtree(folder / "checkpoints" / str(step))
  (folder / "weights" / "reward.safetensors").unlink()
  results = run_files.read_results(folder)
  del results["reward"], results["seconds"]["reward"]
  (folder / "results.json").write_text(json.dumps(results))
  return folder


def one_line(folder: pathlib.Path, **changes) -> str:
  """What a changed run is refused with; its config.json is as before."""
  before = (folder / "config.json").read_text()
  with pytest.raises(UsageError) as refused:
    loop.run(config_with(**changes), str(folder), allow_config_change=True)
  assert (folder / "config.json").read_text() == before
  return str(refused.value)


def test_more_steps_of_the_running_phase_are_fine(half):
  results = loop.run(config_with(reward__steps=20), str(half), allow_config_change=True)
  assert set(results) == {"mle", "reward", "seconds"}


def test_fewer_steps_than_done(half):
  text = one_line(half, reward__steps=5)
  assert "step 20" in text and "has steps 10 to 15" in text


def test_other_steps_of_a_complete_phase(half):
  assert "has steps 25 to 55" in one_line(half, mle__steps=25)


def test_phases_in_another_order(half):
  assert "reward" in one_line(half, phases=("control", "mle", "reward"), control__steps=5)


def test_a_phase_that_is_gone(half):
  assert "does not run" in one_line(half, phases=("mle", "control"))


def test_another_optimizer(half):
  text = one_line(half, reward__optim__name="sgd")
  assert "does not fit this config" in text and "opt_state" in text


def test_lost_results_of_a_finished_run(finished, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(finished, folder)
  (folder / "results.json").unlink()
  found = loop.run(config_with(), str(folder))
  for phase, values in run_files.read_results(finished).items():
    if phase != "seconds":
      assert found[phase] == values


def test_lost_results_without_weights(finished, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(finished, folder)
  (folder / "results.json").unlink()
  (folder / "weights" / "mle.safetensors").unlink()
  with pytest.raises(UsageError, match=r"cannot be made anew.*phase mle"):
    loop.run(config_with(), str(folder))


@pytest.mark.parametrize(
  "text", ["", "{", "null", "[]", '{"mle": 3}', "\x00\x01", '{"mle": {"x": []}}', "[" * 100_000]
)
def test_damaged_results(finished, tmp_path, text):
  folder = tmp_path / "run"
  shutil.copytree(finished, folder)
  (folder / "results.json").write_text(text)
  found = loop.run(config_with(), str(folder))
  for phase, values in run_files.read_results(finished).items():
    if phase != "seconds":
      assert found[phase] == values


def test_damaged_results_without_weights(finished, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(finished, folder)
  (folder / "results.json").write_text("{")
  flip(folder / "weights" / "mle.safetensors")
  with pytest.raises(UsageError, match=r"missing or damaged.*cannot be made anew.*phase mle"):
    loop.run(config_with(), str(folder))


def flip(file: pathlib.Path) -> None:
  """One bit, in the last number."""
  content = bytearray(file.read_bytes())
  content[-3] ^= 4
  file.write_bytes(content)


def test_a_flipped_bit_in_weights_is_seen_by_all_who_read_them(half, finished, tmp_path):
  flip(half / "weights" / "mle.safetensors")
  shutil.rmtree(half / "checkpoints")  # so that tuning starts anew, from these weights
  with pytest.raises(StorageError, match=r"mle\.safetensors was altered") as caught:
    loop.run(config_with(), str(half))
  assert "\n" not in str(caught.value)
  with pytest.raises(StorageError, match=r"mle\.safetensors was altered"):
    loop.run(config_with(init_from=str(half), phases=("reward",)), str(tmp_path / "other"))
  run = restore.restore(half)
  with pytest.raises(StorageError, match=r"mle\.safetensors was altered"):
    restore.load_params(run, "mle")
  (half / "weights" / "manifest.json").unlink()  # changed on purpose
  assert restore.load_params(run, "mle")[0] == "mle"


def test_old_names_of_code_are_the_same_config(tmp_path):
  old = json.loads(configs.to_json(config_with()))
  old["data"]["train"] = {"fn": "rtune.data.shapes:Shapes", "args": {"num": 3}}
  (tmp_path / "config.json").write_text(json.dumps(old))
  old["data"]["train"]["fn"] = "rtune.data.scenes.shapes:Shapes"
  run_files.check_config(tmp_path, configs.parse(old), allow_change=False)
