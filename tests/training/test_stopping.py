"""Asked once, a run finishes its step; asked twice, it ends."""

import signal

import pytest

from rtune import commands
from rtune.training import stopping


@pytest.fixture(autouse=True)
def usual_handler():
  """Ctrl-C as at a terminal: jobs in the background are started with it ignored."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
  "number, code", [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_first_signal_is_a_request(number, code, capsys):
  before = signal.getsignal(number)
  with stopping.on_signals() as stop:
    assert stop.signal is None
    signal.raise_signal(number)
    assert stop.signal == number
    assert signal.getsignal(number) == before
  assert signal.getsignal(number) == before
  assert f"{number.name}: stopping after this step" in capsys.readouterr().err
  error = stop.preempted("mle step 3 is saved")
  assert error.exit_code == code
  assert str(error) == f"Stopped by {number.name}; mle step 3 is saved. The same command goes on."


def test_second_signal_ends_the_command_at_once(capsys):
  def command():
    with stopping.on_signals():
      signal.raise_signal(signal.SIGTERM)
      signal.raise_signal(signal.SIGINT)
      pytest.fail("still here")

  assert commands.guarded(command) == 130
  assert "stopped at once; what is saved stays" in capsys.readouterr().err


def test_handlers_come_back_after_an_error():
  before = signal.getsignal(signal.SIGTERM)
  with pytest.raises(ZeroDivisionError), stopping.on_signals():
    _ = 1 / 0
  assert signal.getsignal(signal.SIGTERM) == before


def test_in_a_background_job_the_second_signal_counts_too(capsys):
  """A shell starts such jobs with SIGINT ignored, which its children inherit."""
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)

  def command():
    with stopping.on_signals() as stop:
      signal.raise_signal(signal.SIGINT)
      assert stop.signal == signal.SIGINT
      signal.raise_signal(signal.SIGINT)
      pytest.fail("still here")

  try:
    assert commands.guarded(command) == 130
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
  finally:
    signal.signal(signal.SIGINT, before)
