"""rtune without one of its guards: a plugin of pytest that rewrites one line while one test runs.

Given by `-p guards` with this folder in PYTHONPATH; see test_guards.py.
"""

import inspect
import json
import os
import textwrap
import types
from typing import NamedTuple

import pytest

RESULTS = "RTUNE_GUARDS_RESULTS"  # file for the outcomes, one JSON line a test


class Guard(NamedTuple):
  """A line that guards against a fault.

  Attributes:
    test: node id of the test that looks at it.
    function: "module:function" or "module:class.function" whose text it is.
    line: what stands there, once.
    instead: what takes its place.
    failure: how the test must fail then: a part of the error's name or text.
  """

  test: str
  function: str
  line: str
  instead: str
  failure: str = "DID NOT RAISE"


_HOST = "rtune.training.host:HostReward"
_CHECKPOINT = "store/test_checkpoint.py::test_damaged_step_is_set_aside_for_the_one_before"
GUARDS = {
  "checksum of a step": Guard(
    f"{_CHECKPOINT}[damage_flip]",
    *("rtune.store.manifest:_differs", "_sha256(file) != digest", "False", "AssertionError"),
  ),
  "manifest of a step": Guard(
    f"{_CHECKPOINT}[damage_no_manifest]",
    *("rtune.store.manifest:problem", 'return f"{FILE} is missing"', "return None"),
    "AssertionError",
  ),
  "layout of a step": Guard(
    "store/test_checkpoint.py::test_newer_layout_is_refused",
    *("rtune.store.manifest:problem", "schema > SCHEMA", "False"),
  ),
  "room for a save": Guard(
    "store/test_checkpoint.py::test_full_disk_is_told_in_one_line",
    "rtune.store.checkpoint:Checkpoints.save",
    *("disk.free_bytes(self._directory) < size", "False"),
  ),
  "files are written whole": Guard(
    "test_storage.py::test_a_write_that_is_cut_off_leaves_what_was_there",
    *("rtune.disk:write_whole", 'path.with_name(f".{path.name}.tmp")', "path", "AssertionError"),
  ),
  "lock of the kernel": Guard(
    "store/test_workdir.py::test_second_process_is_refused_and_a_killed_one_is_taken_over",
    *("rtune.store.workdir:_held", "BlockingIOError:\n    return True"),
    "BlockingIOError:\n    pass",
  ),
  "lock of another machine": Guard(
    "store/test_workdir.py::test_other_machine_counts_by_its_heartbeat[5-True]",
    *("rtune.store.workdir:_fresh", "return age < DEAD_S", "return False"),
  ),
  "update that is not finite": Guard(
    "training/test_trouble.py::test_a_gradient_that_is_not_finite_changes_nothing[nan]",
    "rtune.training.update:apply_update",
    *("applied = finite & rewarded", "applied = jnp.bool_(True) & rewarded", "AssertionError"),
  ),
  "update far above the usual norm": Guard(
    "training/test_trouble.py::test_an_update_far_above_the_usual_norm_is_left_out",
    "rtune.training.update:apply_update",
    *("finite & rewarded & usual", "finite & rewarded", "AssertionError"),
  ),
  "invalid sample in the baseline": Guard(
    "training/test_advantages.py::test_an_invalid_sample_leaves_no_trace[nan-leave_one_out-False]",
    "rtune.training.advantages:mean",
    *("jnp.where(valid, values - lowest, 0.0)", "values - lowest", "AssertionError"),
  ),
  "advantage of an invalid sample": Guard(
    "training/test_advantages.py::test_an_invalid_sample_leaves_no_trace[nan-batch-False]",
    "rtune.training.advantages:advantages",
    *("result * _beside(valid, result).astype(result.dtype)", "result", "AssertionError"),
  ),
  "code of a stranger": Guard(
    "store/test_reading.py::test_what_is_no_part_of_rtune[os:system]",
    *("rtune.config.trust:check", "not allowed(name)", "False"),
  ),
  "commands of rtune's own": Guard(
    "store/test_reading.py::test_what_is_no_part_of_rtune[rtune.evaluate:main]",
    *("rtune.config.trust:is_own", "return False", "return True", "AssertionError"),
  ),
  "pickle in npz": Guard(
    "store/test_weights.py::test_pickle_in_npz_never_runs",
    *("rtune.store.npz_file:_read_array", 'dtype.kind not in "biuf"', "False", "AssertionError"),
  ),
  "files that are pickles": Guard(
    "store/test_weights.py::test_files_that_run_code_are_refused[w.pkl]",
    "rtune.store.weight_files:_check_kind",
    *("kind is None and suffix in _RUN_CODE", "False", "AssertionError"),
  ),
  "file outside of the images' folder": Guard(
    "data/sources/test_coco.py::test_file_names_may_not_leave_the_root",
    *("rtune.data.files.image_files:locate", "if allow_outside_root:", "if True:"),
  ),
  "image bomb": Guard(
    "data/files/test_images.py::test_pixel_limit_is_checked_before_decoding",
    *("rtune.data.files.opening:open_header", "width * height > max_pixels", "False"),
    "AssertionError",
  ),
  "archive that grows": Guard(
    "store/test_weights.py::test_npz_that_claims_too_much",
    *("rtune.store.npz_file:_members", "claimed > max(_SMALL, _MAX_GROWTH * size)", "False"),
  ),
  "cache that others can write": Guard(
    "devices/test_cache.py::test_a_folder_that_others_can_write_is_not_used[511]",
    "rtune.devices.cache:_make_private",
    *("found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)", "False", "AssertionError"),
  ),
  "length of what a reward returns": Guard(
    "training/test_host.py::test_wrong_length_names_the_expected_one[result0]",
    *(f"{_HOST}.__call__", "or len(results) != len(pairs)", "", "cannot reshape"),
  ),
  "time of a reward": Guard(
    "training/test_host.py::test_a_reward_that_hangs_is_ended",
    *(f"{_HOST}._timed", "answers.get(timeout=self._timeout_s)", "answers.get()"),
  ),
  "names of a reward's parts": Guard(
    "training/test_host.py::test_the_parts_of_the_first_call_stand",
    *(f"{_HOST}._settle_parts", "if key not in self._shapes:", "if False:", "KeyError"),
  ),
  "inputs of a reward": Guard(
    "training/test_host.py::test_inputs_cannot_be_changed",
    *("rtune.training.host:_read_only", "copy.flags.writeable = False", "pass"),
  ),
  "sys.exit in a reward": Guard(
    "training/test_host.py::test_sys_exit_is_an_error_of_the_reward[0.0]",
    *(f"{_HOST}._call", "except (Exception, SystemExit) as error", "except Exception as error"),
    "SystemExit",
  ),
  "time of a read": Guard(
    "data/test_loader.py::test_a_read_that_hangs_ends_the_run[3]",
    *("rtune.data.slow:SlowReads._wait", "ticks > TICKS", "False"),
  ),
  "second signal": Guard(
    "training/test_stopping.py::test_second_signal_ends_the_command_at_once",
    *("rtune.training.stopping:on_signals", "signal.signal(other, _usual(other, action))", "pass"),
    "still here",
  ),
}


def _function(name: str) -> types.FunctionType:
  """The function itself, under whatever decorates it."""
  module, _, path = name.partition(":")
  found = __import__(module, fromlist=["_"])
  for part in path.split("."):
    found = getattr(found, part)
  return inspect.unwrap(found)


def _without(guard: Guard) -> types.CodeType:
  """The function's code with the other line."""
  function = _function(guard.function)
  text = textwrap.dedent(inspect.getsource(function))
  assert text.count(guard.line) == 1, f"{guard.function} has no line {guard.line!r}, or several"
  names = dict(function.__globals__)
  exec(compile(text.replace(guard.line, guard.instead), guard.function, "exec"), names)
  return inspect.unwrap(names[function.__name__]).__code__


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
  """Runs a guard's test without the guard, which all who call it miss then."""
  guards = [guard for guard in GUARDS.values() if item.nodeid == f"tests/{guard.test}"]
  if not guards:
    return (yield)
  (guard,) = guards
  function = _function(guard.function)
  before, function.__code__ = function.__code__, _without(guard)
  try:
    return (yield)
  finally:
    function.__code__ = before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
  """Writes how a test ended."""
  report = yield
  if report.when == "call" or report.outcome != "passed":
    row = {"test": item.nodeid, "outcome": report.outcome}
    row["failure"] = f"{call.excinfo.typename}: {call.excinfo.value}" if call.excinfo else ""
    with open(os.environ[RESULTS], "a") as file:
      file.write(json.dumps(row) + "\n")
  return report
