"""Processes of one run: how they meet, and what they tell each other."""

import os
import pickle
import socket
import threading
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from rtune.devices import cache, peers
from rtune.display import console
from rtune.errors import UsageError

ENVIRONMENT = ("RTUNE_COORDINATOR", "RTUNE_NUM_PROCESSES", "RTUNE_PROCESS_ID")


def start(auto: bool = False) -> None:
  """Joins the other processes if there are any, and keeps compiled programs between runs.

  Args:
    auto: let jax find the other processes (SLURM, TPU pods, GKE).
  """
  if initialize_distributed(auto=auto):
    peers.remember(gather_objects([peers.here(jax.process_index())]))
  devices = _devices()
  console.start(jax.process_index())
  cache.use()
  console.stage(f"{len(devices)} x {devices[0].device_kind}, {jax.process_count()} process(es)")


def _devices() -> list[jax.Device]:
  """The devices of all processes; UsageError where there are none of the kind that is asked for."""
  try:
    return jax.devices()
  except RuntimeError as error:
    asked = os.environ.get("JAX_PLATFORMS", "")
    said = str(error).partition("\n")[0]
    if "gloo" in said:  # it looks its own host up, and says only where in its code that failed
      raise UsageError(
        f"the name of this host, {socket.gethostname()!r}, does not resolve, so that the other "
        f"processes cannot reach it; add it to /etc/hosts. ({said})"
      ) from error
    raise UsageError(
      f"jax finds no device (JAX_PLATFORMS={asked!r}): {said} Unset it, or set it to cpu."
    ) from error


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
    return auto and len({device.process_index for device in _devices()}) > 1
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
