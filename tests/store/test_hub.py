"""Models on a hub, by a stand-in of its HTTP interface."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from rtune.config import names
from rtune.errors import UsageError
from rtune.store import hub

STAND_IN = pathlib.Path(__file__).with_name("hub_server.py")
environment, serving = (names.resolve(f"{STAND_IN}:{name}") for name in ("environment", "serving"))
needs_library = pytest.mark.skipif(
  importlib.util.find_spec("huggingface_hub") is None,
  reason="needs huggingface_hub (pip install 'rtune[hub]')",
)
WORKDIR = {
  **{"config.json": b"{}", "results.json": b"{}", "weights/mle.safetensors": b"imitated"},
  **{"README.md": b"# A card", "evil.py": b"boom", "corpus.npz": b"words", "big/other.bin": b"0"},
}
SHARDED = {
  "model.safetensors.index.json": json.dumps({"weight_map": {"a": "x"}}).encode(),
  **{f"model-0000{n}-of-00002.safetensors": b"shard" for n in (1, 2)},
  **{"pytorch_model.bin": b"pickle", "model.fp16.safetensors": b"half"},
}
# Prints a line for each name: "path" and what is there, or the type and text of an error.
PROGRAM = """
import sys
from rtune.errors import RtuneError
from rtune.store import hub
for name in sys.argv[1:]:
  try:
    path = hub.local_copy(name, "config.warm_start")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    print("path", path, *(f.relative_to(path.parent if path.is_file() else path) for f in files))
  except RtuneError as error:
    print(type(error).__name__, error)
"""


def fetch(environment, *names):
  command = [sys.executable, "-c", PROGRAM, *names]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()


@pytest.fixture
def server():
  with serving() as found:
    found.repos = {"me/run": dict(WORKDIR), "them/vit": dict(SHARDED)}
    yield found


def test_paths_of_this_machine_stay_as_they_are():
  assert hub.local_copy("runs/hf", "config.warm_start") == pathlib.Path("runs/hf")
  assert hub.local_copy("~/runs", "config.warm_start") == pathlib.Path.home() / "runs"


@pytest.mark.parametrize(
  "name",
  [
    "hf://",
    "hf://user",
    "hf://user/",
    "hf:///model",
    "hf://user/name@",
    "hf://a b/c",
    "hf://u/n@v/",
  ],
)
def test_what_is_no_name_is_told(name):
  with pytest.raises(UsageError, match=r"config\.init_from is .*; write hf://user/name"):
    hub.local_copy(name, "config.init_from")


def test_the_missing_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  for call in (
    lambda: hub.local_copy("hf://me/run", "config.warm_start"),
    lambda: hub.push(pathlib.Path(), "me/run", False, ""),
  ):
    with pytest.raises(UsageError, match=r"pip install 'rtune\[hub\]'") as caught:
      call()
    assert "\n" not in str(caught.value)


@needs_library
def test_of_a_workdir_all_but_what_could_run(server, tmp_path):
  (line,) = fetch(environment(server, tmp_path), "hf://me/run")
  assert line.split()[2:] == [
    "config.json",
    "corpus.npz",
    "results.json",
    "weights/mle.safetensors",
  ]
  folder = pathlib.Path(line.split()[1])
  assert (folder / "weights" / "mle.safetensors").read_bytes() == b"imitated"


@needs_library
def test_files_revisions_and_shards(server, tmp_path):
  commit = server.commit("me/run")
  lines = fetch(
    environment(server, tmp_path),
    f"hf://me/run@{commit}",
    "hf://me/run@main/weights/mle.safetensors",
    "hf://them/vit/model.safetensors.index.json",
    "hf://them/vit",
  )
  assert all(line.startswith("path ") for line in lines), lines
  assert commit in lines[0] and lines[1].split()[2] == "mle.safetensors"
  shards = {f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
  beside = {path.name for path in pathlib.Path(lines[2].split()[1]).parent.iterdir()}
  assert beside == shards | {"model.safetensors.index.json"}
  assert {*lines[3].split()[2:]} == beside, "neither pickles nor other precisions"


@needs_library
def test_what_is_not_there_is_told(server, tmp_path):
  names = ("hf://me/none", "hf://me/run@v9", "hf://me/run/weights/reward.safetensors", "hf://-a/b")
  lines = fetch(environment(server, tmp_path), *names)
  says = ("private: log in with", "no such branch, tag or commit", "look at the files of me/run")
  for name, line, said in zip(names, lines, (*says, "Names are user/name"), strict=True):
    assert line.startswith(f"UsageError config.warm_start: {name} ") and said in line


@needs_library
def test_without_a_network_there_is_what_was_fetched_before(server, tmp_path):
  there = environment(server, tmp_path)
  (before,) = fetch(there, "hf://me/run")
  gone = there | {"HF_ENDPOINT": "http://127.0.0.1:9"}
  again, never = fetch(gone, "hf://me/run", "hf://them/vit")
  assert again == before
  assert never.startswith("DataError config.warm_start: hf://them/vit cannot be fetched")
  assert never.endswith("there is only what was fetched before (kept in HF_HOME).")
