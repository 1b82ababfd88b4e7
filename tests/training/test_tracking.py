"""A run with trackers is the run without; they get its log, and go on when it is resumed."""

import importlib.util
import json
import pathlib
import shutil

import pytest

from rtune.config.checks import TRACKERS
from rtune.config.names import resolve
from rtune.display import console
from rtune.display.logs import read_metrics
from rtune.errors import UsageError
from rtune.store import run_files
from rtune.training import loop, tracking

pytestmark = pytest.mark.usefixtures("quick_compiles")

TOYS = pathlib.Path(__file__).resolve().parents[1] / "toys"
toy_config = resolve(f"{TOYS / 'test_runs.py'}:toy_config")

# Trackers of a user. `Kept` writes what it gets beside the workdir, a file for each of its runs.
CODE = """
import json


class Kept:
  def __init__(self, session):
    self.id = session.id or "first"
    self._path = session.folder.parent / f"{session.folder.name}_{self.id}.jsonl"
    self._say({"opened": session.config["seed"]})

  def _say(self, what):
    with open(self._path, "a") as file:
      print(json.dumps(what), file=file)

  def numbers(self, step, values):
    self._say({"step": step, **values})

  def picture(self, step, name, path):
    self._say({"step": step, name: path.name})

  def close(self):
    self._say({"closed": True})


class Dead(Kept):
  def numbers(self, step, values):
    raise OSError("nobody is there")


class Down:
  def __init__(self, session):
    raise ConnectionError("refused")


not_callable = 3
"""


@pytest.fixture
def named(tmp_path) -> str:
  """File of the trackers, for names in a config."""
  file = tmp_path / "trackers.py"
  file.write_text(CODE)
  return str(file)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
  """A run without trackers. Read only."""
  folder = tmp_path_factory.mktemp("plain") / "run"
  loop.run(toy_config("tokens"), str(folder))
  return folder


def lines(path: pathlib.Path) -> list[dict]:
  return [json.loads(line) for line in path.read_text().splitlines()]


def same_weights(*folders: pathlib.Path) -> bool:
  for phase in ("mle", "reward"):
    files = [run_files.weights_path(folder, phase).read_bytes() for folder in folders]
    if files[0] != files[1]:
      return False
  return True


def test_it_gets_the_log_and_goes_on_with_the_run(plain, tmp_path, named):
  folder = tmp_path / "run"
  config = toy_config("tokens", trackers=(f"{named}:Kept",))
  loop.run(config, str(folder))
  assert same_weights(plain, folder)
  ids = json.loads((folder / tracking.FILE).read_text())
  assert ids == {f"{named}:Kept": "first"}
  got = lines(tmp_path / "run_first.jsonl")
  assert (got[0], got[-1]) == ({"opened": 0}, {"closed": True})
  merged: dict[int, dict] = {}
  for line in got[1:-1]:
    merged.setdefault(line["step"], {}).update(line)
  rows = read_metrics(folder)
  assert [row["step"] for row in rows] == sorted(merged)
  for row in rows:
    assert row.items() <= merged[row["step"]].items()
  last = merged[40]
  assert (last["reward"], last["reward_std"]) == (last["reward/mean"], last["reward/std_within"])
  assert last["frac_reward_zero_std"] == last["reward/alike"] and "reward" not in merged[10]

  # As if it had been killed after step 20; what came after that comes again.
  for step in (30, 40):
    shutil.rmtree(folder / "checkpoints" / str(step))
  run_files.weights_path(folder, "reward").unlink()
  results = run_files.read_results(folder)
  del results["reward"], results["seconds"]["reward"]
  (folder / run_files.RESULTS).write_text(json.dumps(results))
  loop.run(config, str(folder))
  again = lines(tmp_path / "run_first.jsonl")[len(got) :]
  assert {line["step"] for line in again[1:-1]} == {30, 40}
  assert not [*tmp_path.glob("run_*.jsonl")][1:], "one run there, too"


@pytest.mark.parametrize("kind", ["Dead", "Down"])
def test_a_dead_one_changes_nothing(plain, tmp_path, named, kind, capsys, monkeypatch):
  monkeypatch.setattr(console, "_warned", set())
  folder = tmp_path / "run"
  loop.run(toy_config("tokens", trackers=(f"{named}:{kind}",)), str(folder))
  assert same_weights(plain, folder)
  assert read_metrics(folder, times=False) == read_metrics(plain, times=False)
  assert capsys.readouterr().err.count("gets nothing from here on") == 1


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize("there", ["nothing", "a folder of its own"])
def test_a_missing_extra_is_told_before_anything_is_written(tmp_path, monkeypatch, name, there):
  """A folder `wandb`, which an earlier run has left where one works, is not the package."""
  monkeypatch.chdir(tmp_path)
  if there != "nothing":
    (tmp_path / name).mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
  found = importlib.util.find_spec(name)
  if found is not None and found.origin is not None:
    pytest.skip(f"{name} is installed")
  with pytest.raises(UsageError, match=rf"{name}'.*pip install 'rtune\[{name}\]'"):
    loop.run(toy_config("tokens", trackers=(name,)), str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("attribute", "message"), [("not_callable", "is no function"), ("Keptt", "Did you mean 'Kept'")]
)
def test_a_wrong_name_is_told_before_anything_is_written(tmp_path, named, attribute, message):
  with pytest.raises(UsageError, match=message):
    loop.run(toy_config("tokens", trackers=(f"{named}:{attribute}",)), str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", TRACKERS)
def test_every_known_name_is_a_tracker(name):
  assert callable(tracking.opener(name))


@pytest.mark.parametrize("text", ["", "[]", '{"wandb": 3}', "\0"])
def test_damaged_ids_begin_a_run_anew(tmp_path, named, text):
  folder = tmp_path / "run"
  folder.mkdir()
  (folder / tracking.FILE).write_text(text)
  config = toy_config("tokens", trackers=(f"{named}:Kept",))
  tracking.opened(config, folder, -1).close()
  assert json.loads((folder / tracking.FILE).read_text()) == {f"{named}:Kept": "first"}
