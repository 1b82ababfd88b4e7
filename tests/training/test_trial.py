"""A reward that cannot work is one line with its own file and line, before imitation starts."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from rtune import config as configs
from rtune import main
from rtune.config.load import load_config
from rtune.config.names import resolve
from rtune.devices import processes
from rtune.errors import RewardError, RtuneError, UsageError
from rtune.training import loop

pytestmark = pytest.mark.usefixtures("quick_compiles")

ROOT = pathlib.Path(__file__).resolve().parents[2]
toy_config = resolve(f"{ROOT / 'tests' / 'toys' / 'test_runs.py'}:toy_config")
HOST = "from rtune.rewards.mark import on_host\n\n@on_host\n"


def config_of(name: str) -> configs.Config:
  tree = json.loads(configs.to_json(toy_config("tokens")))
  tree["reward"].update(fn=name)
  return configs.parse(tree)


def refused(tmp_path, text, kind):
  """What a run with this reward is refused with."""
  file = tmp_path / "mine.py"
  file.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(kind) as caught:
    loop.run(config_of(f"{file}:reward"), str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()
  return str(caught.value)


@pytest.mark.parametrize(
  "body, words",
  [
    ("  x = {}\n  return x['missing']", "line 3: KeyError: 'missing'"),
    ("  import sys\n  sys.exit(0)", "line 3: SystemExit: 0"),
    ("  return prediction.tokens @ 'text'", "line 2: TypeError"),
    ("  return prediction.nothing", "line 2: AttributeError"),
  ],
)
def test_a_device_reward_that_raises(tmp_path, body, words):
  text = refused(tmp_path, f"def reward(prediction, truth):\n{body}\n", RewardError)
  assert f"mine.py, {words}" in text
  assert "\n" not in text


@pytest.mark.parametrize(
  "body, words",
  [
    ("  return {}['missing']", "KeyError: 'missing'"),
    ("  import sys\n  sys.exit(0)", "SystemExit: 0"),
  ],
)
def test_a_host_reward_that_raises(tmp_path, body, words):
  text = refused(tmp_path, f"{HOST}def reward(prediction, truth):\n{body}\n", RewardError)
  assert words in text and "mine.py" in text


@pytest.mark.parametrize("mark", ["", HOST])
@pytest.mark.parametrize("key", ["3", "('a', 'b')", "None"])
def test_names_of_parts_are_text(tmp_path, mark, key):
  body = f"def reward(prediction, truth):\n  return {{'reward': 1.0, {key}: 2.0}}\n"
  assert "a part named" in refused(tmp_path, mark + body, UsageError)


@pytest.mark.parametrize(
  "text, words",
  [
    ("def reward(prediction, truth:\n  pass\n", "mine.py, line 1: '(' was never closed"),
    (b"def reward(p, t):\n  return 1.0\0\n", "mine.py, line 2: a NUL byte"),
    ("x = 1\ny = 1 / 0\n", "mine.py, line 2: ZeroDivisionError"),
    ("import sys\nsys.exit(0)\n", "mine.py, line 2: SystemExit"),
    ("def reward(p, t):\n  return 'é'\n".encode("latin-1"), "mine.py"),
  ],
)
def test_a_file_that_cannot_be_loaded(tmp_path, text, words):
  said = refused(tmp_path, text, UsageError)
  assert words in said and "\n" not in said


@pytest.mark.parametrize("name", ["os:path", "math:pi", "json:decoder"])
@pytest.mark.parametrize(
  "key", ["reward", "task", "policy", "data.train", "reward.supervised", "mle.mistakes"]
)
def test_what_is_no_function_is_named(name, key):
  with pytest.raises(UsageError, match=rf"config\.{key}\.fn names {name}"):
    load_config(f"{ROOT / 'configs' / 'detection_recall.py'}:tiny", [(f"{key}.fn", name)])


def test_a_module_of_ours_is_no_function_either(tmp_path):
  with pytest.raises(RtuneError, match="which cannot be called"):
    loop.run(config_of("rtune.rewards.boxes:jnp"), str(tmp_path / "run"))


@pytest.mark.parametrize(
  "override, words",
  [
    ("seed=100000000000000000000", "config.seed is 1"),
    ("mle.batch_size=1099511627776", "config.mle.batch_size is 1099511627776"),
    ("model.encoder.dropout=2", "config.model.encoder.dropout is 2"),
    ("model.decoder.drop_path=5", "config.model.decoder.drop_path is 5"),
    ("reward.kl=1e999", "config.reward.kl is inf"),
    ("mle.optim.lr=-1", "config.mle.optim.lr must be zero or more"),
    ("reward.fn=math:pi", "which is float, not a function"),
  ],
)
def test_values_out_of_range_are_named_before_jax_is_imported(tmp_path, override, words):
  program = (
    "import sys\nfrom rtune import main\ncode = main.main(sys.argv[1:])\n"
    "print(code, 'jax' in sys.modules)\n"
  )
  args = [f"--config={ROOT / 'configs' / 'detection_recall.py'}:tiny", f"--config.{override}"]
  done = subprocess.run(
    [sys.executable, "-c", program, *args, f"--workdir={tmp_path / 'run'}"],
    capture_output=True, text=True, cwd=ROOT, timeout=60,
  )  # fmt: skip
  assert done.stdout == "2 False\n", done.stderr
  assert words in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_device_that_is_not_there_is_one_line(tmp_path):
  environment = {**os.environ, "JAX_PLATFORMS": "no_such_device"}
  program = "import sys\nfrom rtune import main\nsys.exit(main.main(sys.argv[1:]))\n"
  args = [f"--config={ROOT / 'configs' / 'detection_recall.py'}:tiny"]
  done = subprocess.run(
    [sys.executable, "-c", program, *args, f"--workdir={tmp_path / 'run'}"],
    env=environment, capture_output=True, text=True, cwd=ROOT, timeout=60,
  )  # fmt: skip
  assert done.returncode == 2
  assert "Traceback" not in done.stderr
  assert "JAX_PLATFORMS='no_such_device'" in done.stderr.splitlines()[-1]


EXITS = "import sys\n\ndef get_config(variant):\n  sys.exit(0)\n"


def test_a_config_that_exits_is_an_error(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(processes, "start", lambda auto: None)
  (tmp_path / "mine.py").write_text(EXITS)
  code = main.main([f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'run'}"])
  assert code == 2
  assert "mine.py, line 4: SystemExit: 0" in capsys.readouterr().err
