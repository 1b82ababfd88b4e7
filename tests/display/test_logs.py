"""The log holds every step once, whatever kills the run, and no broken disk or writer is silent."""

import csv
import json
import math
import os
import random
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from rtune.display import console, logs
from rtune.display.clock import Clock
from rtune.errors import StorageError, UsageError


def open_log(path, resume_step=-1, **settings):
  return logs.MetricLog(
    path, **{"resume_step": resume_step, "process_index": 0, "tensorboard": False} | settings
  )


def values(step: int) -> dict[str, float]:
  row = {"train/loss": 1 / (step + 3), "time/step": time.time()}
  return row | ({"val/AR": math.sqrt(step)} if step % 10 == 0 else {})


def csv_rows(path) -> list[dict[str, str]]:
  with open(path / "metrics.csv", newline="") as file:
    return list(csv.DictReader(file, strict=True))


def events(path) -> list:
  """All TensorBoard events below `path`, read as the file format says: length, crc, data, crc."""
  from tensorboardX.proto.event_pb2 import Event

  found = []
  for file in sorted(path.glob("tensorboard/events.out.tfevents.*"), key=os.path.getmtime):
    data = file.read_bytes()
    while data:
      (length,) = struct.unpack("<Q", data[:8])
      found.append(Event.FromString(data[12 : 12 + length]))
      data = data[16 + length :]
  return found


class Hands:
  """A clock that stands where it is put."""

  def __init__(self):
    self.at = 100.0

  def __call__(self) -> float:
    return self.at


class TestClock:
  def test_sums_parts_and_starts_anew(self):
    hands = Hands()
    clock = Clock(hands)
    for seconds in (1.0, 2.0):
      with clock("data"):
        hands.at += seconds
      hands.at += 10  # in no part
      with clock("update"):
        hands.at += 0.5
    assert clock.take() == {"data": 3.0, "update": 1.0}
    assert clock.take() == {}

  def test_inner_part_is_not_counted_twice(self):
    hands = Hands()
    clock = Clock(hands)
    with clock("eval"):
      hands.at += 1
      with clock("data"):
        hands.at += 4
      hands.at += 2
    assert clock.take() == {"eval": 3.0, "data": 4.0}

  def test_take_inside_a_part_and_after_an_error(self):
    hands = Hands()
    clock = Clock(hands)
    with pytest.raises(KeyError), clock("score"):
      hands.at += 1
      assert clock.take() == {"score": 1.0}
      hands.at += 2
      raise KeyError
    hands.at += 5
    assert clock.take() == {"score": 2.0}

  def test_never_negative(self):
    hands = Hands()
    clock = Clock(hands)
    with clock("data"):
      hands.at -= 50
    assert clock.take() == {"data": 0.0}

  def test_costs_next_to_nothing(self):
    clock = Clock()
    begun = time.perf_counter()
    for _ in range(1000):
      with clock("data"):
        pass
    assert time.perf_counter() - begun < 0.1


class TestMetricLog:
  def test_lines_are_on_disk_after_each_write(self, tmp_path):
    log = open_log(tmp_path / "new folder")
    log.write(1, {"train/loss": 0.1})
    log.write(2, {"train/loss": np.float32(0.2), "train/reward": 3})
    text = (tmp_path / "new folder" / "metrics.jsonl").read_text()
    assert text.splitlines() == [
      '{"step": 1, "train/loss": 0.1}',
      '{"step": 2, "train/loss": 0.20000000298023224, "train/reward": 3.0}',
    ]
    assert (tmp_path / "new folder" / "metrics.csv").read_text() == (
      "step,train/loss,train/reward\n1,0.1,\n2,0.20000000298023224,3.0\n"
    )
    log.close()

  def test_not_finite_is_valid_json_and_comes_back(self, tmp_path):
    with open_log(tmp_path) as log:
      log.write(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": -0.0})

    def refuse(name):
      raise AssertionError(f"{name} is not JSON")

    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert line == {"step": 1, "a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 0.0}
    (row,) = logs.read_metrics(tmp_path)
    assert math.isnan(row["a"]) and row["b"] == math.inf and row["c"] == -math.inf
    assert math.copysign(1, row["d"]) == -1
    assert csv_rows(tmp_path) == [{"step": "1", "a": "nan", "b": "inf", "c": "-inf", "d": "-0.0"}]

  def test_columns_grow_and_odd_names_survive(self, tmp_path):
    with open_log(tmp_path) as log:
      log.write(1, {"a": 1.0})
      log.write(2, {'with, comma "and" quotes': 2.0, "a": 3.0})
      log.write(3, {"a": 5.0})
      log.write(4, {"é": 6.0})
    rows = csv_rows(tmp_path)
    assert list(rows[0]) == ["step", "a", 'with, comma "and" quotes', "é"]
    assert [list(row.values()) for row in rows] == [
      ["1", "1.0", "", ""],
      ["2", "3.0", "2.0", ""],
      ["3", "5.0", "", ""],
      ["4", "", "", "6.0"],
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.csv", "metrics.jsonl"]

  def test_a_step_has_one_line(self, tmp_path):
    with open_log(tmp_path) as log:
      log.write(1, {"a": 0.1234567})
      log.write(2, {"a": 0.7654321})
      log.write(2, {"b": 1.0, "a": 0.123456789})
      log.write(2, {"a": 0.25})  # shorter than what it replaces
      assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 2
      log.write(3, {"a": 9.0})
    assert logs.read_metrics(tmp_path) == [
      {"step": 1, "a": 0.1234567},
      {"step": 2, "a": 0.25, "b": 1.0},
      {"step": 3, "a": 9.0},
    ]
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 3
    assert [row["a"] for row in csv_rows(tmp_path)] == ["0.1234567", "0.25", "9.0"]

  def test_kill_while_a_line_is_joined_loses_nothing(self, tmp_path, monkeypatch):
    log = open_log(tmp_path)
    log.write(1, {"a": 1.0})
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def die(*_):
      raise KeyboardInterrupt

    with monkeypatch.context() as disk:
      disk.setattr(os, "replace", die)
      with pytest.raises(KeyboardInterrupt):
        log.write(1, {"b": 1.0})
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    log.close()

  def test_steps_do_not_go_back(self, tmp_path):
    with open_log(tmp_path) as log:
      log.write(5, {"a": 1.0})
      with pytest.raises(ValueError, match="step 4 after step 5"):
        log.write(4, {"a": 1.0})
      with pytest.raises(ValueError, match="named step"):
        log.write(6, {"step": 1.0})
    assert [row["step"] for row in logs.read_metrics(tmp_path)] == [5]

  @pytest.mark.parametrize("tail", [b"", b'{"step": 31, "a"', b"\0" * 40, b'{"step": 7}', b"\n"])
  def test_resume_drops_later_and_torn_lines(self, tmp_path, tail):
    with open_log(tmp_path) as log:
      for step in range(31):
        log.write(step, values(step))
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    with open(tmp_path / "metrics.jsonl", "ab") as file:
      file.write(tail)
    with open(tmp_path / "metrics.csv", "ab") as file:
      file.write(b"31,0.0")
    with open_log(tmp_path, resume_step=17) as log:
      assert [row["step"] for row in logs.read_metrics(tmp_path)] == list(range(18))
      assert [int(row["step"]) for row in csv_rows(tmp_path)] == list(range(18))
      for step in range(18, 31):
        log.write(step, values(step))
    assert whole.count(b"\n") == (tmp_path / "metrics.jsonl").read_bytes().count(b"\n")
    assert [int(row["step"]) for row in csv_rows(tmp_path)] == list(range(31))

  def test_a_new_run_empties_the_log(self, tmp_path):
    with open_log(tmp_path) as log:
      log.write(0, {"old": 1.0})
    with open_log(tmp_path, resume_step=-1):
      assert logs.read_metrics(tmp_path) == []
      assert (tmp_path / "metrics.csv").read_text() == "step\n"

  def test_unreadable_line_in_the_middle_is_told(self, tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": \n[3]\n{"step": 4}\n')
    open_log(tmp_path, resume_step=4).close()
    assert "dropped 2 unreadable lines" in capsys.readouterr().err
    assert [row["step"] for row in logs.read_metrics(tmp_path)] == [1, 4]

  def test_same_step_again_after_resume(self, tmp_path):
    with open_log(tmp_path) as log:
      log.write(4, {"a": 1.0, "b": 2.0})
    with open_log(tmp_path, resume_step=4) as log:
      log.write(4, {"b": 2.0, "c": 3.0})
    assert logs.read_metrics(tmp_path) == [{"step": 4, "a": 1.0, "b": 2.0, "c": 3.0}]
    assert csv_rows(tmp_path) == [{"step": "4", "a": "1.0", "b": "2.0", "c": "3.0"}]

  def test_other_processes_write_nothing(self, tmp_path):
    with open_log(tmp_path / "w", process_index=1, tensorboard=True) as log:
      log.write(1, {"a": 1.0})
      log.sync()
    assert not (tmp_path / "w").exists()

  def test_place_that_cannot_be_written(self, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--workdir"):
      open_log(tmp_path / "file")

  def test_full_disk_is_an_error_that_says_so(self, tmp_path, monkeypatch):
    log = open_log(tmp_path)
    log.write(1, {"a": 1.0})
    whole = log._jsonl._file

    class Full:
      def __getattr__(self, name):
        return getattr(whole, name)

      def write(self, data):
        return whole.write(data[:7])

    monkeypatch.setattr(log._jsonl, "_file", Full())
    with pytest.raises(StorageError, match=r"disk is full.*resumes"):
      log.write(2, {"a": 2.0})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "a": 1.0}\n'
    monkeypatch.setattr(log._jsonl, "_file", whole)  # room again
    log.write(2, {"a": 2.0})
    log.close()
    assert logs.read_metrics(tmp_path) == [{"step": 1, "a": 1.0}, {"step": 2, "a": 2.0}]


WRITER = """
import sys, time
from rtune.display import logs
sys.path.insert(0, sys.argv[2])
from test_logs import values
rows = logs.read_metrics(sys.argv[1])
done = rows[-1]["step"] // 10 * 10 if rows else -1  # "checkpoints" at every tenth step
with logs.MetricLog(sys.argv[1], resume_step=done, process_index=0, tensorboard=False) as log:
  for step in range(done + 1, 61):
    log.write(step, values(step))
    time.sleep(0.002)
"""


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
  with open_log(tmp_path / "whole") as log:
    for step in range(61):
      log.write(step, values(step))
  command = [sys.executable, "-c", WRITER, str(tmp_path / "killed"), os.path.dirname(__file__)]
  chance = random.Random(0)
  for attempt in range(20):
    process = subprocess.Popen(command)
    last = (logs.read_metrics(tmp_path / "killed") or [{"step": -1}])[-1]["step"]
    target = last + chance.randint(1, 25) if attempt < 4 else math.inf
    while process.poll() is None:
      rows = logs.read_metrics(tmp_path / "killed")
      if rows and rows[-1]["step"] >= target:
        process.send_signal(signal.SIGKILL)
      time.sleep(0.001)
    if process.wait() == 0:
      break
  assert attempt >= 3, "the run was never killed"
  whole = logs.read_metrics(tmp_path / "whole", times=False)
  assert logs.read_metrics(tmp_path / "killed", times=False) == whole
  assert [row["step"] for row in whole] == list(range(61)) and "time/step" not in whole[0]
  both = [csv_rows(tmp_path / name) for name in ("whole", "killed")]
  for row in both[0] + both[1]:
    del row["time/step"]
  assert both[0] == both[1]


class TestTensorBoard:
  def test_events_hold_the_values(self, tmp_path):
    with open_log(tmp_path, tensorboard=True) as log:
      log.write(3, {"train/loss": 0.5, "val/AR@[.50:.95]": math.nan})
      (written,) = [e for e in events(tmp_path) if e.HasField("summary")]  # before it is closed
    assert written.step == 3
    tags = {value.tag: value.simple_value for value in written.summary.value}
    assert tags["train/loss"] == 0.5 and math.isnan(tags["val/AR@[.50:.95]"])

  def test_tensorboard_gets_pictures(self, tmp_path):
    Image.new("RGB", (7, 5), (200, 0, 0)).save(tmp_path / "a.png")
    with open_log(tmp_path, tensorboard=True) as log:
      log.picture(4, "samples/0", tmp_path / "a.png")
    (event,) = [event for event in events(tmp_path) if event.HasField("summary")]
    (value,) = event.summary.value
    assert (event.step, value.tag) == (4, "samples/0")
    assert (value.image.width, value.image.height, value.image.colorspace) == (7, 5, 3)
    assert value.image.encoded_image_string == (tmp_path / "a.png").read_bytes()

  def test_resume_makes_tensorboard_forget_later_steps(self, tmp_path):
    for resume_step in (-1, 4):
      with open_log(tmp_path, resume_step, tensorboard=True) as log:
        log.write(resume_step + 1, {"a": 1.0})
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    starts = [event for event in events(tmp_path) if event.HasField("session_log")]
    assert [event.step for event in starts] == [0, 5]
    assert all(event.session_log.status == event.session_log.START for event in starts)

  @pytest.mark.parametrize("when", ["at the start", "later"])
  def test_broken_writer_warns_once_and_the_run_goes_on(self, tmp_path, when, capsys, monkeypatch):
    monkeypatch.setattr(console, "_warned", set())
    if when == "at the start":
      (tmp_path / "tensorboard").write_text("a file in the way")
    with open_log(tmp_path, tensorboard=True) as log:
      if when == "later":

        def fail(_):
          raise OSError("no space left")

        monkeypatch.setattr(log._events._writer, "write_event", fail)
      for step in range(50):
        log.write(step, {"a": 1.0})
    assert capsys.readouterr().err.count("TensorBoard") == 1
    assert len(logs.read_metrics(tmp_path)) == 50


def test_no_log_reads_as_no_rows(tmp_path):
  assert logs.read_metrics(tmp_path) == []


def test_import_is_light():
  check = (
    "import rtune.display.logs, rtune.display.progress, sys; "
    "print({'jax', 'tensorboardX'} & set(sys.modules))"
  )
  shown = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
  assert shown.stdout == "set()\n"
