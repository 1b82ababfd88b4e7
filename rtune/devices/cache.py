"""Where compiled programs are kept between runs: a folder that nobody else can write.

What is in it gets executed, so whoever can write there runs code as this user.
"""

import os
import pathlib
import stat

import jax

from rtune.display import console


def use() -> None:
  """Keeps compiled programs where jax was told to, else in the user's own cache, or not at all."""
  named = jax.config.jax_compilation_cache_dir
  if named and "://" in named:
    return  # storage of a cloud has rules of its own
  if named:
    problem = _make_private(pathlib.Path(named))
    if problem is None:
      return
    console.warn(f"compiled programs are not kept in {named}: {problem}.")
  folder = _default()
  # Without a home "~" stays as it is.
  problem = _make_private(folder) if folder.is_absolute() else "there is no home folder"
  if problem is not None:
    console.warn(
      f"compiled programs are not kept, and each start compiles anew: {folder}: {problem}. Set "
      "JAX_COMPILATION_CACHE_DIR to a folder that is yours alone."
    )
  jax.config.update("jax_compilation_cache_dir", str(folder) if problem is None else None)
  if not named:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _default() -> pathlib.Path:
  root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return pathlib.Path(root) / "rtune" / "compiled"


def _make_private(folder: pathlib.Path) -> str | None:
  """Makes the folder if need be; what keeps it from being used, None if nothing does."""
  try:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
  except OSError as error:
    return error.strerror or str(error)
  if not os.access(folder, os.W_OK | os.X_OK):
    return "it cannot be written"
  if found.st_uid not in (os.geteuid(), 0):
    return "it belongs to another user, whose programs would be run"
  if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
    return "others can write there, and what they write would be run; chmod go-w mends it"
  return None
