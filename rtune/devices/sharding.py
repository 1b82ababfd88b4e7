"""The mesh of devices and where arrays live on it.

The mesh has two axes. A batch is split over both; parameters are either on every device, or
("fsdp") split over the axis "fsdp", or over "data" where "fsdp" has one device.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from rtune.errors import UsageError

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
  mesh: Mesh | AbstractMesh,
  tree: PyTree,
  strategy: str = "replicate",
  min_size: int = 2**20,
  stacked: bool = False,
) -> PyTree[NamedSharding]:
  """Where each leaf of `tree` lives: parameters, optimizer state or a whole training state.

  It looks at shapes alone, so a moment shaped like its parameter lies where the parameter does,
  whatever its type, and factored moments need no rule of their own.

  Args:
    mesh: from `make_mesh`.
    tree: arrays or their shapes (`jax.eval_shape`).
    strategy: "replicate", or "fsdp": the largest dimension that the axis divides is split.
    min_size: leaves of fewer elements are replicated; to gather them costs more than it saves.
    stacked: leaves are stacks [N, ...] of what has such a place; nothing is sent to stack it.
  """
  if strategy not in STRATEGIES:
    raise UsageError(f"strategy must be one of {', '.join(STRATEGIES)}; it is {strategy!r}")
  axis = "fsdp" if mesh.shape["fsdp"] > 1 else "data"
  parts, first = mesh.shape[axis], 1 if stacked else 0

  def place(leaf) -> NamedSharding:
    shape = np.shape(leaf)[first:]
    fits = [d for d, size in enumerate(shape) if size and size % parts == 0]
    if strategy == "replicate" or parts == 1 or np.prod(shape) < min_size or not fits:
      return replicated(mesh)
    split = max(fits, key=lambda d: shape[d])
    return NamedSharding(mesh, PartitionSpec(*[None] * (first + split), axis))

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


def eval_batch(
  size: int, mesh: Mesh | AbstractMesh, key: str = "config.data.eval_batch_size"
) -> tuple[int, bool]:
  """Rows of a batch of evaluation, and whether just one of them counts: where the size is 1.

  Raises:
    UsageError: another size that the devices cannot share.
  """
  if size == 1:
    return mesh.size, True
  check_divisible(size, mesh, 1, key)
  return size, False


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
