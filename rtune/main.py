"""Flags -> config -> run.

python -m rtune.main --config configs/detection_recall.py[:variant] --workdir runs/mine
  [--config.any.key=value ...] [--force] [--allow_config_change] [--distributed]
"""

import os
import pathlib
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rtune import commands
from rtune import config as configs
from rtune.config import Config
from rtune.config.load import load_config
from rtune.errors import UsageError
from rtune.store.remote import place

_USAGE = (
  "usage: python -m rtune.main --config configs/NAME.py[:variant] [--workdir DIR] "
  "[--config.key=value ...] [--force] [--allow_config_change] [--distributed]"
)
_HELP = """Trains a model and tunes it, as a config says; the same command again resumes it.

  --config    config file, with a variant behind it; its head says what there is
  --workdir   folder of the run, or a URL: gs://bucket/run; default: runs/NAME_TIME
  --config.*  other values of the config: --config.reward.steps=200
  --force     take the workdir even from a run that seems alive
  --allow_config_change   resume with other settings than those the run began with
  --distributed           one of several processes; jax finds the others

example: rtune train --config configs/detection_recall.py --workdir runs/recall --config.seed=1"""
_PATIENCE_S = 5.0  # that threads of a run that is over get to end
_SWITCHES = ("force", "allow_config_change", "distributed")


class Flags(NamedTuple):
  """The command line.

  Attributes:
    config: path of a config file, with `:variant` behind it if wanted.
    overrides: (dotted key, text) pairs, in order.
    workdir: where the run lives; by default named after the config and the time.
    switches: which of `_SWITCHES` are on.
  """

  config: str
  overrides: tuple[tuple[str, str], ...]
  workdir: str
  switches: frozenset[str]


def parse_flags(args: Sequence[str]) -> Flags:
  """Reads `--name=value` and `--name value`; UsageError for anything else."""
  values, overrides, switches, rest = {}, [], set(), list(args)
  while rest:
    flag = rest.pop(0)
    name, equals, value = flag.removeprefix("--").partition("=")
    if not flag.startswith("--"):
      raise UsageError(f"{flag!r} is not a flag.\n{_USAGE}")
    if name in _SWITCHES and not equals:
      switches.add(name)
      continue
    if name not in ("config", "workdir") and not name.startswith("config."):
      raise UsageError(f"Unknown flag --{name}.\n{_USAGE}")
    if not equals:
      if not rest:
        raise UsageError(f"--{name} needs a value.\n{_USAGE}")
      value = rest.pop(0)
    if name.startswith("config."):
      overrides.append((name.removeprefix("config."), value))
    else:
      values[name] = value
  if not values.get("config"):
    raise UsageError(f"--config is missing.\n{_USAGE}")
  stem = pathlib.Path(values["config"].partition(":")[0]).stem
  workdir = values.get("workdir") or f"runs/{stem}_{time.strftime('%Y%m%d_%H%M%S')}"
  if place.is_remote(workdir):
    place.check(workdir, "--workdir")
  else:
    commands.local(workdir, "--workdir")
  return Flags(values["config"], tuple(overrides), workdir, frozenset(switches))


def train(
  config: Config | ConfigDict | str,
  workdir: str | os.PathLike[str],
  *,
  overrides: Mapping[str, Any] = MappingProxyType({}),
  force: bool = False,
  allow_config_change: bool = False,
) -> dict[str, Any]:
  """Trains a model and tunes it, writes the report, and shows the table of results.

  A run that was interrupted goes on.

  Args:
    config: a config, or the name of a config file, with `:variant` behind it if wanted.
    workdir: folder of the run, or a URL such as "gs://bucket/run", of which a folder of this
      machine is sent there (rtune/store/remote).
    overrides: other values of a config file's settings, by dotted name: {"reward.steps": 200}.
    force: take the workdir even from a run that seems alive.
    allow_config_change: resume with other settings than those the run began with.

  Returns:
    What results.json holds: {"mle": {"val/AR": ...}, "reward": {...}, "seconds": {...}}.

  Raises:
    UsageError, DataError: settings or data that cannot be used, before training starts.
    NumericError, StorageError, Preempted: see `rtune.training.loop.train`.
  """
  config = _as_config(config, overrides)
  from rtune.store.remote import mirror
  from rtune.training import loop
  from rtune.training.setup import prepare

  setup = prepare(config)
  with mirror.mirrored(workdir, force) as folder:
    results = loop.train(setup, folder, force=force, allow_config_change=allow_config_change)
    _show(setup, folder, results, os.fspath(workdir))
  return results


def _as_config(config: Config | ConfigDict | str, overrides: Mapping[str, Any]) -> Config:
  if isinstance(config, str):
    texts = ((k, v if isinstance(v, str) else repr(v)) for k, v in overrides.items())
    return load_config(config, tuple(texts))
  if overrides:
    raise UsageError("overrides are of a config file; set the values in the config itself.")
  return config if isinstance(config, Config) else configs.parse(config)


def main(args: Sequence[str]) -> int:
  """Runs and returns the exit code: 0 done, 2 usage, 3 data, 4 numbers, 5 storage, 75 stopped."""

  def run() -> None:
    if {"--help", "-h"} & {*args}:
      print(f"{_USAGE}\n\n{_HELP}")
      return
    flags = parse_flags(args)
    config = load_config(flags.config, flags.overrides)
    # Only now, when the command makes sense: jax takes seconds to import and claims devices.
    from rtune.devices import processes
    from rtune.display import console

    processes.start(auto="distributed" in flags.switches)
    console.stage(f"workdir {flags.workdir}")
    kept = {name: name in flags.switches for name in ("force", "allow_config_change")}
    train(config, flags.workdir, **kept)

  return commands.guarded(run)


def _show(setup, folder: str, results: Mapping[str, object], workdir: str) -> None:
  """The report and the final table, by the first process; neither can fail a run that is done."""
  import jax

  from rtune.display import console
  from rtune.report.write import write_report
  from rtune.tasks.task import view
  from rtune.training.tables import results_table

  if jax.process_index():
    return
  if setup.config.report:
    console.stage("writing the report")
    try:
      console.say(str(write_report(folder, setup.val)))
    except Exception as error:
      console.warn(
        f"the report could not be written ({type(error).__name__}: {error}); the run is complete. "
        f"Try again: python -m rtune.report --workdir {workdir}"
      )
  console.say(results_table(results, view(setup.task).headline))


def _leave(code: int) -> None:
  """Ends the process; one of several that failed does not wait for the others to agree."""
  if code and "jax" in sys.modules and sys.modules["jax"].process_count() > 1:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  # A thread that a reward has left hanging must not hold the process back.
  mine = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
  for thread in mine:
    thread.join(_PATIENCE_S)
  if any(thread.is_alive() for thread in mine):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


if __name__ == "__main__":
  _leave(main(sys.argv[1:]))
