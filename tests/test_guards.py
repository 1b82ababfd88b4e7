"""A flawed build fails: without a guard, the test that looks at it does not pass.

Each guard of tests/guards.py is taken out of rtune in turn, by rewriting its line. That the same
tests pass with it is what they show where they stand.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from rtune.config.names import resolve

TESTS = pathlib.Path(__file__).resolve().parent
GUARDS = resolve(f"{TESTS / 'guards.py'}:GUARDS")
RESULTS = resolve(f"{TESTS / 'guards.py'}:RESULTS")


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
  """Node id -> (outcome, failure) of each guard's test without it: all in one process."""
  file = tmp_path_factory.mktemp("guards") / "results.jsonl"
  environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
  environment |= {RESULTS: str(file), "PYTEST_ADDOPTS": ""}
  command = [sys.executable, "-m", "pytest", "-q", "-p", "guards", "-p", "no:xdist"]
  tests = [f"tests/{guard.test}" for guard in GUARDS.values()]
  done = subprocess.run(
    [*command, *tests],
    env=environment,
    cwd=TESTS.parent,
    capture_output=True,
    text=True,
    timeout=500,
  )
  assert done.returncode == 1 and file.is_file(), done.stdout + done.stderr
  rows = map(json.loads, file.read_text().splitlines())
  return {row["test"]: (row["outcome"], row["failure"]) for row in rows}


@pytest.mark.parametrize("name", GUARDS)
def test_without_its_guard_a_test_fails(flawed, name):
  guard = GUARDS[name]
  outcome, failure = flawed[f"tests/{guard.test}"]
  assert outcome == "failed"
  assert guard.failure in failure
