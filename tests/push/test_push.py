"""A trained model sent to a hub, its card, and the way back."""

import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from rtune import __main__ as cli
from rtune.config import names
from rtune.errors import UsageError
from rtune.push import __main__ as push
from rtune.push.card import _short
from rtune.push.write import write
from rtune.store import run_files

STAND_IN = pathlib.Path(__file__).resolve().parents[1] / "store" / "hub_server.py"
environment, serving = (names.resolve(f"{STAND_IN}:{name}") for name in ("environment", "serving"))
needs_library = pytest.mark.skipif(
  importlib.util.find_spec("huggingface_hub") is None,
  reason="needs huggingface_hub (pip install 'rtune[hub]')",
)


@pytest.fixture(scope="module")
def control(tiny_run, tmp_path_factory):
  """The tiny run as if its last phase had been the control."""
  folder = tmp_path_factory.mktemp("other") / "more_imitation"
  shutil.copytree(tiny_run, folder)
  results = run_files.read_results(folder)
  results["control"] = {name: value + 1 for name, value in results.pop("reward").items()}
  (folder / run_files.RESULTS).write_text(json.dumps(results))
  run_files.weights_path(folder, "reward").rename(run_files.weights_path(folder, "control"))
  return folder


def rows_of(text, title):
  """The table of a section, each row as its cells."""
  section = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
  lines = [line for line in section.splitlines() if line.startswith("|")]
  return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_card_says_what_the_run_was(tiny_run, control, tmp_path):
  out = tmp_path / "out"
  write(tiny_run, out, "me/recall", compare=str(control), license="apache-2.0")
  text = (out / "README.md").read_text()
  head, _, body = text.removeprefix("---\n").partition("\n---\n")
  assert head.splitlines()[:2] == ["library_name: rtune", 'license: "apache-2.0"']
  assert "## License\n\napache-2.0\n" in body and 'rtune.load("hf://me/recall")' in body
  names, _, *rows = rows_of(body, "Results")
  assert names[1] == "AR" and [row[0] for row in rows] == [
    *("MLE", "control (more_imitation)", "tuned")
  ]
  results = run_files.read_results(tiny_run)
  for row, values in zip(rows, (results["mle"], None, results["reward"]), strict=True):
    values = values or run_files.read_results(control)["control"]
    assert [float(cell) for cell in row[1:]] == pytest.approx(
      [values[f"val/{name}"] for name in names[1:]], rel=1e-3, abs=1e-9
    )
  facts = dict(row for row in rows_of(body, "What it was trained for")[2:])
  assert facts["reward"].startswith("`rtune.rewards.boxes:recall(")
  assert facts["task"].startswith("`rtune.tasks.detection:Detection(")
  training = rows_of(body, "Training")[2:]
  assert [row[:4] for row in training] == [["MLE", "20", "8", ""], ["tuned", "10", "4", "3"]]


def test_without_a_license_the_card_says_so(tiny_run, tmp_path):
  write(tiny_run, tmp_path / "out", "me/recall")
  text = (tmp_path / "out" / "README.md").read_text()
  assert "No license was given." in text and "license:" not in text.partition("\n---\n")[0]


@pytest.mark.parametrize(
  "value, shown",
  [
    ("/home/me/secret/train.json", "train.json"),
    ("rewards/mine.py:tight", "mine.py:tight"),
    ("rtune.rewards.boxes:recall", "rtune.rewards.boxes:recall"),
    ("hf://them/vit@v1", "hf://them/vit@v1"),
    ("a|b", "a/b"),
    (0.5, "0.5"),
  ],
)
def test_what_a_card_shows_of_a_value(value, shown):
  assert _short(value) == shown


def test_dry_writes_the_folder_and_needs_nothing(tiny_run, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  out = tmp_path / "out"
  flags = [f"--workdir={tiny_run}", "--to=me/recall", f"--dry={out}"]
  assert push.main([*flags, "--phase=reward"]) == 0
  files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
  assert files == {
    *("README.md", "config.json", "results.json", "data_warnings.json"),
    *("weights/reward.safetensors", "weights/manifest.json"),
    *(f"weights/{path.name}" for path in (tiny_run / "weights").glob("reward_best_*")),
  }
  assert run_files.read_config(out) == run_files.read_config(tiny_run)
  assert push.main(flags) == 2, "the folder is not empty"
  assert push.main(flags[:2]) == 2, "sending needs the library"


@pytest.mark.parametrize(
  "given, said",
  [
    ({"phases": ["codes"]}, "--phase codes: .* has no weights of it; there is mle, reward"),
    ({"compare": "tokens"}, "--compare .*: it was judged by other data"),
  ],
)
def test_what_cannot_be_sent_is_told(tiny_run, tmp_path, given, said):
  if "compare" in given:
    shutil.copytree(tiny_run, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"]["val"]["args"]["num"] = 11
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    given = {"compare": str(tmp_path / "run")}
  with pytest.raises(UsageError, match=said):
    write(tiny_run, tmp_path / "out", "me/recall", **given)


@pytest.mark.parametrize("name", ["recall", "me/recall@v1", "me/recall/file", "hf://me/recall", ""])
def test_the_name_is_checked_first(name, capsys):
  assert push.main(["--workdir=nowhere", f"--to={name}"]) == 2
  assert "must be user/name" in capsys.readouterr().err


BACK = """
import pathlib
import sys
import jax
import numpy as np
import rtune
from rtune.store import run_files

here, there = rtune.load(sys.argv[1]), rtune.load("hf://me/recall")
jax.tree.map(np.testing.assert_array_equal, here.params, there.params)
weights = run_files.find_weights("hf://me/recall", "config.warm_start")
own = run_files.weights_path(pathlib.Path(sys.argv[1]), "mle")
assert weights.read_bytes() == own.read_bytes()
"""


@needs_library
def test_what_is_sent_comes_back(tiny_run, tmp_path):
  with serving() as server:
    around = environment(server, tmp_path)

    def run(*command):
      done = subprocess.run(
        [sys.executable, *command], env=around, capture_output=True, text=True, timeout=300
      )
      return done.returncode, done.stderr

    flags = ["-m", "rtune", "push", f"--workdir={tiny_run}", "--to=me/recall"]
    code, said = run(*flags)
    assert code == 0 and said.splitlines()[-1] == f"sent to {server.url}/me/recall", said
    assert {"README.md", "config.json", "weights/mle.safetensors"} <= server.repos[
      "me/recall"
    ].keys()
    code, said = run("-c", BACK, tiny_run)
    assert code == 0, said
    around["HF_TOKEN"] = "hf_another"
    code, said = run(*flags)
    assert code == 2 and "you may not write there (401); log in with" in said.splitlines()[-1]
    around["HF_ENDPOINT"] = "http://127.0.0.1:9"
    code, said = run(*flags)
    assert code == 5 and said.splitlines()[-1].startswith("error: --to me/recall: ConnectError")


def test_the_command_is_listed():
  assert cli.COMMANDS["push"][0] == "rtune.push"


@needs_library
@pytest.mark.slow
def test_a_run_and_a_command_start_from_a_hub(tiny_run, tmp_path):
  """Weights by name in a config, and a workdir by name on the command line."""
  write(tiny_run, tmp_path / "sent", "me/recall")
  with serving() as server:
    sent = [path for path in (tmp_path / "sent").rglob("*") if path.is_file()]
    server.repos["me/recall"] = {
      path.relative_to(tmp_path / "sent").as_posix(): path.read_bytes() for path in sent
    }
    around = environment(server, tmp_path / "home")
    config = pathlib.Path(__file__).resolve().parents[2] / "configs" / "detection_recall.py"
    Image.new("RGB", (48, 48), (200, 100, 0)).save(tmp_path / "picture.png")
    common = [f"--config={config}:tiny", "--config.reward.steps=1", "--config.report=false"]
    for command in (
      ["train", f"--workdir={tmp_path / 'tuned'}", *common, "--config.init_from=hf://me/recall"],
      [
        *("train", f"--workdir={tmp_path / 'warm'}", *common, "--config.mle.steps=1"),
        *("--config.mle.optim.warmup_steps=0", "--config.warm_start=hf://me/recall@main"),
      ],
      ["predict", "--workdir=hf://me/recall", f"--out={tmp_path / 'out'}", "picture.png"],
    ):
      done = subprocess.run(
        [sys.executable, "-m", "rtune", *command],
        env=around,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
      )
      assert done.returncode == 0, done.stderr
      assert any(asked.startswith("GET /api/models/me/recall") for asked in server.asked)
      server.asked.clear()
  assert (tmp_path / "out" / "predictions.json").is_file()
