"""Progress is readable on a terminal, plain elsewhere, and never divides by a clock that stands."""

import io
import re
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from rtune.display import console
from rtune.display.progress import Progress

# Everything but the line end that a log file may choke on.
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class Hands:
  """A clock that stands where it is put."""

  def __init__(self):
    self.at = 100.0

  def __call__(self) -> float:
    return self.at


class Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


class Gone(io.StringIO):
  """A terminal that was closed."""

  def isatty(self) -> bool:
    return True

  def write(self, text):
    raise BrokenPipeError


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
  monkeypatch.setattr(console, "_process_index", 0)
  monkeypatch.delenv("NO_COLOR", raising=False)
  monkeypatch.setenv("TERM", "xterm")


def progress(total=100, description="mle", **settings):
  """A progress on a stream that is no terminal, with a clock to turn: (progress, hands, stream)."""
  hands = Hands()
  stream = settings.pop("stream", None) or io.StringIO()
  return Progress(total, description, now=hands, stream=stream, **settings), hands, stream


class TestPlainLines:
  def test_first_then_at_intervals_then_last(self):
    bar, hands, stream = progress(100, images_per_unit=8)
    for step in range(1, 101):
      hands.at += 0.5
      bar.update(step, {"loss": 5 / step})
    bar.close()
    assert stream.getvalue().splitlines() == [
      "mle: 1/100 steps, loss 5.000, ? left",
      "mle: 21/100 steps, loss 0.238, 16.00 images/s, 0:40 left",
      "mle: 41/100 steps, loss 0.122, 16.00 images/s, 0:30 left",
      "mle: 61/100 steps, loss 0.082, 16.00 images/s, 0:20 left",
      "mle: 81/100 steps, loss 0.062, 16.00 images/s, 0:10 left",
      "mle: 100/100 steps, loss 0.050, 16.00 images/s, took 0:50",
    ]

  def test_slow_steps_give_a_line_each(self):
    bar, hands, stream = progress(3)
    for step in (1, 2, 3):
      hands.at += 60
      bar.update(step)
    assert len(stream.getvalue().splitlines()) == 3

  def test_values_stay_until_given_again(self):
    bar, hands, stream = progress(10, interval_s=0.0)
    bar.update(1, {"loss": jnp.float32(2.0), "reward": np.float32(0.25)})
    hands.at += 1
    bar.update(2)
    assert "2/10 steps, loss 2.000, reward 0.250" in stream.getvalue().splitlines()[-1]

  def test_compilation_is_not_in_the_time_left(self):
    bar, hands, stream = progress(11, interval_s=0.0)
    hands.at += 300  # compiles
    bar.update(1)
    hands.at += 1
    bar.update(2)
    assert stream.getvalue().splitlines()[-1] == "mle: 2/11 steps, 0:09 left"

  def test_resumed_run_counts_only_its_own_steps(self):
    bar, hands, stream = progress(1000, start=900, interval_s=0.0)
    for step in (901, 902, 903):
      hands.at += 2
      bar.update(step)
    assert stream.getvalue().splitlines()[-1] == "mle: 903/1000 steps, 3:14 left"

  def test_clock_that_stands_still_or_jumps_back(self):
    bar, hands, stream = progress(1000, images_per_unit=4)
    for step in range(1, 50):
      bar.update(step)  # no time passes
    assert len(stream.getvalue().splitlines()) == 1
    hands.at -= 3600
    bar.update(50)
    hands.at += 1
    bar.update(51)
    bar.close()
    lines = stream.getvalue().splitlines()
    assert lines[1] == "mle: 50/1000 steps, ? left"
    assert lines[2].endswith("took 0:00") and "inf" not in lines[2] and "nan" not in lines[2]

  def test_pace_follows_a_change(self):
    bar, hands, stream = progress(10_000, interval_s=0.0, images_per_unit=1)
    for step in range(1, 1001):
      hands.at += 0.1 if step < 500 else 1.0
      bar.update(step)
    assert ", 1.000 images/s," in stream.getvalue().splitlines()[-1]

  def test_nothing_happened_nothing_said(self):
    bar, _, stream = progress()
    bar.close()
    bar.close()
    assert stream.getvalue() == ""

  def test_units(self):
    bar, hands, stream = progress(1, "evaluate", unit="image", images_per_unit=1)
    hands.at += 1
    bar.update(1)
    with bar:
      pass
    assert stream.getvalue().splitlines() == [
      "evaluate: 1/1 image",
      "evaluate: 1/1 image, took 0:01",
    ]

  @pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TERM", "dumb")])
  def test_terminal_that_wants_no_control_characters(self, monkeypatch, variable):
    monkeypatch.setenv(*variable)
    bar, _, stream = progress(2, stream=Terminal())
    bar.update(1)
    bar.close()
    assert not CONTROL.search(stream.getvalue()) and "1/2 steps" in stream.getvalue()

  def test_other_processes_are_silent(self):
    console.start(3)
    for stream in (io.StringIO(), Terminal()):
      with progress(2, stream=stream)[0] as bar:
        bar.update(1, {"loss": 1.0})
      console.say("hello", stream=stream)
      assert stream.getvalue() == ""


def screen(text: str, columns: int = 80) -> list[str]:
  """What a terminal shows after `text`: a carriage return goes back to the start of the line."""
  lines = []
  for line in text.split("\n"):
    cells = [" "] * columns
    for part in line.split("\r"):
      assert len(part) < columns, "a line that wraps cannot be rewritten"
      cells[: len(part)] = part
    lines.append("".join(cells).rstrip())
  return lines


class TestBar:
  def test_shows_the_same_as_the_lines(self):
    bar, hands, stream = progress(100, "m{l}e", stream=Terminal(), images_per_unit=8)
    for step in range(1, 51):
      hands.at += 0.5
      bar.update(step, {"loss": 5 / step})
    assert screen(stream.getvalue()) == [
      "m{l}e  50% |#######       | 50/100 steps, loss 0.100, 16.00 images/s, 0:25 left"
    ]
    bar.close()
    assert screen(stream.getvalue()) == [
      "m{l}e: 50/100 steps, loss 0.100, 16.00 images/s, took 0:25",
      "",
    ]

  def test_quick_steps_are_not_all_drawn(self):
    bar, hands, stream = progress(10_000, stream=Terminal())
    for step in range(1, 10_001):
      hands.at += 0.001
      bar.update(step)
    bar.close()
    assert stream.getvalue().count("%") <= 101
    assert screen(stream.getvalue())[0] == "mle: 10000/10000 steps, took 0:10"

  def test_messages_go_above_it(self):
    bar, _, stream = progress(10, stream=Terminal())
    bar.update(4)
    console.say("first", stream=stream)
    console.say("second", stream=stream)
    shown = screen(stream.getvalue())
    assert shown[:2] == ["first", "second"] and "4/10 steps" in shown[2] and "|####" in shown[2]
    bar.close()
    assert len(screen(stream.getvalue())) == 4

  def test_one_inside_another(self):
    stream = Terminal()
    outer, hands, _ = progress(10, "mle", stream=stream)
    outer.update(1)
    with progress(2, "evaluate", stream=stream)[0] as inner:
      inner.update(1)
    hands.at += 1
    outer.update(2)
    shown = screen(stream.getvalue())
    assert shown[0].startswith("evaluate: 1/2 steps") and shown[1].startswith("mle  20%")
    outer.close()

  def test_long_text_is_cut_to_the_terminal(self):
    bar, _, stream = progress(10, stream=Terminal())
    bar.update(1, {f"value{i}": i for i in range(30)})
    screen(stream.getvalue())
    bar.close()

  @pytest.mark.parametrize("stream", [Gone(), io.TextIOWrapper(io.BytesIO(), "ascii")])
  def test_stream_that_fails_does_not_stop_the_run(self, stream):
    bar, hands, _ = progress(3, "mle ➜", stream=stream)
    for step in (1, 2, 3):
      hands.at += 60
      bar.update(step, {"lóss": 1.0})
      other = threading.Thread(target=console.say, args=("é",), kwargs={"stream": stream})
      other.start()  # nothing may stay locked
      other.join(timeout=5)
      assert not other.is_alive()
    bar.close()

  def test_closed_stream(self):
    stream = io.StringIO()
    stream.close()
    with progress(3, stream=stream)[0] as bar:
      bar.update(1)
