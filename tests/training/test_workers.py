"""Host rewards in processes of their own: as if they were called here, only sooner."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from rtune import config as configs
from rtune.config import names
from rtune.errors import RewardError, UsageError
from rtune.training import scoring, workers

REWARDS = '''
"""Rewards as a user writes them: of a file that no import statement finds."""
import os
import sys
import time
from typing import NamedTuple

import numpy as np

from rtune.errors import RewardError
from rtune.rewards.mark import on_host


class Thing(NamedTuple):
  value: np.ndarray


@on_host
def seen(prediction, truth, *, scale=1.0):
  """Takes longer for earlier samples, so that later ones are done first."""
  time.sleep(0.02 * float(5 - prediction.value))
  root = np.sqrt(prediction.value * scale + truth.value)
  return None if prediction.value == 4 else {"reward": root, "truth": truth.value, "credit": [root]}


@on_host(batched=True)
def batched(predictions, truths):
  return [os.getpid()] * len(predictions)


@on_host
def process(prediction, truth):
  time.sleep(0.05)
  return {"reward": 0.0, "pid": os.getpid()}


@on_host
def bad(prediction, truth, *, how):
  if prediction.value < 2:
    time.sleep(0.3)
    return 1.0
  return globals()[how](prediction)


def raises(prediction):
  return {}[f"missing {prediction.value:g}"]


def refuses(prediction):
  raise RewardError("no such word")


def leaves(prediction):
  sys.exit(3)


def crashes(prediction):
  os.abort()


def hangs(prediction):
  time.sleep(600)


def text(prediction):
  return "high"


def edits(prediction):
  prediction.value[...] = 7


def forks(prediction):
  child = os.fork()
  if not child:
    sys.exit(0)
  return float(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
'''
VALUES = np.arange(6.0).reshape(2, 3)  # 2 images, 3 samples
TRUTHS = np.array([10.0, 20.0])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp("user") / "my.rewards.py"
  path.write_text(REWARDS)
  return path


@pytest.fixture(autouse=True)
def none_left():
  with workers.ended():
    yield


def called(file, fn, count, **settings):
  """The calls of one reward of the file, and what they give for all samples."""
  reward = configs.Reward(fn=f"{file}:{fn}", workers=count, **settings)
  named = scoring.Named(fn, 1.0, names.resolve(reward.fn), reward.args, reward.fn, False)
  (call,) = scoring.host_rewards([named], reward).values()
  thing = names.resolve(f"{file}:Thing")  # now, for the file may change
  return call, lambda: call(thing(VALUES), thing(TRUTHS))


def test_any_number_of_processes_gives_the_same_bits(file):
  args = {"scale": 0.3}
  tables = [called(file, "seen", count, args=args)[1]() for count in (0, 1, 2, 4)]
  assert tables[0]["credit"].shape == (2, 3, 1) and np.isnan(tables[0]["reward"]).sum() == 1
  for table in tables[1:]:
    assert table.keys() == tables[0].keys()
    for key, value in table.items():
      assert value.tobytes() == tables[0][key].tobytes(), key


def test_no_more_processes_than_asked_for_and_none_of_them_this_one(file):
  _, judge = called(file, "process", 2)
  pids = {int(pid) for pid in {*judge()["pid"].flat, *judge()["pid"].flat}}
  assert len(pids) == 2 and os.getpid() not in pids


def test_a_batched_reward_is_one_call_here(file):
  _, judge = called(file, "batched", 2)
  np.testing.assert_array_equal(judge()["reward"], np.full((2, 3), os.getpid(), np.float32))


@pytest.mark.parametrize(
  "how, error, said",
  [
    ("raises", RewardError, r"KeyError: 'missing 2'"),
    ("edits", RewardError, "read-only"),
    ("leaves", RewardError, "SystemExit: 3"),
    ("refuses", RewardError, "^no such word$"),
    ("crashes", RewardError, r":bad: a worker process has ended \(SIGABRT\)\.$"),
    ("hangs", RewardError, r":bad did not answer within config\.reward\.timeout_s=0\.5 s\.$"),
    ("text", UsageError, r":bad must return one number for one prediction; its 'reward' is 'high'"),
  ],
)
def test_errors_are_told_as_if_they_were_called_here(file, how, error, said):
  limit = 0.5 if how == "hangs" else 0.0
  _, judge = called(file, "bad", 2, args={"how": how}, timeout_s=limit)
  begun = time.monotonic()
  with pytest.raises(error, match=said):
    judge()
  assert time.monotonic() - begun < 30
  if how == "raises":
    _, alone = called(file, "bad", 0, args={"how": how})
    with pytest.raises(RewardError) as caught:
      judge()
    with pytest.raises(RewardError) as here:
      alone()
    line = 1 + REWARDS.splitlines().index('  return {}[f"missing {prediction.value:g}"]')
    assert f'File "{file}", line {line}, in raises' in str(caught.value)
    # Those of the tests' own checks of types are above it.
    first = f'File "{file}"'
    assert str(caught.value).partition(first)[2] == str(here.value).partition(first)[2]


@pytest.mark.parametrize("how", ["raises", "crashes", "hangs"])
def test_a_call_that_fails_costs_its_own_sample(file, how, capsys):
  """And what it has hung in is ended."""
  call, judge = called(file, "bad", 3, args={"how": how}, timeout_s=0.6, on_error="skip")
  call._name = f"{how}.py:bad"  # told once for each name
  for _ in range(2):
    reward = judge()["reward"]
    assert np.isnan(reward).sum() == 4 and (reward[0, :2] == 1).all()
  assert capsys.readouterr().err.count("left out") == 1
  assert len(call._helpers.workers._running) <= 3


def test_a_child_that_a_reward_forks_does_not_go_on_as_the_worker(file):
  _, judge = called(file, "bad", 2, args={"how": "forks"})
  np.testing.assert_array_equal(judge()["reward"], [[1, 1, 1], [1, 1, 1]])


def test_what_a_worker_loads_is_in_no_time_limit(file, tmp_path):
  path = tmp_path / "slow.py"
  path.write_text(REWARDS + "\ntime.sleep(1)\n")
  thing = names.resolve(f"{path}:Thing")
  call, _ = called(file, "process", 1, timeout_s=0.8, on_error="skip")
  assert np.isfinite(call(thing(VALUES), thing(TRUTHS))["reward"]).all()


def test_a_file_that_has_changed_stays_what_was_loaded(tmp_path):
  """Also for a process that takes the place of one that has hung."""
  path = tmp_path / "mine.py"
  path.write_text(REWARDS)
  _, judge = called(path, "seen", 1)
  path.write_text("raise RuntimeError('half an edit')")
  np.testing.assert_allclose(judge()["truth"][:, 0], [10, 20])


@pytest.mark.parametrize(
  "fn, said",
  [
    ("rtune.nothing:at_all", "nothing"),
    ("__main__:reward", "has no 'reward'.*workers=0 does without"),
  ],
)
def test_what_a_worker_cannot_load_is_told(file, fn, said):
  reward = configs.Reward(fn=fn, workers=1)
  named = scoring.Named("one", 1.0, names.resolve(f"{file}:seen"), {}, fn, False)
  (call,) = scoring.host_rewards([named], reward).values()
  with pytest.raises(UsageError, match=said) as caught:
    call(VALUES, TRUTHS)
  assert "\n" not in str(caught.value)


def test_what_cannot_be_sent_is_told(file):
  reward = configs.Reward(fn=f"{file}:seen", args={"scale": lambda: 1}, workers=1)
  named = scoring.Named("one", 1.0, names.resolve(reward.fn), reward.args, reward.fn, False)
  with pytest.raises(UsageError, match=r"cannot be sent to another process.*workers=0"):
    scoring.host_rewards([named], reward)


def test_asked_twice_the_same_processes_serve(file):
  """Training and evaluation of one run share them; nobody's end with the last who has them."""
  one, judge = called(file, "process", 1)
  other, again = called(file, "process", 1)
  judge()
  held = one._helpers.workers
  assert other._helpers.workers is held
  process = held._running[0]._process
  del one, other, judge, again, held
  assert process.poll() == -signal.SIGKILL


RUN = """
import signal
import sys
import numpy as np
from rtune import config as configs
from rtune.config import names
from rtune.training import scoring

signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
reward = configs.Reward(fn=f"{sys.argv[1]}:hang", workers=2)
named = scoring.Named("hang", 1.0, names.resolve(reward.fn), {}, reward.fn, False)
(call,) = scoring.host_rewards([named], reward).values()
call(np.zeros((1, 2)), np.zeros(1))  # no guard of __main__: processes must not come here
"""
HANG = """
import os
import subprocess
import sys
import time
from rtune.rewards.mark import on_host

@on_host
def hang(prediction, truth):
  child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
  os.write(1, f"{os.getpid()} {child.pid}\\n".encode())
  time.sleep(600)
"""


def gone(pid: int) -> bool:
  """Whether there is no such process, or nothing but its exit code."""
  try:
    with open(f"/proc/{pid}/stat") as file:
      return file.read().rpartition(")")[2].split()[0] == "Z"
  except (FileNotFoundError, ProcessLookupError):
    return True


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_ends_leaves_no_process_behind(tmp_path, number):
  (tmp_path / "hang.py").write_text(HANG)
  (tmp_path / "run.py").write_text(RUN)
  run = subprocess.Popen(
    [sys.executable, "run.py", "hang.py"],
    cwd=tmp_path,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
    start_new_session=True,
  )
  with run:
    lines = [run.stdout.readline().split() for _ in range(2)]
    workers_of_it, children = zip(*[map(int, line) for line in lines], strict=True)
    # A terminal sends Ctrl-C to the whole group.
    (os.killpg if number == signal.SIGINT else os.kill)(run.pid, number)
    try:
      run.wait(60)
    finally:
      run.kill()
    assert run.returncode == -number or (number == signal.SIGINT and run.returncode == 1)
  left = [*workers_of_it, *children]
  end = time.monotonic() + 20
  while not all(map(gone, left)) and time.monotonic() < end:
    time.sleep(0.05)
  still = [pid for pid in left if not gone(pid)]
  for pid in still:
    os.kill(pid, signal.SIGKILL)
  assert not still
