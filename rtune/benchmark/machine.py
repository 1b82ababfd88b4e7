"""What this machine can do at its best: a large matrix product, a pass over memory."""

import functools

import jax
import jax.numpy as jnp

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
  square = jnp.ones((side, side), dtype)
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
