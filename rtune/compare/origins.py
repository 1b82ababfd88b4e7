"""What a run is made of: its settings, also where it starts from what another run has made."""

import json
import pathlib
from typing import Any

from rtune import config as configs
from rtune.errors import UsageError
from rtune.store import run_files
from rtune.training.phases import PHASES, planned, stand_in

_STARTS = ("init_from", "codes_init", "warm_start")  # settings that may name another run
_DEEPEST = 4  # how many runs back a start is followed; two may name each other
_JUDGING = ("reward.fn", "reward.args")  # evaluations of every phase report this reward
_PHASES = {phase.name for phase in PHASES}


def is_phase(name: str) -> bool:
  """Whether rtune has a phase of this name."""
  return name in _PHASES


def read_config(folder: pathlib.Path) -> configs.Config:
  """The config of a run; UsageError, with its folder, where it cannot be read."""
  try:
    return run_files.read_config(folder)
  except UsageError as error:
    said = str(error)
    raise UsageError(said if str(folder) in said else f"{folder}: {said}") from error


def imitated_before(config: configs.Config, depth: int = _DEEPEST) -> int:
  """Steps of the imitation that another run stands for: tuning and control begin at its end."""
  origin = _origin(config)
  if not depth or origin is None or not stand_in(config, "mle"):
    return 0
  steps = sum(last - first for phase, first, last in planned(origin) if phase == "mle")
  return steps or imitated_before(origin, depth - 1)


def settings_of(
  config: configs.Config, depth: int = _DEEPEST
) -> tuple[dict[str, Any], dict[str, str]]:
  """What makes a run what it is, and what is written for runs that it starts from."""
  phases = tuple(name for name, _, _ in planned(config))
  idle = _PHASES - set(phases)
  passing = ("seed", *run_files.HARMLESS)
  values = run_files.settings(config) | {"phases": phases}
  values = {
    key: value
    for key, value in values.items()
    if key not in passing and (key.split(".")[0] not in idle or key.startswith(_JUDGING))
  }
  shown = {}
  for key in _STARTS:
    origin = _origin(config, key)
    if origin is not None and depth:
      shown[key] = _folder(values[key]).absolute().name
      values[key] = json.dumps(settings_of(origin, depth - 1)[0], sort_keys=True, default=str)
  return values, shown


def _origin(config: configs.Config, key: str = "init_from") -> configs.Config | None:
  """The config of the run that a setting names; None where it names none."""
  where = getattr(config, key)
  if not where:
    return None
  try:
    return run_files.read_config(_folder(where))
  except UsageError:
    return None  # it is gone, or no run: then its name says what it is


def _folder(where: str) -> pathlib.Path:
  """The workdir that a setting names, itself or by a file in its weights."""
  path = pathlib.Path(where).expanduser()
  return path.parent.parent if path.parent.name == "weights" else path
