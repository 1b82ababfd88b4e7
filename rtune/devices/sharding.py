"""Devices and processes: the mesh, where arrays live on it, and what processes tell each other.

The mesh has two axes. A batch is split over both; parameters are either on every device, or
("fsdp") split over the axis "fsdp", or over "data" where "fsdp" has one device.
"""

import os
import pickle
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from rtune.errors import UsageError

ENVIRONMENT = ("RTUNE_COORDINATOR", "RTUNE_NUM_PROCESSES", "RTUNE_PROCESS_ID")
STRATEGIES = ("replicate", "fsdp")


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Arrange all devices of all processes (or `devices`) as ("data", "fsdp"); data -1: the rest.

  Raises:
    UsageError: the product of both is not the number of devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  rows = len(devices) // max(fsdp, 1) if data == -1 else data
  if fsdp < 1 or rows < 1 or rows * fsdp != len(devices):
    raise UsageError(
      f"a mesh of data ({data}) times fsdp ({fsdp}) must have as many places as there are devices, "
      f"{len(devices)}; -1 for data takes what fsdp leaves"
    )
  # Explicit axes, the default of newer jax, break dynamic_update_slice in the cached sampler.
  return jax.make_mesh(
    (rows, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto), devices=devices
  )


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """The first dimension over all devices."""
  return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """A whole copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def param_shardings(
  mesh: Mesh | AbstractMesh, tree: PyTree, strategy: str = "replicate", min_size: int = 2**20
) -> PyTree[NamedSharding]:
  """Where each leaf of `tree` lives: parameters, optimizer state or a whole training state.

  It looks at shapes alone, so a moment shaped like its parameter lies where the parameter does,
  whatever its type, and factored moments need no rule of their own.

  Args:
    mesh: from `make_mesh`.
    tree: arrays or their shapes (`jax.eval_shape`).
    strategy: "replicate", or "fsdp": the largest dimension that the axis divides is split.
    min_size: leaves of fewer elements are replicated; to gather them costs more than it saves.
  """
  if strategy not in STRATEGIES:
    raise UsageError(f"strategy must be one of {', '.join(STRATEGIES)}; it is {strategy!r}")
  axis = "fsdp" if mesh.shape["fsdp"] > 1 else "data"
  parts = mesh.shape[axis]

  def place(leaf) -> NamedSharding:
    shape = np.shape(leaf)
    fits = [d for d, size in enumerate(shape) if size and size % parts == 0]
    if strategy == "replicate" or parts == 1 or np.prod(shape) < min_size or not fits:
      return replicated(mesh)
    split = max(fits, key=lambda d: shape[d])
    return NamedSharding(mesh, PartitionSpec(*[None] * split, axis))

  return jax.tree.map(place, tree)


def whole(params: PyTree, shardings: PyTree) -> PyTree:
  """Parameters that `shardings` spread, gathered for a computation over the batch. jit.

  Left to itself the compiler may split the computation as the parameters are split, and send
  activations around: 80 GB a step of imitation for the paper's detector on 256 chips.
  """
  mesh = next((leaf.mesh for leaf in jax.tree.leaves(shardings)), None)
  return params if mesh is None else jax.lax.with_sharding_constraint(params, replicated(mesh))


def gather(params: PyTree, mesh: Mesh) -> PyTree:
  """Arrays that may be spread, as whole copies on every device: `whole`, once for many calls."""
  return jax.device_put(params, replicated(mesh))


def check_divisible(
  batch_size: int, mesh: Mesh | AbstractMesh, accumulation: int = 1, key: str = "batch_size"
) -> None:
  """Raise UsageError, with the nearest good values, unless every device gets as many examples.

  Args:
    batch_size: examples in a step, over all processes.
    mesh: from `make_mesh`.
    accumulation: parts in which a step works through its batch.
    key: what the error message calls the batch size.
  """
  unit = mesh.size * accumulation
  if batch_size > 0 and batch_size % unit == 0:
    return
  below = batch_size // unit * unit
  nearest = f"{below} or {below + unit}" if below > 0 else f"{unit}"
  parts = f" in {accumulation} accumulated parts" if accumulation > 1 else ""
  raise UsageError(
    f"{key} is {batch_size}, which cannot be shared equally by {mesh.size} device(s){parts}; "
    f"use {nearest}"
  )


def put_batch(mesh: Mesh, local_batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
  """Join the processes' parts [b, ...] to global arrays [b * processes, ...] on the devices."""
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, value)
    for name, value in local_batch.items()
  }


def place(tree: PyTree, shardings: PyTree) -> PyTree:
  """Host arrays that every process has, as global arrays."""

  def put(leaf, where):
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, where, lambda index: host[index])

  return jax.tree.map(put, tree, shardings)


def local_rows(array: jax.Array) -> np.ndarray:
  """The rows of a batch that this process put in: the inverse of `put_batch` for one array."""
  if array.is_fully_addressable:
    return np.asarray(array)
  shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
  rows = np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
  if len(rows) < array.shape[0]:
    return rows
  # XLA may give every process the whole result of a function that was fed split rows.
  order = list(dict.fromkeys(d.process_index for d in array.sharding.mesh.devices.flat))
  return np.split(rows, len(order))[order.index(jax.process_index())]


def on_host(tree: PyTree) -> PyTree:
  """Global arrays as numpy arrays, whole, on every process; all processes must call it."""
  if all(leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in jax.tree.leaves(tree)):
    return jax.tree.map(np.asarray, tree)
  return multihost_utils.process_allgather(tree, tiled=True)


def gather_objects(records: list[Any]) -> list[Any]:
  """The lists of all processes, one after another in order of process, on every process.

  All processes must call it together. Records are anything that pickles; they come from this
  job's own processes only.
  """
  if jax.process_count() == 1:
    return list(records)
  payload = np.frombuffer(pickle.dumps(records), np.uint8)
  sizes = multihost_utils.process_allgather(np.asarray(payload.size, np.int32)).reshape(-1)
  # Powers of two, since every new size compiles.
  room = 1 << max(12, int(sizes.max() - 1).bit_length())
  padded = np.pad(payload, (0, room - payload.size))
  parts = multihost_utils.process_allgather(padded)
  lists = [pickle.loads(p[:n].tobytes()) for p, n in zip(parts, sizes, strict=True)]
  return [record for part in lists for record in part]


def barrier(name: str) -> None:
  """Wait until all processes are here; AssertionError where they meet under different names."""
  multihost_utils.sync_global_devices(name)


def same_everywhere(text: str, what: str) -> None:
  """Raise UsageError, on every process, unless all of them hold the same `text`.

  Args:
    text: lines, for example a config as JSON with the version of the code.
    what: what the error message calls it.
  """
  texts = gather_objects([text])
  for process, other in enumerate(texts):
    if other != texts[0]:
      here, there = (set(t.splitlines()) for t in (texts[0], other))
      raise UsageError(
        f"{what} differs between processes: process 0 has {_shorten(here - there)}, "
        f"process {process} has {_shorten(there - here)}; start all with one command and one code"
      )


def initialize_distributed(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  auto: bool = False,
  timeout_s: float = 300.0,
) -> bool:
  """Join the processes of a run; call it before anything touches a device.

  What is not given is read from RTUNE_COORDINATOR (host:port of process 0), RTUNE_NUM_PROCESSES
  and RTUNE_PROCESS_ID. Without them nothing happens, unless `auto`: then jax finds the others by
  itself (SLURM, TPU pods, GKE, Open MPI).

  Returns:
    Whether this is one of several processes.

  Raises:
    UsageError: incomplete settings, or the processes did not meet within `timeout_s` seconds.
  """
  given = (coordinator, num_processes, process_id)
  values = [os.environ.get(n) if v is None else v for n, v in zip(ENVIRONMENT, given, strict=True)]
  if all(value in (None, "") for value in values):
    if auto:
      _join(None, None, None, timeout_s)
    return auto and jax.process_count() > 1
  address, count, index = _check_settings(values)
  if count > 1:
    _join(address, count, index, timeout_s)
    # jax takes process 0's word for it, in silence.
    same_everywhere(f"{count} processes", "RTUNE_NUM_PROCESSES")
  return count > 1


def _check_settings(values: Sequence[str | int | None]) -> tuple[str, int, int]:
  missing = [n for n, v in zip(ENVIRONMENT, values, strict=True) if v in (None, "")]
  if missing:
    raise UsageError(
      f"{' and '.join(missing)} must be set too: {', '.join(ENVIRONMENT)} go together"
    )
  address = str(values[0])
  if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdigit():
    raise UsageError(f"RTUNE_COORDINATOR must be host:port; it is {address!r}")
  try:
    count, index = int(values[1]), int(values[2])
  except ValueError:
    raise UsageError(
      f"RTUNE_NUM_PROCESSES ({values[1]}) and RTUNE_PROCESS_ID ({values[2]}) must be integers"
    ) from None
  if not 0 <= index < count:
    raise UsageError(f"RTUNE_PROCESS_ID must be 0 to {count - 1}; it is {index}")
  return address, count, index


def _join(address: str | None, count: int | None, index: int | None, timeout_s: float) -> None:
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  failures: list[Exception] = []

  def connect():
    try:
      jax.distributed.initialize(
        address,
        count,
        index,
        cluster_detection_method="deactivate" if address else None,
        initialization_timeout=int(timeout_s) + 60,
        heartbeat_timeout_seconds=60,
      )
    except Exception as error:
      failures.append(error)

  # At its own timeout jax aborts the interpreter with a C++ stack, which nothing can catch; so it
  # waits in a thread, longer than this process does.
  thread = threading.Thread(target=connect, daemon=True)
  thread.start()
  thread.join(timeout_s)
  where = address or "the coordinator that jax found"
  if thread.is_alive():
    role = f"process {index} of {count}" if address else "this process"
    raise UsageError(
      f"the processes did not meet at {where} within {timeout_s:g} s ({role}): check that "
      f"the address is process 0's and reachable, and that all processes run, each with its own id"
    )
  if failures:
    raise UsageError(
      f"cannot join other processes at {where}: {failures[0]}; "
      f"where jax does not know the cluster, set {', '.join(ENVIRONMENT)}"
    ) from failures[0]


def _shorten(lines: set[str]) -> str:
  first = min(lines, default="nothing more").strip()
  return repr(first if len(first) <= 120 else first[:117] + "...")
