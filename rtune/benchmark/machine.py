"""What this machine is, and what it can do at its best: a large matrix product, a pass over memory.

python -m rtune.benchmark.machine: as JSON, for who must not hold the device, and measures there.
"""

import functools
import importlib.metadata
import json
import shutil
import subprocess

import jax
import jax.numpy as jnp

from rtune.benchmark import wheels
from rtune.benchmark.timing import interleaved
from rtune.plan.counts import Machine


@functools.cache
def measure_machine(dtype: str = "float32") -> Machine:
  """Rates of one device, the best of some repeats: a floor takes no share of others' load.

  Args:
    dtype: of the matrix product.
  """
  on_cpu = jax.default_backend() == "cpu"
  side, megabytes = (2048, 256) if on_cpu else (8192, 2048)
  # Not of ones: GPUs multiply those faster than what training has.
  square = jax.random.normal(jax.random.key(0), (side, side), dtype)
  numbers = jnp.ones((megabytes * 2**18,), jnp.float32)
  multiply, total = jax.jit(lambda x: x @ x), jax.jit(jnp.sum)

  # In a loop, in place: a fresh result would be timed for the pages that it asks for.
  @functools.partial(jax.jit, donate_argnums=0)
  def copy(x):
    return jax.lax.fori_loop(0, 4, lambda _, y: y * 1.0001, x)

  kept = [numbers + 1]

  def copied():
    kept[0] = copy(kept[0])
    return kept[0]

  timed = interleaved(
    {"multiply": lambda: multiply(square), "sum": lambda: total(numbers), "copy": copied}, 7
  )
  best = {name: min(seconds) for name, seconds in timed.seconds.items()}
  read, copying = numbers.nbytes / best["sum"], 4 * 2 * numbers.nbytes / best["copy"]
  return Machine(flops=2 * side**3 / best["multiply"], bandwidth=max(read, copying))


def describe() -> dict[str, object]:
  """Device, driver and versions, as far as they are known."""
  devices = jax.devices()
  needed = sorted({wheels.name_of(line) for line in wheels.requirements()})
  lacking = wheels.missing(needed)
  return {
    "device": devices[0].device_kind,
    "platform": devices[0].platform,
    "devices": len(devices),
    "driver": _driver(),
    "backend": " ".join(devices[0].client.platform_version.split()),
    "versions": {n: importlib.metadata.version(n) for n in needed if n not in lacking},
  }


def _driver() -> str | None:
  """Name, driver and memory, as NVIDIA's own tool says; None without it."""
  if not shutil.which("nvidia-smi"):
    return None
  query = "--query-gpu=name,driver_version,memory.total"
  done = subprocess.run(
    ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, check=False
  )
  return " ".join(done.stdout.split()) or None


def best_dtype() -> str:
  """The type of compute that a device is meant for."""
  return "float32" if jax.default_backend() == "cpu" else "bfloat16"


if __name__ == "__main__":
  print(json.dumps(describe() | measure_machine(best_dtype())._asdict()))
