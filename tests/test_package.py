"""What importing rtune costs, and what it must never bring along."""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def modules_after(statement: str) -> set[str]:
  """Top-level packages that a fresh interpreter has loaded after `statement`."""
  code = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  return set(done.stdout.split())


def test_importing_rtune_is_light():
  assert not modules_after("import rtune") & {"jax", "numpy", "flax", "grain", "orbax"}


def test_a_config_is_read_without_jax():
  modules = "rtune.main, rtune.config.load, rtune.config.names"
  assert not modules_after(f"import {modules}") & {"jax", "flax"}


@pytest.mark.parametrize(
  "module", ["rtune.training.loop", "rtune.data.sources.tfds", "rtune.evaluate"]
)
def test_tensorflow_stays_out(module):
  assert not modules_after(f"import {module}") & {"tensorflow", "tensorflow_datasets"}


def test_tests_that_ci_names_are_there():
  names = re.findall(r"tests/\S+\.py", (ROOT / ".ci" / "run").read_text())
  assert names
  assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted(PROJECT["optional-dependencies"]))
def test_an_extra_can_be_installed(extra):
  """Asks the package index. jax2onnx wants an older orbax-checkpoint than others do."""
  command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
  done = subprocess.run([*command, f"{ROOT}[{extra}]"], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-2000:]
