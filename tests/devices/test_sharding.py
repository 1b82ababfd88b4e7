"""Meshes, placement and processes. Several devices or processes need interpreters of their own:

this file, run as a script with the name of a function, is what the tests start.
"""

import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from rtune.devices import processes, sharding
from rtune.errors import UsageError
from rtune.training.optim import Optim, make_optimizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS, INPUTS, OUTPUTS, STEPS = 8, 64, 128, 3
MESHES = {"replicate": (4, 1), "fsdp over data": (4, 1), "fsdp over fsdp": (2, 2)}


def make_rows():
  rng = np.random.default_rng(0)
  return {
    "x": rng.normal(size=(ROWS, INPUTS)).astype(np.float32),
    "y": rng.normal(size=(ROWS, OUTPUTS)).astype(np.float32),
  }


def train(mesh, strategy, local_batch):
  """Three jitted updates of a linear model on `mesh`; returns (params, loss, optimizer state)."""
  rng = np.random.default_rng(1)
  params = {
    "kernel": rng.normal(size=(INPUTS, OUTPUTS)).astype(np.float32),
    "bias": np.zeros(OUTPUTS, np.float32),
  }
  optimizer, _ = make_optimizer(
    Optim(lr=0.01, weight_decay=0.01, momentum_dtype="float32"), STEPS, params
  )

  def place(tree, stacked=False):
    return sharding.param_shardings(mesh, tree, strategy, min_size=1024, stacked=stacked)

  params = jax.device_put(params, place(params))
  homes = place(jax.eval_shape(optimizer.init, params), stacked=True)
  state = jax.jit(optimizer.init, out_shardings=homes)(params)

  def update(params, state, batch):
    def loss_of(params):
      return jnp.mean((batch["x"] @ params["kernel"] + params["bias"][None] - batch["y"]) ** 2)

    loss, grads = jax.value_and_grad(loss_of)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss

  step = jax.jit(update, out_shardings=(place(params), homes, None), donate_argnums=(0, 1))
  batch = sharding.put_batch(mesh, local_batch)
  for _ in range(STEPS):
    params, state, loss = step(params, state, batch)
  return params, loss, state


def whole(params, mesh):
  return jax.tree.map(np.asarray, sharding.gather(params, mesh))


# What children run. Each writes a pickle to the path in argv[2].


def four_devices():
  result = {}
  for name, (data, fsdp) in MESHES.items():
    mesh = sharding.make_mesh(data, fsdp)
    params, loss, state = train(mesh, name.split()[0], make_rows())
    shard_shape = params["kernel"].sharding.shard_shape
    by_shape = {x.shape: x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(state)}
    result[name] = {
      "params": whole(params, mesh),
      "loss": float(loss),
      "kernel shard": shard_shape((INPUTS, OUTPUTS)),
      "state shards": by_shape,
    }
  batch = sharding.put_batch(mesh, make_rows())
  result["row shards"] = sorted(s.index[0].start or 0 for s in batch["x"].addressable_shards)
  errors = []
  for call in (
    lambda: sharding.make_mesh(3, 1),
    lambda: sharding.make_mesh(-1, 3),
    lambda: sharding.check_divisible(30, mesh, key="phases.mle.batch_size"),
    lambda: sharding.check_divisible(3, mesh),
    lambda: sharding.check_divisible(20, mesh, accumulation=2),
    lambda: sharding.check_divisible(0, mesh),
    lambda: sharding.check_divisible(24, mesh, accumulation=2),
  ):
    try:
      call()
      errors.append(None)
    except UsageError as error:
      errors.append(str(error))
  result["errors"] = errors
  return result


def two_processes():
  assert processes.initialize_distributed(timeout_s=60)
  me, mesh = jax.process_index(), sharding.make_mesh()
  half = {k: v[me * ROWS // 2 : (me + 1) * ROWS // 2] for k, v in make_rows().items()}
  result = {"shape": sharding.put_batch(mesh, half)["x"].shape}
  for strategy in ("replicate", "fsdp"):
    params, loss, _ = train(mesh, strategy, half)
    result[strategy] = {"params": whole(params, mesh), "loss": float(loss)}
  rows = sharding.put_batch(mesh, half)["x"]
  copied = jax.jit(lambda x: 2 * x, out_shardings=sharding.replicated(mesh))(rows)
  result["split rows"] = sharding.local_rows(rows)
  result["copied rows"] = sharding.local_rows(copied)
  # Lists of different lengths, one of them above the smallest transfer.
  mine = [{"image_id": me, "scores": np.full(3000 * me + 1, me + 0.5)}] * (me + 1)
  result["gathered"] = processes.gather_objects(mine)
  result["empty"] = processes.gather_objects([])
  processes.barrier("before the comparison")
  processes.same_everywhere("lr: 1\nsteps: 2", "the config")
  try:
    processes.same_everywhere(f"lr: {me}\nsteps: 2", "the config")
  except UsageError as error:
    result["error"] = str(error)
  return result


def nobody_there():
  processes.initialize_distributed(timeout_s=2)


def child(name: str, path: pathlib.Path, **environment: str) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, __file__, name, str(path)],
    env=os.environ
    | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    | environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process: subprocess.Popen, timeout: float = 90) -> str:
  try:
    return process.communicate(timeout=timeout)[0]
  except subprocess.TimeoutExpired:
    process.kill()
    raise


def free_port() -> int:
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


@pytest.fixture(scope="module")
def one_device():
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  params, loss, _ = train(mesh, "fsdp", make_rows())
  return {"params": whole(params, mesh), "loss": float(loss)}


@pytest.fixture(scope="module")
def four(tmp_path_factory):
  path = tmp_path_factory.mktemp("four") / "result"
  process = child("four_devices", path, XLA_FLAGS="--xla_force_host_platform_device_count=4")
  output = finish(process)
  assert process.returncode == 0, output
  return pickle.loads(path.read_bytes())


def assert_same(result, expected):
  np.testing.assert_allclose(result["loss"], expected["loss"], rtol=1e-5)
  for name, value in expected["params"].items():
    np.testing.assert_allclose(result["params"][name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MESHES)
def test_four_devices_train_like_one(four, one_device, name):
  assert_same(four[name], one_device)


def test_parameters_and_optimizer_state_are_split_alike(four):
  expected = {
    "replicate": (INPUTS, OUTPUTS),
    "fsdp over data": (INPUTS, OUTPUTS // 4),
    "fsdp over fsdp": (INPUTS, OUTPUTS // 2),
  }
  for name, shard in expected.items():
    assert four[name]["kernel shard"] == shard
    state = four[name]["state shards"]
    # Parameters of one shape are stacks, here of one.
    assert state[(1, INPUTS, OUTPUTS)] == (1, *shard)  # momentum
    assert state[(1, INPUTS)] == (1, INPUTS)  # factored second moment: small, so whole
    assert state[(1, OUTPUTS)] == (1, OUTPUTS)


def test_a_stack_is_split_as_what_it_holds():
  mesh = jax.sharding.AbstractMesh((4, 1), ("data", "fsdp"))
  leaves = {"small": (32, 16), "large": (32, 64), "bias": (64,), "count": ()}
  shapes = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in leaves.items()}
  stacks = {
    name: jax.ShapeDtypeStruct((8 * 64, *shape) if shape else (), np.float32)
    for name, shape in leaves.items()
  }
  alone = sharding.param_shardings(mesh, shapes, "fsdp", min_size=1024)
  found = sharding.param_shardings(mesh, stacks, "fsdp", min_size=1024, stacked=True)
  assert alone["large"].spec == P(None, "data") and found["large"].spec == P(None, None, "data")
  for name in ("small", "bias", "count"):
    assert alone[name].spec == found[name].spec == P()


def test_rows_are_split_over_both_axes(four):
  assert four["row shards"] == [0, 2, 4, 6]


def test_wrong_meshes_and_batches_name_the_key_and_good_values(four):
  mesh3, fsdp3, batch, small, accumulated, zero, good = four["errors"]
  assert mesh3.startswith("a mesh of data (3) times fsdp (1) must")
  assert "there are devices, 4;" in mesh3 and "data (-1) times fsdp (3)" in fsdp3
  assert batch.startswith("phases.mle.batch_size is 30") and batch.endswith("use 28 or 32")
  assert small.endswith("use 4") and zero.endswith("use 4")
  assert accumulated.endswith("use 16 or 24")
  assert good is None


def test_the_largest_dimension_that_fits_is_split():
  mesh = jax.sharding.AbstractMesh((1, 4), ("data", "fsdp"))
  shapes = {
    "largest": (8, 64, 16),
    "largest that fits": (8, 63, 12),
    "nothing fits": (63, 65),
    "small": (4, 4),
    "scalar": (),
  }
  tree = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in shapes.items()}
  found = sharding.param_shardings(mesh, tree, "fsdp", min_size=100)
  specs = {k: tuple(v.spec) for k, v in found.items()}
  assert specs == {
    "largest": (None, "fsdp"),
    "largest that fits": (None, None, "fsdp"),
    "nothing fits": (),
    "small": (),
    "scalar": (),
  }
  with pytest.raises(UsageError, match=r"strategy must be one of .*'zero'"):
    sharding.param_shardings(mesh, tree, "zero")


def test_two_processes_are_one_run(tmp_path, one_device):
  address = f"127.0.0.1:{free_port()}"
  paths = [tmp_path / str(i) for i in range(2)]
  processes = [
    child(
      "two_processes",
      path,
      RTUNE_COORDINATOR=address,
      RTUNE_NUM_PROCESSES="2",
      RTUNE_PROCESS_ID=str(i),
    )
    for i, path in enumerate(paths)
  ]
  outputs = [finish(p) for p in processes]
  assert [p.returncode for p in processes] == [0, 0], "\n".join(outputs)
  results = [pickle.loads(path.read_bytes()) for path in paths]
  for half, result in zip(np.split(make_rows()["x"], 2), results, strict=True):
    np.testing.assert_array_equal(result["split rows"], half)
    np.testing.assert_array_equal(result["copied rows"], 2 * half)
    assert result["shape"] == (ROWS, INPUTS)
    assert_same(result["replicate"], one_device)
    assert_same(result["fsdp"], one_device)
    assert [r["image_id"] for r in result["gathered"]] == [0, 1, 1]
    assert [r["scores"].shape for r in result["gathered"]] == [(1,), (3001,), (3001,)]
    np.testing.assert_array_equal(result["gathered"][2]["scores"], np.full(3001, 1.5))
    assert result["empty"] == []
    assert result["error"].startswith(
      "the config differs between processes: process 0 has 'lr: 0', process 1 has 'lr: 1'"
    )


def test_processes_that_count_differently_all_say_so(tmp_path):
  address = f"127.0.0.1:{free_port()}"
  processes = [
    child(
      "two_processes",
      tmp_path / str(i),
      RTUNE_COORDINATOR=address,
      RTUNE_NUM_PROCESSES=count,
      RTUNE_PROCESS_ID=str(i),
    )
    for i, count in enumerate("23")
  ]
  outputs = [finish(p) for p in processes]
  assert [p.returncode for p in processes] == [2, 2], "\n".join(outputs)
  for output in outputs:
    assert "process 0 has '2 processes', process 1 has '3 processes'" in output


def test_a_coordinator_that_is_not_there_is_named(tmp_path):
  address = f"127.0.0.1:{free_port()}"
  process = child(
    "nobody_there",
    tmp_path / "none",
    RTUNE_COORDINATOR=address,
    RTUNE_NUM_PROCESSES="2",
    RTUNE_PROCESS_ID="1",
  )
  output = finish(process)
  assert process.returncode == 2, output
  assert f"did not meet at {address} within 2 s (process 1 of 2)" in output


@pytest.mark.parametrize(
  "values, message",
  [
    (("h:1", "2", None), "RTUNE_PROCESS_ID must be set too"),
    (("h:1", None, ""), "RTUNE_NUM_PROCESSES and RTUNE_PROCESS_ID must be set too"),
    (("h", "2", "0"), "RTUNE_COORDINATOR must be host:port; it is 'h'"),
    (("h:1", "two", "0"), r"RTUNE_NUM_PROCESSES \(two\)"),
    (("h:1", "2", "2"), "RTUNE_PROCESS_ID must be 0 to 1; it is 2"),
  ],
)
def test_incomplete_settings_are_named(monkeypatch, values, message):
  for name, value in zip(processes.ENVIRONMENT, values, strict=True):
    monkeypatch.delenv(name, raising=False)
    if value is not None:
      monkeypatch.setenv(name, value)
  with pytest.raises(UsageError, match=message):
    processes.initialize_distributed()


def test_alone_nothing_is_joined(monkeypatch):
  for name in processes.ENVIRONMENT:
    monkeypatch.delenv(name, raising=False)
  assert processes.initialize_distributed() is False
  assert processes.initialize_distributed("127.0.0.1:1", 1, 0) is False
  assert processes.gather_objects([1, "two"]) == [1, "two"]
  processes.same_everywhere("text", "the config")


# launch/local.sh, with a stand-in for python: it notes who it is, then does what PLAN says.

STAND_IN = """#!/bin/bash
[[ $1 == -c ]] && exec "$REAL_PYTHON" "$@"
me=$RTUNE_PROCESS_ID
echo "$me/$RTUNE_NUM_PROCESSES $RTUNE_COORDINATOR $JAX_PLATFORMS $*" > "$OUT/$me"
case $PLAN in
  fail) [[ $me == 1 ]] && exit 7; trap '' TERM ;;
  stop) trap 'echo x >> "$OUT/signals"; sleep 0.5; exit 75' TERM ;;
  *) exit 0 ;;
esac
for ((i = 0; i < 600; i++)); do sleep 0.1; done
"""


@pytest.fixture
def launch(tmp_path):
  stand_in = tmp_path / "python"
  stand_in.write_text(STAND_IN)
  stand_in.chmod(0o755)

  def start(plan: str, *arguments: str) -> subprocess.Popen:
    environment = {
      "PYTHON": str(stand_in),
      "REAL_PYTHON": sys.executable,
      "OUT": str(tmp_path),
      "PLAN": plan,
      "RTUNE_GRACE_S": "2",
    }
    return subprocess.Popen(
      ["bash", str(ROOT / "launch" / "local.sh"), *arguments],
      env=os.environ | environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  return start


def test_launch_gives_each_process_its_id_and_the_arguments(launch, tmp_path):
  process = launch("ok", "3", "--", "--config", "a b.py")
  output = finish(process, 20)
  assert process.returncode == 0, output
  lines = [(tmp_path / str(i)).read_text().split(" ", 2) for i in range(3)]
  assert [line[0] for line in lines] == ["0/3", "1/3", "2/3"]
  assert len({line[1] for line in lines}) == 1 and lines[0][1].startswith("127.0.0.1:")
  assert {line[2] for line in lines} == {"cpu -m rtune.main --config a b.py\n"}


def test_launch_ends_the_others_when_one_fails(launch):
  started = time.monotonic()
  process = launch("fail", "3", "--")
  output = finish(process, 20)
  # They ignore the request to stop and would sleep for a minute.
  assert process.returncode == 7, output
  assert time.monotonic() - started < 15


def test_launch_passes_a_signal_on_once(launch, tmp_path):
  process = launch("stop", "2", "--")
  deadline = time.monotonic() + 10
  while not all((tmp_path / str(i)).exists() for i in range(2)):
    assert time.monotonic() < deadline
    time.sleep(0.05)
  time.sleep(0.3)  # the stand-ins set their trap just after they have written
  process.send_signal(signal.SIGTERM)
  output = finish(process, 20)
  assert process.returncode == 75, output
  assert (tmp_path / "signals").read_text() == "x\nx\n"


def test_launch_explains_its_use(launch):
  process = launch("ok", "two", "--")
  assert "usage:" in finish(process, 20)
  assert process.returncode == 2


if __name__ == "__main__":
  try:
    outcome = globals()[sys.argv[1]]()
  except UsageError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
  pathlib.Path(sys.argv[2]).write_bytes(pickle.dumps(outcome))
