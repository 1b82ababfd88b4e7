"""What rtune/benchmark/gpu_check.py has found, as one table, and what of it went wrong."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rtune.benchmark.limited import STOPPED
from rtune.display.console import number

_OUTCOME = re.compile(r"\b(PASSED|FAILED|SKIPPED|ERROR)\b")
_TEST = re.compile(r"tests/\S+::\S+")
_SKIPPED = re.compile(r"^SKIPPED \[\d+\] \S+ (.*)$", re.MULTILINE)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/\S+::\S+) - (.*)$", re.MULTILINE)
# Rows of the benchmark that add up to a step without its data.
_ALONE = {"mle": ("imitation step",)}
_ALONE["reward"] = tuple(f"reward step: {part}" for part in ("sample", "score", "update"))
_COLUMNS = ("part", "figure", "result", "floor", "times floor", "note")


def outcomes(said: str) -> dict[str, Any]:
  """Of pytest's output: how each test that ended has ended, and what is said of those that failed
  or were left out.
  """
  found = {}
  for line in said.splitlines():
    test, outcome = _TEST.search(line), _OUTCOME.search(line)
    if test and outcome:
      found[test.group()] = outcome.group().lower()
  skipped = sorted({*_SKIPPED.findall(said)})
  return {
    "outcomes": found,
    "skipped_because": skipped,
    "failed_because": dict(_FAILED.findall(said)),
  }


def failures(results: Mapping[str, Any]) -> list[str]:
  """Parts, tests and cases that did not do what they were to do."""
  parts = results["parts"]
  # The run of two minutes may go on longer: its end is no failure.
  wrong = [
    name
    for name, part in parts.items()
    if part["status"] != "done" and not (name == "recall" and part["status"] == STOPPED)
  ]
  tests = parts.get("tests", {}).get("outcomes", {})
  wrong += [test for test, outcome in tests.items() if outcome in ("failed", "error")]
  cases = parts.get("benchmark", {}).get("cases", ())
  return wrong + [case["case"] for case in cases if "failed" in case]


def loop_overhead(parts: Mapping[str, Any]) -> dict[str, float]:
  """By phase the share of a step of the real run that is not the step itself, measured alone."""
  found = {}
  cases = {case["case"]: case for case in parts.get("benchmark", {}).get("cases", ())}
  for phase, about in parts.get("recall", {}).get("phases", {}).items():
    case = cases.get(f"recall-{phase}", {})
    if about["step_seconds"] and "figures" in case:
      seconds = {row["figure"]: row["seconds"] for row in case["figures"]}
      alone = sum(seconds[name] for name in _ALONE[phase])
      found[phase] = 1 - alone / about["step_seconds"]
  return found


def as_markdown(results: Mapping[str, Any]) -> str:
  """All of it under the machine's name, one line a figure."""
  machine = results["parts"].get("machine", {})
  about = {name: machine[name] for name in ("driver", "backend") if machine.get(name)}
  about |= machine.get("versions", {})
  lines = ["# rtune on " + str(machine.get("device", "a device that is not known"))]
  if results["dry"]:
    lines += ["", "Small sizes: that all parts run, and nothing about speed."]
  lines += ["", "; ".join(f"{name} {value}" for name, value in about.items()), ""]
  rows = [
    _COLUMNS,
    ("---",) * len(_COLUMNS),
    *_rows(results["parts"], results.get("loop_overhead", {})),
  ]
  lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
  return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
  text = "" if value is None else str(value)
  return text.replace("|", "\\|").replace("\n", " ")


def _rows(parts: Mapping[str, Any], overhead: Mapping[str, float]) -> Iterator[tuple[object, ...]]:
  for name, part in parts.items():
    yield name, "", f"{part['status']}, {part['seconds']:.0f} s", "", "", ""
    if "flops" in part:
      rates = f"{part['flops'] / 1e12:.3g} TFLOP/s, {part['bandwidth'] / 1e9:.4g} GB/s"
      yield name, "matrix product, memory", rates, "", "", ""
    yield from (_TABLES[name](part) if name in _TABLES else ())
  for phase, share in overhead.items():
    yield "recall", f"{phase}: of a step not the step itself", _percent(share), "", "", ""


def _tests(part: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
  why = "; ".join(part.get("skipped_because", ()))
  for test, outcome in sorted(part.get("outcomes", {}).items()):
    note = why if outcome == "skipped" else part.get("failed_because", {}).get(test, "")
    yield "tests", f"`{test}`", outcome, "", "", note


def _recall(part: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
  for phase, about in part.get("phases", {}).items():
    if about["step_seconds"] is None:
      yield "recall", phase, "too few steps", "", "", ""
      continue
    pace = f"{1 / about['step_seconds']:.4g} steps/s, {1e3 * about['step_seconds']:.4g} ms a step"
    compiled = f"first steps took {about['compile_seconds']:.1f} s longer"
    shares = f"data {_percent(about['data_share'])}, not accounted {_percent(about['rest_share'])}"
    yield "recall", f"{phase}, {about['steps']:.0f} steps", pace, "", "", f"{compiled}; {shares}"


def _benchmark(part: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
  for case in part.get("cases", ()):
    name, title = "benchmark", f"{case['case']}: {case['title']}"
    if "failed" in case:
      yield name, title, f"failed: {case['failed']}", "", "", ""
      continue
    for row in case["figures"]:
      least = row["floor_seconds"]
      times = f"{number(1e3 * row['seconds'])} ms", least and f"{number(1e3 * least)} ms"
      above = row["times_floor"] and number(row["times_floor"])
      yield name, f"{case['case']}: {row['figure']}", *times, above, row["note"]
    held = case["memory"]
    sizes = [f"{key} {held[key] / 2**30:.2f}" for key in ("peak", "compiled") if held[key]]
    error = "" if held["error"] is None else f"plan off by {_percent(held['error'])}"
    planned = f"plan {held['planned'] / 2**30:.2f} GiB"
    yield name, f"{case['case']}: memory, GiB", ", ".join(sizes), planned, "", error
    share = f"MFU {_percent(case['mfu'])}, loop adds {_percent(case['loop_share'])}"
    yield name, f"{title}", share, "", "", f"{case['took_seconds']:.0f} s with start and compiling"


def _percent(share: float) -> str:
  return f"{100 * share:.1f} %"


_TABLES = {"tests": _tests, "recall": _recall, "benchmark": _benchmark}
