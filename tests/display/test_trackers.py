"""A tracker gets all that is logged; one that is dead, slow or raises costs one warning."""

import threading
import time

import numpy as np
import pytest

from rtune.display import console, logs
from rtune.display.trackers.background import Background
from rtune.display.trackers.tracker import Session


@pytest.fixture(autouse=True)
def no_warnings_yet(monkeypatch):
  monkeypatch.setattr(console, "_warned", set())


class Plain:
  """A tracker that is a plain object."""

  def __init__(self, session):
    self.session, self.id = session, session.id or "new"
    self.taken, self.closed = [], False

  def numbers(self, step, values):
    self.taken.append((step, values))

  def picture(self, step, name, path):
    self.taken.append((step, name, path))

  def close(self):
    self.closed = True


def session(folder, run=""):
  return Session("mine", folder, {"seed": 3}, run)


def followed(folder, open_run, **settings):
  """An open log with a tracker, and what was remembered of it."""
  log = logs.MetricLog(folder, resume_step=-1, process_index=0, tensorboard=False)
  ids = []
  log.follow(Background("mine", open_run, session(folder), ids.append, **settings))
  return log, ids


def test_everything_passes_in_its_order(tmp_path):
  trackers = []

  def open_run(given):
    trackers.append(Plain(given))
    return trackers[0]

  picture = tmp_path / "a.png"
  log, ids = followed(tmp_path, open_run)
  with log:
    log.write(1, {"loss": 0.5, "reward/mean": 2.0, "reward/alike": np.float32(0.25)})
    log.picture(1, "samples/0", picture)
    log.write(1, {"val/AR": 0.125})
    log.write(2, {"kl": 0.1, "reward/std_within": 3.0})
  (tracker,) = trackers
  assert tracker.taken == [
    (1, {"loss": 0.5, "reward/mean": 2.0, "reward/alike": 0.25, "reward": 2.0,
         "frac_reward_zero_std": 0.25}),
    (1, "samples/0", picture),
    (1, {"val/AR": 0.125}),
    (2, {"kl": 0.1, "reward/std_within": 3.0, "reward_std": 3.0}),
  ]  # fmt: skip
  assert tracker.closed and ids == ["new"] and tracker.session.config == {"seed": 3}
  assert logs.read_metrics(tmp_path)[0].keys() == {"step", "loss", "reward/mean", "reward/alike",
                                                   "val/AR"}  # fmt: skip


def test_other_processes_pass_nothing_on(tmp_path):
  with logs.MetricLog(tmp_path / "w", resume_step=-1, process_index=1) as log:
    log.picture(1, "a", tmp_path / "a.png")
  assert not (tmp_path / "w").exists()


class Dead(Plain):
  def numbers(self, step, values):
    raise ConnectionError("the server\nis gone")


def unreachable(given):
  raise SystemExit("no server")


@pytest.mark.parametrize("open_run", [Dead, unreachable])
def test_a_dead_one_costs_one_warning(tmp_path, open_run, capsys):
  log, _ = followed(tmp_path, open_run)
  with log:
    for step in range(100):
      log.write(step, {"a": 1.0})
  err = capsys.readouterr().err
  assert err.count("warning") == 1 and "the tracker mine gets nothing from here on" in err
  assert ("ConnectionError('the server\\nis gone')" in err) == (open_run is Dead)
  assert len(logs.read_metrics(tmp_path)) == 100


@pytest.mark.parametrize("where", ["opening", "numbers"])
def test_a_hanging_one_neither_slows_nor_stops(tmp_path, where, capsys):
  """Nor does it hold more in memory than may wait."""
  free = threading.Event()

  class Hanging(Plain):
    def __init__(self, given):
      super().__init__(given)
      if where == "opening":
        free.wait(60)

    def numbers(self, step, values):
      free.wait(60)
      super().numbers(step, values)

  made = []
  log, _ = followed(
    tmp_path, lambda given: made.append(Hanging(given)) or made[0], waiting=20, parting_s=0.2
  )
  begun = time.perf_counter()
  with log:
    for step in range(200):
      log.write(step, {"a": 1.0})
  assert time.perf_counter() - begun < 20, "it was waited for"
  assert capsys.readouterr().err.count("20 entries wait for it") == 1
  assert len(logs.read_metrics(tmp_path)) == 200
  free.set()
  for thread in threading.enumerate():
    if thread.name == "tracker mine":
      thread.join(30)
  assert len(made[0].taken) <= 1 and not made[0].closed, "it is left alone"


def test_one_that_waits_for_more_when_it_is_given_up_ends(tmp_path):
  """It has seen that it is not given up, and nothing comes any more."""
  taken = threading.Event()

  class Quick(Plain):
    def numbers(self, step, values):
      super().numbers(step, values)
      taken.set()

  made = []

  def open_run(given):
    made.append(Quick(given))
    return made[0]

  background = Background("mine", open_run, session(tmp_path), lambda run_id: None)
  background.numbers(0, {"a": 1.0})
  assert taken.wait(30)
  background._give_up("of a test")
  background._thread.join(30)
  assert not background._thread.is_alive() and not made[0].closed


def test_a_slow_one_gets_all_but_the_end_waits_a_little_only(tmp_path, capsys):
  free, made = threading.Event(), []

  class Slow(Plain):
    def close(self):
      free.wait(60)

  log, _ = followed(tmp_path, lambda given: made.append(Slow(given)) or made[0], parting_s=0.3)
  for step in range(5):
    log.write(step, {"a": 1.0})
  begun = time.perf_counter()
  log.close()
  assert time.perf_counter() - begun < 20
  free.set()
  assert "it has not taken all within 0.3 s after the end" in capsys.readouterr().err
  assert [step for step, _ in made[0].taken] == [0, 1, 2, 3, 4]


def test_a_picture_that_is_gone_ends_tensorboard_only(tmp_path, capsys):
  with logs.MetricLog(tmp_path, resume_step=-1, process_index=0) as log:
    log.picture(4, "samples/0", tmp_path / "gone.png")
    log.write(5, {"a": 1.0})
  assert "no TensorBoard events from here on" in capsys.readouterr().err
  assert len(logs.read_metrics(tmp_path)) == 1
