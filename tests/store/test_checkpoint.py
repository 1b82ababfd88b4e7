"""Training state survives what happens to processes and disks."""

import json
import logging
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rtune import disk
from rtune.errors import StorageError, UsageError
from rtune.store import manifest
from rtune.store.checkpoint import Checkpoints


class State(NamedTuple):
  step: Any
  params: Any
  opt_state: Any
  key: Any


def make_state(step: int) -> State:
  """A state with all that a tree may hold: masked and empty nodes, bfloat16, scalars, keys."""
  params = {
    "encoder": {"kernel": jnp.full((64, 33), step, jnp.float32), "bias": jnp.arange(3.0) + step},
    "decoder": {"half": jnp.full(5, step, jnp.bfloat16)},
  }
  mask = {"encoder": {"kernel": True, "bias": False}, "decoder": {"half": True}}
  optimizer = optax.chain(optax.clip(1.0), optax.masked(optax.adam(0.1), mask))
  return State(jnp.int32(step), params, optimizer.init(params), jax.random.key(step))


def abstract(state):
  """A template for reading onto the first device."""
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def assert_equal(left, right):
  assert jax.tree.structure(left) == jax.tree.structure(right)
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    assert a.dtype == b.dtype
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)


def save_steps(directory, steps, keep_last=2, keep_every=0):
  checkpoints = Checkpoints(directory, keep_last, keep_every)
  for step in steps:
    checkpoints.save(step, make_state(step), {"phase": "mle", "step": step})
  checkpoints.close()


def restore(directory):
  checkpoints = Checkpoints(directory)
  try:
    return checkpoints.restore_latest(abstract(make_state(0)))
  finally:
    checkpoints.close()


def names(directory):
  return sorted(path.name for path in pathlib.Path(directory).iterdir())


def largest_file(folder):
  return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_round_trip(tmp_path):
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  assert checkpoints.latest_meta() is None
  assert checkpoints.restore_latest(make_state(0)) is None
  checkpoints.save(7, make_state(7), {"phase": "reward", "phase_step": 3})
  checkpoints.close()

  checkpoints = Checkpoints(tmp_path / "checkpoints")
  assert checkpoints.latest_meta() == {"phase": "reward", "phase_step": 3}
  for template in (abstract(make_state(0)), make_state(0)):
    step, state, meta = checkpoints.restore_latest(template)
    assert (step, meta) == (7, {"phase": "reward", "phase_step": 3})
    assert_equal(state, make_state(7))
  checkpoints.close()


def test_keeps_the_last_and_every_so_many(tmp_path):
  save_steps(tmp_path, [1, 2, 3, 4, 5, 6, 7], keep_last=2, keep_every=3)
  assert names(tmp_path) == ["3", "6", "7"]
  save_steps(tmp_path, [8, 9, 10], keep_last=1, keep_every=3)
  assert names(tmp_path) == ["10", "3", "6", "9"]


def test_a_step_that_is_there_stays_as_it_is(tmp_path):
  save_steps(tmp_path, [4])
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(4, make_state(5), {"phase": "other"})
  checkpoints.close()
  assert restore(tmp_path)[2] == {"phase": "mle", "step": 4}


def test_arrays_may_be_donated_at_once(tmp_path):
  @jax.jit
  def values(step):
    return {f"leaf{i}": jnp.full((256, 256), step * 1.0) for i in range(20)}

  clear = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
  checkpoints = Checkpoints(tmp_path)
  for step in range(1, 6):
    tree = values(step)
    checkpoints.save(step, tree, {})
    jax.block_until_ready(clear(tree))
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path)
  _, restored, _ = checkpoints.restore_latest(abstract(values(0)))
  checkpoints.close()
  assert_equal(restored, values(5))


def damage_truncate(folder):
  file = largest_file(folder)
  os.truncate(file, file.stat().st_size - 1)
  return file


def damage_flip(folder):
  file = largest_file(folder)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 4
  file.write_bytes(content)
  return file


def damage_remove(folder):
  file = largest_file(folder)
  file.unlink()
  return file


def damage_meta(folder):
  file = folder / "meta" / "metadata"
  file.write_text(file.read_text().replace("2", "1"))
  return file


def damage_manifest(folder):
  (folder / manifest.FILE).write_text("{")
  return folder / manifest.FILE


def other_manifest(text):
  """JSON of another shape in the manifest's place."""

  def damage(folder):
    (folder / manifest.FILE).write_text(text)
    return folder / manifest.FILE

  return damage


def damage_manifest_folder(folder):
  (folder / manifest.FILE).unlink()
  (folder / manifest.FILE).mkdir()
  return folder / manifest.FILE


def damage_no_manifest(folder):
  (folder / manifest.FILE).unlink()
  return folder / manifest.FILE


def damage_empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()
  return folder / manifest.FILE


DAMAGES = [damage_truncate, damage_flip, damage_remove, damage_meta]
DAMAGES += [damage_manifest, damage_no_manifest, damage_empty]
DAMAGES += [damage_manifest_folder]
OTHER = ("null", "[]", "3", '"text"', "{}", '{"schema": 1, "files": []}', "[" * 100_000)
OTHER += ('{"schema": "1x", "files": {}}', '{"schema": 1, "files": {"a": 3}}', "\x00\xff")
DAMAGES += [pytest.param(other_manifest(text), id=text[:30]) for text in OTHER]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_step_is_set_aside_for_the_one_before(tmp_path, caplog, damage):
  save_steps(tmp_path, [1, 2])
  file = damage(tmp_path / "2")
  step, state, meta = restore(tmp_path)
  assert (step, meta["step"]) == (1, 1)
  assert_equal(state, make_state(1))
  assert {"1", "2.corrupt"} <= set(names(tmp_path))
  assert "2" not in names(tmp_path)
  warning = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
  assert len(warning) == 1
  assert file.relative_to(tmp_path / "2").as_posix() in warning[0]
  assert "2.corrupt" in warning[0]
  # The run goes on and makes that step again.
  save_steps(tmp_path, [2])
  assert restore(tmp_path)[0] == 2
  # And damages it again.
  damage_flip(tmp_path / "2")
  assert restore(tmp_path)[0] == 1
  assert "2.corrupt2" in names(tmp_path)


def test_no_whole_step_left(tmp_path):
  save_steps(tmp_path, [1, 2])
  damage_flip(tmp_path / "1")
  damage_truncate(tmp_path / "2")
  for _ in range(2):  # It must not start from scratch at the second try.
    with pytest.raises(StorageError, match=r"no whole checkpoint, only 1\.corrupt, 2\.corrupt"):
      Checkpoints(tmp_path)


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "commit_success.txt"])
def test_files_outside_the_manifest_are_not_needed(tmp_path, name):
  save_steps(tmp_path, [1, 2])
  (tmp_path / "2" / name).unlink(missing_ok=True)  # Only newer orbax writes commit_success.txt.
  step, state, _ = restore(tmp_path)
  assert step == 2
  assert_equal(state, make_state(2))


def test_strange_things_in_the_folder_are_left_alone(tmp_path, caplog):
  strange = ["12abc", "-3", "007", "x.corrupt.old", "notes"]
  for name in strange:
    (tmp_path / name).mkdir()
  (tmp_path / "99").write_text("a file")
  save_steps(tmp_path, [1, 2, 3])
  assert restore(tmp_path)[0] == 3
  assert names(tmp_path) == sorted([*strange, "99", "2", "3"])
  told = [record.getMessage() for record in caplog.records]
  assert len(told) == 2 and all("-3, 007, 12abc, 99, notes, x.corrupt.old" in t for t in told)


def test_newer_layout_is_refused(tmp_path):
  save_steps(tmp_path, [1, 2])
  file = tmp_path / "2" / manifest.FILE
  file.write_text(json.dumps({**json.loads(file.read_text()), "schema": manifest.SCHEMA + 1}))
  with pytest.raises(UsageError, match="newer rtune"):
    Checkpoints(tmp_path)
  assert names(tmp_path) == ["1", "2"]


def test_state_of_another_shape_is_shown(tmp_path, capfd):
  save_steps(tmp_path, [1])
  checkpoints = Checkpoints(tmp_path)
  template = abstract(make_state(0))
  other = jax.ShapeDtypeStruct((64, 34), jnp.float32, sharding=template.step.sharding)
  decoder = {"half": jax.ShapeDtypeStruct((5,), jnp.float32, sharding=template.step.sharding)}
  params = {"encoder": {"kernel": other, "new": template.step}, "decoder": decoder}
  with pytest.raises(UsageError) as error:
    checkpoints.restore_latest(template._replace(params=params))
  checkpoints.close()
  assert str(error.value).splitlines()[1:] == [
    "  name                   in the file       in the model",
    "  params/decoder/half    bfloat16 [5]      float32 [5]",
    "  params/encoder/kernel  float32 [64, 33]  float32 [64, 34]",
    "  params/encoder/new     -                 int32 []",
    "  params/encoder/bias    float32 [3]       -",
  ]
  assert capfd.readouterr().err == ""


def test_folder_that_cannot_be_used(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(StorageError, match=r"file/checkpoints cannot be used"):
    Checkpoints(tmp_path / "file" / "checkpoints")


# Processes of their own: what they do to themselves must not happen to the tests.

HEADER = """
import pathlib, resource, sys, time
import jax, jax.numpy as jnp, numpy as np
from rtune.store.checkpoint import Checkpoints
from rtune.errors import StorageError
directory = pathlib.Path(sys.argv[1])

def make(step):
  return {f"leaf{i}": jnp.full((200, 300), step + i * 1000.0) for i in range(40)}
"""


def run(code, *args, **environment):
  return subprocess.Popen(
    [sys.executable, "-c", HEADER + code, *map(str, args)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
  )


SAVE_FOR_EVER = """
checkpoints = Checkpoints(directory)
last = checkpoints.latest_meta()
if last:
  step, tree, meta = checkpoints.restore_latest(make(0))
  assert meta == {"step": step}, (step, meta)
  for name, leaf in make(step).items():
    np.testing.assert_array_equal(tree[name], leaf)
print(last["step"] if last else 0, flush=True)
for step in range(last["step"] + 1 if last else 1, 10**6):
  checkpoints.save(step, make(step), {"step": step})
  if step % 2:
    checkpoints.wait()
    print("whole", step, flush=True)
"""


@pytest.mark.timeout(120)
def test_kill_in_the_middle_of_saves(tmp_path):
  """SIGKILL at moments spread over writing, committing and deleting, again and again."""
  known = 0  # newest step that a run said is whole
  for delay in (0.0, 0.1, 0.25):
    process = run(SAVE_FOR_EVER, tmp_path)
    start = int(process.stdout.readline())
    assert start >= known, process.stderr.read()
    for _ in range(2):
      known = int(process.stdout.readline().split()[1])
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    rest, errors = process.communicate()
    assert "Traceback" not in errors
    known = max([known, *(int(line.split()[1]) for line in rest.splitlines() if " " in line)])
  checkpoints = Checkpoints(tmp_path)
  assert checkpoints.latest_meta()["step"] >= known
  checkpoints.close()
  assert not list(tmp_path.glob("*tmp*"))
  assert not list(tmp_path.glob("*corrupt*"))


def test_leftover_of_an_interrupted_save_is_removed_with_one_line(tmp_path, caplog):
  save_steps(tmp_path, [1])
  (tmp_path / "2.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
  save_steps(tmp_path, [2])
  assert names(tmp_path) == ["1", "2"]
  assert len(caplog.records) == 1
  assert "removed" in caplog.text
  assert "2.orbax-checkpoint-tmp" in caplog.text


FULL_DISK = """
checkpoints = Checkpoints(directory)
for step in (1, 2):
  checkpoints.save(step, make(step), {"step": step})
checkpoints.wait()
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
checkpoints.save(3, make(3), {"step": 3})
error = None
for _ in range(200):  # as a loop does at every step
  try:
    checkpoints.check_errors()
  except StorageError as caught:
    error = caught
    break
  time.sleep(0.02)
print(error)
print(sorted(p.name for p in directory.iterdir()))
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
checkpoints.check_errors()
checkpoints.save(4, make(4), {"step": 4})
checkpoints.wait()
print(sorted(p.name for p in directory.iterdir()))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
checkpoints.save(5, make(5), {"step": 5})
try:
  checkpoints.close()
except StorageError as error:
  print(error)
"""


def test_full_disk_is_told_in_one_line(tmp_path, monkeypatch, capfd):
  save_steps(tmp_path, [1])
  usage = disk.shutil.disk_usage(tmp_path)
  checkpoints = Checkpoints(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(disk.shutil, "disk_usage", lambda _: usage._replace(free=9000))
    with pytest.raises(StorageError, match=r"step 2 .*disk is full \(9,000 bytes free, 1,07"):
      checkpoints.save(2, make_state(2), {})
  assert names(tmp_path) == ["1"]
  checkpoints.save(3, make_state(3), {"step": 3})
  checkpoints.close()
  assert names(tmp_path) == ["1", "3"]
  assert capfd.readouterr().err == ""


def test_failure_to_write_is_told_at_the_next_step_and_harms_nothing(tmp_path):
  process = run(FULL_DISK, tmp_path)
  out, errors = process.communicate(timeout=60)
  message, after_failure, after_retry, at_close = out.splitlines()
  assert message.startswith(f"step 3 could not be saved in {tmp_path}: ")
  assert "bytes free, 10,648,576 needed" in message
  assert after_failure.startswith("['1', '2'")
  assert "'3'," not in after_failure and "'3']" not in after_failure
  assert after_retry == "['2', '4']"
  assert at_close.startswith("step 5 could not be saved")
  assert process.returncode == 0, errors
  assert "Traceback" not in errors and "never retrieved" not in errors
  assert "Error" in tmp_path.with_suffix(".log").read_text()
  assert restore_on_one_device(tmp_path) == 4


def restore_on_one_device(directory):
  checkpoints = Checkpoints(directory)
  template = {f"leaf{i}": jnp.zeros((200, 300)) for i in range(40)}
  step, state, _ = checkpoints.restore_latest(template)
  checkpoints.close()
  for i in range(40):
    np.testing.assert_array_equal(state[f"leaf{i}"], np.full((200, 300), step + i * 1000.0))
  return step


SHARDED = """
from jax.sharding import NamedSharding, PartitionSpec
mesh = jax.make_mesh((jax.device_count(),), ("data",))
shard = NamedSharding(mesh, PartitionSpec("data"))
checkpoints = Checkpoints(directory)
if checkpoints.latest_meta() is None:
  tree = jax.tree.map(lambda x: jax.device_put(x, shard), make(1))
  checkpoints.save(1, tree, {"step": 1})
else:
  template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shard), make(0))
  step, tree, _ = checkpoints.restore_latest(template)
  assert all(leaf.sharding == shard for leaf in tree.values())
  for name, leaf in make(step).items():
    np.testing.assert_array_equal(tree[name], leaf)
checkpoints.close()
print(jax.device_count())
"""


def test_another_number_of_devices(tmp_path):
  for devices in (4, 2):
    flags = f"--xla_force_host_platform_device_count={devices}"
    process = run(SHARDED, tmp_path, XLA_FLAGS=flags)
    out, errors = process.communicate(timeout=60)
    assert out == f"{devices}\n", errors
  assert restore_on_one_device(tmp_path) == 1


TWO_PROCESSES = """
from jax.sharding import NamedSharding, PartitionSpec
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[2], 2, int(sys.argv[3]))
shard = NamedSharding(jax.make_mesh((2,), ("data",)), PartitionSpec("data"))
checkpoints = Checkpoints(directory)
print(checkpoints.latest_meta())
def at(step):
  leaves = jax.tree.map(np.asarray, make(step))
  return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, shard, x.__getitem__), leaves)
start = 0
if checkpoints.latest_meta():
  start, tree, _ = checkpoints.restore_latest(at(0))
  for name, leaf in at(start).items():
    for restored, wanted in zip(tree[name].addressable_shards, leaf.addressable_shards):
      np.testing.assert_array_equal(restored.data, wanted.data)
for step in range(start + 1, start + 4):
  checkpoints.save(step, at(step), {"step": step})
  checkpoints.check_errors()
checkpoints.close()
"""


@pytest.mark.slow
def test_two_processes_agree(tmp_path):
  """Both find the same step when the newest is damaged, and one process can go on from theirs."""
  for expected, last in (("None", 3), ("{'step': 2}", 5)):
    with socket.socket() as probe:
      probe.bind(("localhost", 0))
      address = f"localhost:{probe.getsockname()[1]}"
    processes = [run(TWO_PROCESSES, tmp_path, address, index) for index in (0, 1)]
    for process in processes:
      out, errors = process.communicate(timeout=60)
      assert (process.returncode, out.splitlines()[-1]) == (0, expected), errors
    assert restore_on_one_device(tmp_path) == last
    damage_flip(tmp_path / str(last))


def test_futures_that_nobody_asks_go_to_the_log(tmp_path):
  """What tensorstore raises has no stack trace of orbax in it, only the folder's name."""
  save_steps(tmp_path, [1])
  logger = logging.getLogger("asyncio")
  log = tmp_path.with_suffix(".log")
  log.unlink(missing_ok=True)
  error = (ValueError, ValueError(f'Error writing "leaf9/0.0" at local file "{tmp_path}/3"'), None)
  logger.error("Future exception was never retrieved", exc_info=error)
  logger.error("something else", exc_info=(ValueError, ValueError("of mine"), None))
  assert "leaf9" in log.read_text() and "of mine" not in log.read_text()
