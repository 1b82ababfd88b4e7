import subprocess
import sys
import threading
import time
from typing import NamedTuple

import numpy as np
import pytest

from rtune.errors import RewardError, UsageError
from rtune.rewards.mark import on_host
from rtune.training.host import HostReward


class Thing(NamedTuple):
  value: np.ndarray


PREDICTIONS = Thing(np.arange(6.0).reshape(2, 3))  # 2 images, 3 samples
TRUTHS = Thing(np.array([10.0, 20.0]))


def call(fn, skip=False, timeout_s=0.0, **args):
  return HostReward(fn, "mine.py:fn", args, skip, timeout_s)(PREDICTIONS, TRUTHS)


def test_each_sample_meets_its_own_truth():
  @on_host
  def fn(prediction, truth, *, scale):
    return {"reward": scale * (prediction.value + truth.value), "seen": truth.value}

  parts = call(fn, scale=2.0)
  np.testing.assert_allclose(parts["reward"], [[20, 22, 24], [46, 48, 50]])
  np.testing.assert_allclose(parts["seen"], [[10] * 3, [20] * 3])


def test_batched_gives_the_same():
  @on_host(batched=True)
  def fn(predictions, truths):
    return [float(p.value + t.value) for p, t in zip(predictions, truths, strict=True)]

  np.testing.assert_allclose(call(fn)["reward"], [[10, 11, 12], [23, 24, 25]])


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_no_opinion_is_not_a_number(nothing):
  @on_host
  def fn(prediction, truth):
    return nothing if prediction.value == 4 else 1.0

  reward = call(fn)["reward"]
  assert np.isnan(reward[1, 1])
  assert np.isfinite(reward).sum() == 5


@pytest.mark.parametrize(
  "value", [True, 1, np.float64(1), np.array([1.0]), np.array([[1.0]]), np.bool_(True)]
)
def test_anything_like_one_number_will_do(value):
  @on_host
  def fn(prediction, truth):
    return value

  np.testing.assert_array_equal(call(fn)["reward"], np.ones((2, 3)))


@pytest.mark.parametrize("value", [np.zeros(2), [1.0, 2.0], "high", object()])
def test_what_is_not_one_number_is_named(value):
  @on_host
  def fn(prediction, truth):
    return value

  with pytest.raises(UsageError, match=r"mine\.py:fn must return one number"):
    call(fn)


@pytest.mark.parametrize("result", [[1.0] * 5, 3.0, [[1.0] * 6]])
def test_wrong_length_names_the_expected_one(result):
  @on_host(batched=True)
  def fn(predictions, truths):
    return result

  with pytest.raises(UsageError, match="one result for each of 6 predictions"):
    call(fn)


def test_a_dict_needs_reward():
  @on_host
  def fn(prediction, truth):
    return {"recall": 1.0}

  with pytest.raises(UsageError, match=r"without 'reward'; its keys are \['recall'\]"):
    call(fn)


def test_an_exception_shows_the_users_frames_only():
  @on_host
  def fn(prediction, truth):
    return {}["missing"]

  with pytest.raises(RewardError) as caught:
    call(fn)
  text = str(caught.value)
  assert "KeyError: 'missing'" in text
  assert 'return {}["missing"]' in text
  assert "rtune/training/host.py" not in text


def test_an_exception_can_be_skipped(capsys):
  @on_host
  def fn(prediction, truth):
    return 1 / (float(prediction.value) - 2)

  reward = call(fn, skip=True)["reward"]
  assert np.isnan(reward[0, 2])
  assert np.isfinite(reward).sum() == 5
  assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_reward_that_hangs_is_ended():
  @on_host
  def fn(prediction, truth):
    time.sleep(0.5)

  begun = time.monotonic()
  with pytest.raises(RewardError, match=r"timeout_s=0\.1"):
    call(fn, timeout_s=0.1)
  assert time.monotonic() - begun < 2


@pytest.mark.parametrize("batched, lost", [(False, 1), (True, 6)])
def test_a_call_that_hangs_once_costs_what_it_was_asked_for_only(batched, lost, capsys):
  """One sample of a reward that is asked for them one by one; of a batched one, the batch."""
  calls, hang = [], threading.Event()

  @on_host(batched=batched)
  def fn(prediction, truth):
    calls.append(1)
    if len(calls) == 3 - 2 * batched:
      hang.wait(60)
    return [1.0] * len(prediction) if batched else 1.0

  reward = HostReward(fn, f"mine.py:batched_{batched}", {}, True, 0.3)
  first, second = (reward(PREDICTIONS, TRUTHS)["reward"] for _ in range(2))
  hang.set()
  assert np.isnan(first).sum() == lost and (batched or np.isnan(first[0, 2]))
  np.testing.assert_array_equal(second, np.ones((2, 3)))
  assert capsys.readouterr().err.count("did not answer within") == 1


def test_the_parts_of_the_first_call_stand():
  """Others would compile the update anew."""
  names = iter(["iou", "iou", "none", "other"])

  @on_host(batched=True)
  def fn(predictions, truths):
    name = next(names)
    return [{"reward": 1.0} if name == "none" else {"reward": 1.0, name: 2.0}] * len(predictions)

  reward = HostReward(fn, "mine.py:fn", {}, True, 0.0)
  seen = [reward(PREDICTIONS, TRUTHS) for _ in range(3)]
  assert [sorted(parts) for parts in seen] == [["iou", "reward"]] * 3
  assert np.isnan(seen[2]["iou"]).all() and np.isfinite(seen[2]["reward"]).all()
  with pytest.raises(
    UsageError, match=r"mine\.py:fn returned a part 'other'.*iou, reward"
  ) as caught:
    reward(PREDICTIONS, TRUTHS)
  assert "\n" not in str(caught.value)


def test_inputs_cannot_be_changed():
  @on_host
  def fn(prediction, truth):
    prediction.value[...] = 7
    return 1.0

  with pytest.raises(RewardError, match="read-only"):
    call(fn)
  assert PREDICTIONS.value.max() == 5


@pytest.mark.parametrize("timeout_s", [0.0, 5.0])
def test_sys_exit_is_an_error_of_the_reward(timeout_s):
  @on_host
  def fn(prediction, truth):
    sys.exit(0)

  with pytest.raises(RewardError, match="SystemExit: 0"):
    call(fn, timeout_s=timeout_s)


FORKS = """
import os, sys
import numpy as np
from rtune.rewards.mark import on_host
from rtune.training.host import HostReward

@on_host
def fn(prediction, truth):
  child = os.fork()
  if not child:
    sys.exit(0)
  return float(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

print(HostReward(fn, "fn", {}, False, 0.0)(np.zeros((1, 1)), np.zeros(1))["reward"])
"""


def test_a_child_that_a_reward_forks_does_not_go_on_as_the_run():
  done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60)
  assert done.stdout.splitlines() == ["[[1.]]"], done.stderr
