"""What a process does before anything touches a device."""

import os
import pathlib

import jax

from rtune import console, sharding


def start(auto: bool = False) -> None:
  """Joins the other processes if there are any, and keeps compiled programs between runs.

  Args:
    auto: let jax find the other processes (SLURM, TPU pods, GKE).
  """
  sharding.initialize_distributed(auto=auto)
  console.start(jax.process_index())
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update("jax_compilation_cache_dir", str(_cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
  devices = jax.devices()
  console.stage(f"{len(devices)} x {devices[0].device_kind}, {jax.process_count()} process(es)")


def _cache_folder() -> pathlib.Path:
  """A folder that only this user can write: what is in it gets executed."""
  root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
  folder = root / "rtune" / "compiled"
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  return folder
