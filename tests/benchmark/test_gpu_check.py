"""The check of a GPU: time limits hold, what is found is kept, and small sizes run anywhere."""

import json
import os
import pathlib
import subprocess
import sys
import time
import zipfile

import pytest

from rtune.benchmark import gpu_check, gpu_results, limited, pace, wheels
from rtune.errors import UsageError

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch" / "gpu_check.sh"
SAID = """
tests/gpu/test_a.py::test_one[x-1] PASSED                [ 10%]
[gw3] [ 20%] FAILED tests/gpu/test_a.py::test_two
tests/gpu/test_a.py::test_hangs
[gw1] [ 30%] SKIPPED tests/gpu/test_b.py::test_three
SKIPPED [1] tests/gpu/conftest.py:10: needs a GPU
FAILED tests/gpu/test_a.py::test_two - assert 1 == 2
"""


def test_what_hangs_is_ended_with_all_that_it_started(tmp_path):
  child = f"import time, pathlib; time.sleep(4); pathlib.Path({str(tmp_path / 'alive')!r}).touch()"
  parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
  ticks = []
  with open(tmp_path / "log", "wb") as log:
    ended = limited.run(["-c", parent], 1.0, log, tick=lambda: ticks.append(1))
  assert (ended.code, ended.status) == (None, limited.STOPPED)
  assert ended.seconds < 4 and len(ticks) > 5
  time.sleep(max(0.0, 4.5 - ended.seconds))
  assert not (tmp_path / "alive").exists()


def test_exit_codes_and_output_are_told(tmp_path):
  text = (
    "import os, sys; print('out', os.environ['OURS']); print('bad', file=sys.stderr); sys.exit(3)"
  )
  with open(tmp_path / "out", "wb") as output, open(tmp_path / "err", "wb") as errors:
    ended = limited.run(["-c", text], 30.0, output, errors, {"OURS": "7"})
  assert (ended.code, ended.status) == (3, "exit code 3")
  assert (tmp_path / "out").read_text().split() == ["out", "7"]
  assert (tmp_path / "err").read_text().split() == ["bad"]


def test_commands_side_by_side_share_their_time(tmp_path, capfd):
  wait = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(30)"
  stuck = limited.Command(["-c", wait, str(tmp_path / "stuck")])
  given = limited.Command(["-c", "import os, sys; print('x'); sys.exit(int(os.environ['C']))"])
  fine, bad = (given._replace(environment={"C": code}) for code in "04")
  start = time.monotonic()
  # The third stays in one of two places; the last two have no place to begin in.
  codes = limited.run_together([fine, bad, stuck, stuck, fine], 3.0, 2)
  assert codes == [0, 4, None, None, None]
  assert time.monotonic() - start < 20 and (tmp_path / "stuck").exists()
  said = capfd.readouterr()
  assert (said.out, said.err.count("x")) == ("", 2)


def line(step, seen, **seconds):
  values = {"step": step, **{f"time/{name}": value for name, value in seconds.items()}}
  return pace.Line(values, seen)


def test_pace_leaves_compiling_and_evaluation_out():
  lines = [
    line(10, 100.0, data=1.0, update=9.0),  # compiles: half a second a step later
    line(20, 105.0, data=1.0, update=3.0),
    line(30, 125.0, data=1.0, update=3.0, eval=15.0),
    line(40, 130.0, data=1.0, update=3.0),
    line(50, 190.0, sample=3.0, update=4.0, data=0.0, score=0.0),
    line(60, 192.0, sample=0.5, update=0.5, data=0.5, score=0.25),
  ]
  found = pace.summarize(lines)
  mle = {"steps": 20, "step_seconds": 0.5, "data_share": 0.2, "compile_seconds": 6.0}
  assert found["mle"] == pytest.approx(mle | {"rest_share": 0.2})
  reward = {"steps": 10, "step_seconds": 0.2, "data_share": 0.25, "compile_seconds": 5.25}
  assert found["reward"] == pytest.approx(reward | {"rest_share": 0.125})
  assert pace.summarize(lines[:1])["mle"]["step_seconds"] is None
  assert pace.summarize([]) == {}


def test_lines_are_stamped_as_they_come(tmp_path):
  follower = pace.Follower(tmp_path)
  follower.tick()
  assert follower.lines() == []
  log = tmp_path / "metrics.jsonl"
  log.write_text('{"step": 1, "time/data": 0.5}\n')
  follower.tick()
  time.sleep(0.05)
  log.write_text(log.read_text() + '{"step": 2}\n{"step": 3}\n')
  follower.tick()
  follower.tick()
  one, two, three = follower.lines()
  assert (one.values["step"], one.seconds("data", "update")) == (1, 0.5)
  assert one.seen < two.seen == three.seen


def test_outcomes_of_tests_that_ended():
  told = gpu_results.outcomes(SAID)
  assert told["outcomes"] == {
    "tests/gpu/test_a.py::test_one[x-1]": "passed",
    "tests/gpu/test_a.py::test_two": "failed",
    "tests/gpu/test_b.py::test_three": "skipped",
  }
  assert told["skipped_because"] == ["needs a GPU"]
  assert told["failed_because"] == {"tests/gpu/test_a.py::test_two": "assert 1 == 2"}


def results():
  figure = {"seconds": 0.2, "floor_seconds": 0.1, "times_floor": 2.0, "note": ""}
  memory = {"peak": 2**31, "compiled": 2**30, "planned": 2.0**32, "error": 1.0}
  case = {"case": "recall-mle", "title": "small steps", "took_seconds": 9.0, "loop_share": 0.01}
  case |= {"figures": [figure | {"figure": "imitation step"}], "mfu": 0.5, "memory": memory}
  phase = {"steps": 50, "step_seconds": 0.25, "data_share": 0.1, "rest_share": 0.0}
  return {
    "dry": False,
    "parts": {
      "machine": {"status": "done", "seconds": 3.0, "device": "card | A", "flops": 1e15}
      | {"bandwidth": 3e12, "driver": "580", "versions": {"jax": "0.11"}},
      "tests": {"status": "exit code 1", "seconds": 9.0, **gpu_results.outcomes(SAID)},
      "recall": {"status": limited.STOPPED, "seconds": 120.0}
      | {"phases": {"mle": phase | {"compile_seconds": 12.0}}},
      "benchmark": {"status": "done", "seconds": 60.0}
      | {"cases": [case, {"case": "b", "title": "large", "failed": "out of memory"}]},
    },
  }


def test_one_table_has_all():
  found = results()
  found["loop_overhead"] = gpu_results.loop_overhead(found["parts"])
  assert found["loop_overhead"] == pytest.approx({"mle": 0.2})
  text = gpu_results.as_markdown(found)
  rows = [row for row in text.splitlines() if row.startswith("|")]
  assert text.count("| --- | --- | --- | --- | --- | --- |") == 1
  assert all(row.replace("\\|", "").count("|") == 7 for row in rows)
  for part in ("# rtune on card | A", "driver 580; jax 0.11", "1e+03 TFLOP/s, 3000 GB/s"):
    assert part in text
  for part in ("200.0 ms | 100.0 ms | 2.000", "peak 2.00, compiled 1.00 | plan 4.00 GiB"):
    assert part in text
  for part in ("plan off by 100.0 %", "MFU 50.0 %", "4 steps/s", "failed: out of memory", "20.0 %"):
    assert part in text
  assert "Small sizes" not in text
  assert "Small sizes" in gpu_results.as_markdown(found | {"dry": True})


def test_failures_are_those_of_parts_tests_and_cases():
  found = results()
  assert gpu_results.failures(found) == ["tests", "tests/gpu/test_a.py::test_two", "b"]


def test_names_of_packages():
  assert wheels.name_of("Ml_Collections>=1.0") == "ml-collections"
  assert wheels.name_of("ml_collections-1.1.0-py3-none-any.whl") == "ml-collections"
  assert {"jax", "flax", "pytest", "beartype"} <= {*map(wheels.name_of, wheels.requirements())}
  assert not {"ruff", "hotcoco"} & {*map(wheels.name_of, wheels.requirements())}


def test_what_is_missing_comes_from_the_folder(tmp_path, monkeypatch):
  name = "rtune_test_package"
  with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
    about, info = (
      "Metadata-Version: 2.1\nName: rtune-test-package\nVersion: 1.0\n",
      f"{name}-1.0.dist-info",
    )
    wheel.writestr(f"{name}.py", "value = 7\n")
    wheel.writestr(f"{info}/METADATA", about)
    wheel.writestr(
      f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    wheel.writestr(f"{info}/RECORD", "")
  target = tmp_path / "packages"
  assert wheels.install(tmp_path, target) == ["rtune-test-package"]
  assert "7" in (target / f"{name}.py").read_text()
  monkeypatch.setattr(wheels, "requirements", lambda: ["rtune-test-package", "no-such-package>=1"])
  with pytest.raises(UsageError, match=r"no-such-package\. Where there is a network, launch/"):
    wheels.install(tmp_path, target)
  with pytest.raises(UsageError, match="not a folder"):
    wheels.install(tmp_path / "none", target)


@pytest.fixture
def parts(monkeypatch):
  """Small parts in place of the true ones: a GPU, one that hangs, one after it."""

  def machine(check):
    told, _ = check.run("machine", ["-c", "pass"], 60.0)
    return told | {"platform": "gpu", "device": "card"}

  fakes = {
    "machine": machine,
    "tests": lambda check: check.run("tests", ["-c", "import time; time.sleep(99)"], 0.5)[0],
    "recall": lambda check: check.run("recall", ["-c", "print('here')"], 60.0)[0],
  }
  monkeypatch.setattr(gpu_check, "PARTS", fakes)
  return fakes


def test_one_that_hangs_takes_only_its_own_time(parts, tmp_path, capsys):
  assert gpu_check.main(["--out", str(tmp_path), "--parts", "tests,recall"]) == 1
  found = json.loads((tmp_path / "results.json").read_text())
  statuses = {name: part["status"] for name, part in found["parts"].items()}
  assert statuses == {"machine": "done", "tests": limited.STOPPED, "recall": "done"}
  assert "here" in (tmp_path / "recall.log").read_text()
  assert "| tests |  | stopped at its time limit" in (tmp_path / "results.md").read_text()
  assert "# rtune on card" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(parts, tmp_path, monkeypatch, capsys):
  told = {"status": "done", "seconds": 0.0, "platform": "cpu", "device": "cpu"}
  monkeypatch.setitem(parts, "machine", lambda check: told)
  assert gpu_check.main(["--out", str(tmp_path), "--parts", "recall"]) == 2
  assert "no GPU here (cpu)" in capsys.readouterr().err
  assert gpu_check.main(["--dry", "--out", str(tmp_path), "--parts", "recall"]) == 0
  assert gpu_check.main(["--parts", "everything"]) == 2
  assert gpu_check.main(["--wheels"]) == 2


def test_the_script_passes_its_flags_on():
  environment = {**os.environ, "PYTHON": sys.executable}
  done = subprocess.run(
    [SCRIPT, "--help"], env=environment, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  assert "--wheels" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_everything_runs_in_small(tmp_path):
  environment = {**os.environ, "PYTHON": sys.executable, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  command = [SCRIPT, "--dry", "--out", tmp_path, "--seconds", "1100"]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout + done.stderr
  found = json.loads((tmp_path / "results.json").read_text())["parts"]
  assert [part["status"] for part in found.values()] == ["done"] * 4
  assert set(found["tests"]["outcomes"].values()) == {"skipped"}
  assert set(found["recall"]["phases"]) == {"mle", "reward"}
  assert all(case["figures"] for case in found["benchmark"]["cases"])
  assert {path.name for path in tmp_path.glob("*.log")} == {f"{name}.log" for name in found}
