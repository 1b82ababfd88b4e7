"""Out of memory is one line with the plan's own estimates beside the settings that take less."""

import pathlib
import re

import jax
import pytest

from rtune.config.load import load_config
from rtune.errors import OutOfMemory
from rtune.plan import programs
from rtune.plan.chips import parse_topology
from rtune.plan.table import _lines
from rtune.training import memory
from rtune.training.setup import prepare

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = f"{ROOT / 'configs' / 'detection_recall.py'}:tiny"


@pytest.fixture(scope="module")
def setup():
  changes = {"reward.batch_size": "8", "reward.num_samples": "4", "model.dtype": "float32"}
  return prepare(load_config(TINY, [*changes.items()]))


def said_of(setup, text="RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\n  stack"):
  with pytest.raises(OutOfMemory) as caught, memory.told(setup):
    raise jax.errors.JaxRuntimeError(text)
  assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
  return str(caught.value)


def gib(config):
  """What the plan says the largest program of a reward step takes."""
  lines = _lines(programs.make_blueprint(config, 1), "reward", parse_topology("h100:1"), None)
  return f"{max(line.memory for line in lines) / 2**30:.3g} GiB"


def test_estimates_are_those_of_the_plan(setup):
  text = said_of(setup)
  assert text.startswith("out of memory: RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")
  step = "reward with batch_size 8, num_samples 4, accumulate 1"
  assert f"{step}; by the plan's formula it takes {gib(setup.config)} on a device" in text
  changes = re.findall(r"(reward\.\w+)=(\d+): ([\d.e-]+ GiB)", text)
  assert {name for name, _, _ in changes} == {
    *("reward.accumulate", "reward.batch_size", "reward.num_samples")
  }
  common = [("reward.batch_size", "8"), ("reward.num_samples", "4"), ("model.dtype", "float32")]
  for name, value, size in changes:
    assert size == gib(load_config(TINY, [*common, (name, value)])), name


def test_the_message_comes_without_an_estimate(setup, monkeypatch):
  """As where the code that it is made with asks for memory itself."""

  def fails(*_, **__):
    raise MemoryError

  monkeypatch.setattr(memory.memory, "update_memory", fails)
  text = said_of(setup)
  assert "Raise accumulate, lower batch_size, num_samples" in text and "GiB" not in text


def test_other_errors_of_the_device_are_as_they_were(setup):
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.told(setup):
    raise jax.errors.JaxRuntimeError("INTERNAL: something else")
