"""Compiled programs are executed: they are kept where nobody else can write, or not at all."""

import os
import subprocess
import sys

import jax
import pytest

from rtune.devices import cache

_NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def used(monkeypatch, tmp_path, capsys):
  """(folder that jax was told, or None) -> (the folder that is used, what was said)."""
  before = {name: getattr(jax.config, name) for name in _NAMES}
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))

  def run(named):
    jax.config.update("jax_compilation_cache_dir", None if named is None else str(named))
    cache.use()
    return jax.config.jax_compilation_cache_dir, capsys.readouterr().err

  yield run
  for name, value in before.items():
    jax.config.update(name, value)


def test_a_folder_of_our_own_is_made(used, tmp_path):
  found, told = used(None)
  assert found == str(tmp_path / "own" / "rtune" / "compiled")
  assert os.stat(found).st_mode & 0o777 == 0o700
  assert told == ""


def test_a_private_folder_is_used_as_it_is(used, tmp_path):
  assert used(tmp_path / "mine") == (str(tmp_path / "mine"), "")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o702])
def test_a_folder_that_others_can_write_is_not_used(used, tmp_path, mode):
  folder = tmp_path / "shared"
  folder.mkdir()
  folder.chmod(mode)
  found, told = used(folder)
  assert found == str(tmp_path / "own" / "rtune" / "compiled")
  assert "others can write there" in told and str(folder) in told
  assert len(told.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a folder away")
def test_a_folder_of_another_user_is_not_used(used, tmp_path):
  folder = tmp_path / "theirs"
  folder.mkdir()
  os.chown(folder, 12345, -1)
  found, told = used(folder)
  assert found != str(folder) and "belongs to another user" in told


def test_our_own_folder_that_others_can_write_is_not_used_either(used, tmp_path):
  folder = tmp_path / "own" / "rtune" / "compiled"
  folder.mkdir(parents=True)
  folder.chmod(0o777)
  found, told = used(None)
  assert found is None and "are not kept" in told


@pytest.mark.parametrize("home", ["/dev/null", "/proc/no_such_folder"])
def test_a_home_that_cannot_be_written_costs_the_cache_only(home, tmp_path):
  environment = {k: v for k, v in os.environ.items() if "CACHE" not in k} | {"HOME": home}
  program = "from rtune.devices import processes; processes.start(); print('started')"
  done = subprocess.run(
    [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True
  )
  assert done.returncode == 0 and done.stdout == "started\n", done.stderr
  assert "compiled programs are not kept" in done.stderr and "Traceback" not in done.stderr
  assert list(tmp_path.iterdir()) == []
