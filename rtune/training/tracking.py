"""Opens the log of a run, and whom the config wants to follow it.

trackers.json  {tracker: id of its run}, so that a run which is resumed goes on there, too
"""

import functools
import importlib.util
import json
import pathlib
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager

import jax

from rtune import config as configs
from rtune.config.checks import TRACKERS
from rtune.config.names import resolve
from rtune.disk import parse_json, write_whole
from rtune.display.logs import MetricLog
from rtune.display.trackers.background import Background
from rtune.display.trackers.tracker import Open, Session
from rtune.errors import UsageError

FILE = "trackers.json"


def check(trackers: Sequence[str]) -> None:
  """UsageError where a tracker is not installed, or its name stands for nothing that can be called.

  Nothing heavy is imported for it.
  """
  for name in trackers:
    # wandb leaves a folder of its own name where one works: to Python that is a package, too.
    spec = importlib.util.find_spec(name) if name in TRACKERS else None
    if name in TRACKERS and (spec is None or spec.origin is None):
      raise UsageError(
        f"config.trackers names {name!r}, which is not installed: pip install 'rtune[{name}]', or "
        "take it out."
      )
    opener(name)


def opened(config: configs.Config, folder: pathlib.Path, resume_step: int) -> MetricLog:
  """The log of a run that goes on after `resume_step`; the first process alone has trackers."""
  log = MetricLog(
    folder,
    resume_step=resume_step,
    process_index=jax.process_index(),
    tensorboard=config.tensorboard,
  )
  if jax.process_index() == 0:
    known, lock = _ids(folder), threading.Lock()
    for name in config.trackers:
      session = Session(folder.name, folder, configs.as_json(config), known.get(name, ""))
      remember = functools.partial(_remember, lock, folder, name)
      log.follow(Background(name, opener(name), session, remember))
  return log


def opener(name: str) -> Open:
  """What opens a tracker of a config; UsageError where there is no such code."""
  known = f"rtune.display.trackers.{name}:{name.capitalize()}"
  found = resolve(known if name in TRACKERS else name)
  if not callable(found):
    raise UsageError(f"config.trackers names {name}, which is no function.")
  return found


def _ids(folder: pathlib.Path) -> dict[str, str]:
  """Tracker -> its run; {} where nothing is known, or can be read."""
  try:
    found = parse_json((folder / FILE).read_text())
  except (OSError, ValueError):
    return {}
  return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def _remember(lock: AbstractContextManager, folder: pathlib.Path, name: str, run: str) -> None:
  with lock:  # each tracker has a thread
    write_whole(folder / FILE, json.dumps(_ids(folder) | {name: run}, indent=2) + "\n")
