"""What a person sees is plain, printed once, and can break nothing."""

import logging
import math
import os
import pathlib
import pty
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

from rtune.display import console

# Everything but the line end that a log file, or a locale without UTF-8, may choke on.
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
  """No test sees another's warnings, process index or handlers."""
  monkeypatch.setattr(console, "_warned", set())
  monkeypatch.setattr(console, "_process_index", 0)
  logger = logging.getLogger("rtune")
  before = logger.level, logger.propagate, list(logger.handlers)
  yield
  logger.level, logger.propagate, logger.handlers[:] = before


SCRIPT = """
import sys, logging
from rtune.display import console
from rtune.display.progress import Progress
console.start(0)
console.stage("Training \\u279c caf\\u00e9 \\x1b[31mred\\x07")
logging.getLogger("rtune.data.sources.coco").warning("no image %s", "a\\udc80.jpg")
logging.getLogger("rtune.data.sources.coco").info("12 images")
for _ in range(3):
  console.warn_once("k", "said once\\r")
with Progress(3, "mle \\u279c", images_per_unit=2) as bar:
  for step in (1, 2, 3):
    bar.update(step, {"loss": 1 / step})
console.say(console.table([["\\u00e9", 1.0]], ["model", "AR"]), stream=sys.stdout)
"""


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict", "latin-1:strict"])
def test_piped_output_is_plain_in_any_locale(encoding):
  root = pathlib.Path(console.__file__).parents[2]
  environment = {
    **os.environ,
    "PYTHONPATH": str(root),
    "PYTHONIOENCODING": encoding,
    "LC_ALL": "C",
  }
  done = subprocess.run(
    [sys.executable, "-c", SCRIPT], capture_output=True, env=environment, check=True
  )
  shown = done.stderr.decode(encoding.split(":")[0])
  assert not CONTROL.search(shown)
  lines = shown.splitlines()
  assert re.match(r"\[\d\d:\d\d:\d\d\] Training", lines[0]) and "?[31mred?" in lines[0]
  assert lines[1].startswith("warning: no image a") and lines[2] == "12 images"
  assert [line for line in lines if "said once" in line] == ["warning: said once?"]
  assert "1/3 steps, loss 1.000" in lines[4] and "3/3 steps, loss 0.333" in lines[-1]
  assert done.stdout.decode(encoding.split(":")[0]).splitlines()[0] == "model     AR"


def test_real_terminal_gets_a_bar():
  main, other = pty.openpty()
  root = pathlib.Path(console.__file__).parents[2]
  environment = {**os.environ, "PYTHONPATH": str(root), "TERM": "xterm"}
  environment.pop("NO_COLOR", None)
  subprocess.run([sys.executable, "-c", SCRIPT], stderr=other, env=environment, check=True)
  os.close(other)
  shown = os.read(main, 100_000).decode()
  os.close(main)
  assert "mle ➜  33% |########" in shown
  assert "3/3 steps, loss 0.333" in shown.splitlines()[-1] and "\x1b" not in shown


def test_warn_once_from_many_threads(capsys):
  threads = [
    threading.Thread(target=console.warn_once, args=("a", "too many boxes")) for _ in range(20)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  console.warn_once("b", "something else")
  assert capsys.readouterr().err == "warning: too many boxes\nwarning: something else\n"


def test_log_records_are_printed_once(capsys, caplog):
  console.start(0)
  console.start(0)
  logging.getLogger("rtune.store.workdir").warning("taking over")
  logging.getLogger("rtune.store.workdir").debug("too fine")
  assert not caplog.records, "the root logger, which absl prints, must not get them too"
  assert capsys.readouterr().err == "warning: taking over\n"


@pytest.mark.parametrize(
  ("seconds", "text"),
  [
    (0, "0:00"),
    (0.4, "0:00"),
    (59.6, "1:00"),
    (187, "3:07"),
    (3599.7, "1:00:00"),
    (3723, "1:02:03"),
    (86399, "23:59:59"),
    (183600, "2d 3h"),
    (None, "?"),
    (-1, "?"),
    (math.inf, "?"),
    (math.nan, "?"),
    (1e30, "?"),
  ],
)
def test_duration(seconds, text):
  assert console.duration(seconds) == text


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (0.0, "0.000"),
    (0.5123, "0.512"),
    (-0.5, "-0.500"),
    (12.345, "12.35"),
    (310.42, "310.4"),
    (54321.04, "54321.0"),
    (2e-5, "2.0e-05"),
    (-3e7, "-3.0e+07"),
    (1000, "1000"),
    (np.float32(0.25), "0.250"),
    (math.nan, "nan"),
    (-math.inf, "-inf"),
  ],
)
def test_number(value, text):
  assert console.number(value) == text


class TestTable:
  def test_aligned(self):
    text = console.table(
      [["MLE", 0.5, 0.25, 3], ["tuned", 0.625, None, 12], ["change", "+0.125", "", 9]],
      ["", "AR", "AP", "images"],
    )
    assert text.splitlines() == [
      "            AR     AP  images",
      "------  ------  -----  ------",
      "MLE      0.500  0.250       3",
      "tuned    0.625      -      12",
      "change  +0.125              9",
    ]

  def test_no_rows(self):
    assert console.table([], ["model", "AR"]) == "model  AR\n-----  --"

  def test_row_that_does_not_fit(self):
    with pytest.raises(ValueError, match="3 cells in a table of 2 columns"):
      console.table([[1, 2, 3]], ["a", "b"])
