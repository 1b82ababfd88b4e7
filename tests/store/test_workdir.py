"""A workdir belongs to one run at a time, and a dead run gives it up."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from rtune.errors import UsageError
from rtune.store import workdir

HOLD = """
import sys, time
from rtune.store import workdir
with workdir.lock(sys.argv[1]):
  print("held", flush=True)
  time.sleep(60)
"""


@contextlib.contextmanager
def hold(folder) -> Iterator[subprocess.Popen]:
  """A process that holds the lock on `folder`, killed in the end."""
  command = [sys.executable, "-c", HOLD, str(folder)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    try:
      assert process.stdout.readline() == "held\n"
      yield process
    finally:
      process.kill()


def test_creates_the_folder_and_leaves_no_owner(tmp_path, caplog):
  for _ in range(2):
    with workdir.lock(tmp_path / "a" / "b") as folder:
      assert folder == tmp_path / "a" / "b"
      assert json.loads((folder / workdir.FILE).read_text())["pid"] == os.getpid()
    assert (folder / workdir.FILE).read_text() == ""
  assert not caplog.records


def test_an_error_inside_gives_the_lock_back(tmp_path, caplog):
  with pytest.raises(ZeroDivisionError), workdir.lock(tmp_path):
    _ = 1 / 0
  with workdir.lock(tmp_path):
    pass
  assert not caplog.records


def test_second_process_is_refused_and_a_killed_one_is_taken_over(tmp_path, caplog):
  with hold(tmp_path) as process:
    start = time.monotonic()
    message = rf"in use by process {process.pid} on .* since 20"
    with pytest.raises(UsageError, match=message), workdir.lock(tmp_path):
      pass
    assert time.monotonic() - start < 2
    assert not caplog.records
  with caplog.at_level(logging.WARNING), workdir.lock(tmp_path):
    pass
  assert f"from process {process.pid}" in caplog.text
  assert "did not end cleanly" in caplog.text


def test_force_takes_it_from_a_live_process_and_keeps_it(tmp_path, caplog):
  with hold(tmp_path), workdir.lock(tmp_path, force=True):
    assert "may still be running" in caplog.text
    with pytest.raises(UsageError, match=rf"process {os.getpid()}"), workdir.lock(tmp_path):
      pass


@pytest.mark.parametrize(("age", "held"), [(5, True), (3600, False)])
def test_other_machine_counts_by_its_heartbeat(tmp_path, caplog, age, held):
  file = tmp_path / workdir.FILE
  file.write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "yesterday"}))
  os.utime(file, (time.time() - age,) * 2)
  if held:
    message = r"process 1 on elsewhere since yesterday, .* 5 s"
    with pytest.raises(UsageError, match=message), workdir.lock(tmp_path):
      pass
  else:
    with workdir.lock(tmp_path):
      assert "from process 1 on elsewhere" in caplog.text


def test_heartbeat_touches_the_file(tmp_path, monkeypatch):
  monkeypatch.setattr(workdir, "BEAT_S", 0.01)
  with workdir.lock(tmp_path):
    file = tmp_path / workdir.FILE
    os.utime(file, (1.0, 1.0))
    for _ in range(500):
      if file.stat().st_mtime > 1.0:
        break
      time.sleep(0.01)
    assert file.stat().st_mtime > 1.0


@pytest.mark.parametrize("living", [True, False])
def test_file_system_without_locks_goes_by_the_process(tmp_path, monkeypatch, living):
  def unsupported(*_):
    raise OSError("no locks available")

  monkeypatch.setattr(workdir.fcntl, "flock", unsupported)
  if living:
    pid = os.getpid()
  else:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    pid = process.pid
  owner = {"pid": pid, "host": workdir.socket.gethostname(), "since": "now"}
  (tmp_path / workdir.FILE).write_text(json.dumps(owner))
  if living:
    with pytest.raises(UsageError, match="in use"), workdir.lock(tmp_path):
      pass
  else:
    with workdir.lock(tmp_path):
      pass


def test_damaged_lock_file_is_no_obstacle(tmp_path, caplog):
  (tmp_path / workdir.FILE).write_text('{"pid": 3')
  with workdir.lock(tmp_path):
    assert "did not end cleanly" in caplog.text


def test_file_in_place_of_the_folder(tmp_path):
  (tmp_path / "file").write_text("")
  for path in (tmp_path / "file", tmp_path / "file" / "below"):
    with pytest.raises(UsageError, match="is a file, not a folder"), workdir.lock(path):
      pass


def test_unwritable_folder(tmp_path):
  folder = "/proc/self" if os.geteuid() == 0 else str(tmp_path)
  os.chmod(tmp_path, 0o500)
  with pytest.raises(UsageError, match="cannot be written"), workdir.lock(folder):
    pass
  os.chmod(tmp_path, 0o700)


def from_the_future(tmp_path):
  """A lock of another machine, dated an hour ahead."""
  file = tmp_path / workdir.FILE
  file.write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "tomorrow"}))
  os.utime(file, (time.time() + 3600,) * 2)
  return file


def test_a_lock_from_the_future_does_not_hold_for_ever(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(workdir, "BEAT_S", 0.2)
  from_the_future(tmp_path)
  with workdir.lock(tmp_path):
    assert "taking over from process 1 on elsewhere" in caplog.text


def test_a_live_holder_whose_clock_is_ahead_is_respected(tmp_path, monkeypatch):
  monkeypatch.setattr(workdir, "BEAT_S", 2.0)
  file = from_the_future(tmp_path)
  beat = threading.Timer(0.3, lambda: os.utime(file, (time.time() + 3610,) * 2))
  beat.start()
  with pytest.raises(UsageError, match="elsewhere"), workdir.lock(tmp_path):
    pass
  beat.join()
