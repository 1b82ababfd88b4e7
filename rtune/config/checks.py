"""Which values the knobs of knobs.py may take."""

import dataclasses
import importlib
import math
import sys
from typing import Any

from rtune.config.optim_checks import check_optim
from rtune.errors import UsageError
from rtune.models.sizes import check_model

OPEN = ("args", "splits")  # settings that take any name
_TAKEN = ("val", "reward", "time", "seconds")  # no names of splits: the log has them already
_MOST = 2**31 - 1
BASELINES = ("leave_one_out", "paper", "group_mean", "greedy", "batch", "none")
TRACKERS = ("wandb", "trackio", "mlflow")
LABELERS = ("", "model", "person")
SELECTIONS = ("balanced", "threshold")
_WORDS = {
  "reward.on_error": ("stop", "skip"),
  "checkpoints.on_error": ("stop", "warn"),
  "checkpoints.best_is": ("", "max", "min"),
  "data.on_error": ("stop", "skip"),
}
_COMPARE_SIBLINGS = ("leave_one_out", "paper", "group_mean")
_AT_LEAST_ONE = (
  *("reward.num_samples", "reward.overlap", "data.eval_batch_size", "data.threads"),
  *(f"actor_critic.{key}" for key in ("num_samples", "capacity", "replayed")),
  *(f"actor_critic.{key}" for key in ("critic_updates", "critic_width")),
  *("log_every", "checkpoints.every", "checkpoints.keep_last", "max_bad_steps", "eval_beam"),
)
_NOT_NEGATIVE = (
  *("reward.kl", "reward.timeout_s", "data.timeout_s", "eval_every", "eval_examples"),
  *("reward.workers", "reward.resample", "samples_every", "actor_critic.kl_bound"),
  *("data.prefetch", "data.cache_mb", "data.mosaic", "data.views", "data.features_mb"),
  *("data.skip_at_most", "data.skip_share"),
  *("checkpoints.keep_every", "checkpoints.patience", "seed"),
)


def get(config: Any, path: str) -> Any:
  """The value at a dotted path of a dataclass or ConfigDict."""
  for name in path.split("."):
    config = getattr(config, name)
  return config


def phase_names(config: Any) -> tuple[str, ...]:
  """The phases that a Config has settings for."""
  return tuple(name for name, value in vars(config).items() if hasattr(value, "steps"))


def check(config: Any) -> None:
  """Raises UsageError for the first value of a Config that is out of its range."""
  _check_numbers(config, "config")
  check_model(config.model, "config.model")
  _check_ranges(config)
  for name in config.phases:
    if name in phase_names(config):
      phase = getattr(config, name)
      check_optim(phase.optim, phase.steps, f"config.{name}.optim")
  _check_words(config)
  _check_phases(config)
  _check_reward(config)
  _check_adapting(config)
  _check_actor_critic(config)
  _check_best(config)
  _check_trackers(config.trackers)
  parts = {path: get(config, path) for path in ("task", "policy", "data.train", "data.val")}
  parts |= {f"data.splits.{name}": part for name, part in config.data.splits.items()}
  parts |= {f"metrics[{place}]": part for place, part in enumerate(config.metrics)}
  named = dict(parts)
  for phase in phase_names(config):
    settings = {phase: getattr(config, phase)}
    settings |= {f"{phase}.{key}": value for key, value in vars(getattr(config, phase)).items()}
    for key, value in settings.items():
      for place, part in enumerate(value) if isinstance(value, tuple) else [("", value)]:
        if hasattr(part, "fn"):
          named[f"{key}[{place}]" if isinstance(value, tuple) else key] = part
  for path, part in named.items():
    _check_code(part, path)
  for path, part in parts.items():
    if not part.fn:
      raise UsageError(f"config.{path}.fn is empty; it names the code to use ('module:attribute').")
  for name in config.data.splits:
    if not name.isidentifier() or name in _TAKEN:
      raise UsageError(
        f"config.data.splits names {name!r}; take a word other than {', '.join(_TAKEN)}, such as "
        "night."
      )


def _check_ranges(config: Any) -> None:
  phases = phase_names(config)
  at_least_one = [f"{phase}.{key}" for phase in phases for key in ("batch_size", "accumulate")]
  not_negative = [f"{phase}.steps" for phase in phases]
  for paths, least in (((*at_least_one, *_AT_LEAST_ONE), 1), ((*not_negative, *_NOT_NEGATIVE), 0)):
    for path in paths:
      if get(config, path) < least:
        raise UsageError(f"config.{path} is {get(config, path)}; it must be at least {least}.")
  multiples = [(f"{phase}.batch_size", f"{phase}.accumulate") for phase in phases]
  for whole, part in (*multiples, ("reward.batch_size", "reward.overlap")):
    if get(config, whole) % get(config, part):
      raise UsageError(
        f"config.{whole}={get(config, whole)} is not a multiple of "
        f"config.{part}={get(config, part)}."
      )


def _check_numbers(settings: Any, path: str) -> None:
  """No setting means anything when it is infinite, NaN, or an integer of more than 32 bits."""
  for name, value in vars(settings).items():
    if dataclasses.is_dataclass(value):
      _check_numbers(value, f"{path}.{name}")
    elif isinstance(value, float) and not math.isfinite(value):
      raise UsageError(f"{path}.{name} is {value}; it must be a finite number.")
    elif isinstance(value, int) and not -_MOST <= value <= _MOST:
      raise UsageError(f"{path}.{name} is {value}; it must be at most {_MOST}.")


def _check_code(part: Any, path: str) -> None:
  """A name of Python's own library can be looked up now: it must be something to call."""
  module, _, attribute = part.fn.partition(":")
  if module.split(".")[0] not in sys.stdlib_module_names or not attribute:
    return
  try:
    found = getattr(importlib.import_module(module), attribute)
  except (ImportError, AttributeError):
    return  # whoever asks for it says so, with what is like it
  if not callable(found):
    raise UsageError(
      f"config.{path}.fn names {part.fn}, which is {type(found).__name__}, not a function."
    )


def _check_words(config: Any) -> None:
  for path, known in _WORDS.items():
    if get(config, path) not in known:
      raise UsageError(f"config.{path} is {get(config, path)!r}; it must be one of {known}.")


def _check_phases(config: Any) -> None:
  if not config.phases or len(set(config.phases)) < len(config.phases):
    raise UsageError(f"config.phases is {config.phases}; name each phase that is to be run once.")
  known = phase_names(config)
  for phase in config.phases:
    if phase not in known:
      names = f"{', '.join(known[:-1])} and {known[-1]}"
      raise UsageError(f"config.phases names {phase!r}; phases are {names}.")


def _check_adapting(config: Any) -> None:
  for phase in phase_names(config):
    adapt = getattr(get(config, phase), "adapt", None)
    if adapt is None:
      continue
    key = f"config.{phase}.adapt"
    for name, known in (("by", LABELERS), ("select", SELECTIONS)):
      if getattr(adapt, name) not in known:
        raise UsageError(f"{key}.{name} is {getattr(adapt, name)!r}; it must be one of {known}.")
    for name in ("mix", "share", "threshold", "teacher"):
      if not 0 <= getattr(adapt, name) < 1:
        raise UsageError(
          f"{key}.{name} is {getattr(adapt, name)}; it must be at least 0 and below 1."
        )
    for name in ("rounds", "budget"):
      if getattr(adapt, name) < 1:
        raise UsageError(f"{key}.{name} is {getattr(adapt, name)}; it must be at least 1.")
    if adapt.recolor and adapt.by != "model":
      raise UsageError(f"{key}.recolor is of labels that a model gives; set {key}.by=model too.")


def _check_number(config: Any, name: str, key: str) -> None:
  """Numbers of evaluations begin with what is evaluated on."""
  split, _, number = name.partition("/")
  if split not in ("val", *config.data.splits) or not number:
    known = " or ".join(f"{one}/..." for one in ("val", *config.data.splits))
    raise UsageError(f"{key} is {name!r}; name a number of evaluations, {known}.")


def _check_best(config: Any) -> None:
  best, patience, key = config.checkpoints.best, config.checkpoints.patience, "config.checkpoints"
  if best not in ("", "none"):
    _check_number(config, best, f"{key}.best")
  for place, name in enumerate(config.reward.watched):
    _check_number(config, name, f"config.reward.watched[{place}]")
  if patience and best == "none":
    raise UsageError(f"{key}.patience counts evaluations without a new best; {key}.best is 'none'.")
  if patience and not config.eval_every:
    raise UsageError(f"{key}.patience counts evaluations within a phase; set config.eval_every.")


def _check_trackers(trackers: tuple[str, ...]) -> None:
  for place, name in enumerate(trackers):
    if name not in TRACKERS and ":" not in name:
      raise UsageError(
        f"config.trackers[{place}] is {name!r}; it must be one of {TRACKERS}, or name a function "
        "('module:function')."
      )
    if name in trackers[:place]:
      raise UsageError(f"config.trackers names {name!r} twice; once is enough.")


def _check_actor_critic(config: Any) -> None:
  settings, key = config.actor_critic, "config.actor_critic"
  for name in ("critic_lr", "temperature"):
    if not getattr(settings, name) > 0:
      raise UsageError(f"{key}.{name} is {getattr(settings, name)}; it must be above 0.")
  for name in ("discount", "target_rate"):
    if not 0 <= getattr(settings, name) <= 1:
      raise UsageError(f"{key}.{name} is {getattr(settings, name)}; it must lie between 0 and 1.")
  if settings.replayed % settings.accumulate:
    raise UsageError(
      f"{key}.replayed={settings.replayed} is not a multiple of {key}.accumulate="
      f"{settings.accumulate}."
    )


def _check_reward(config: Any) -> None:
  reward = config.reward
  if reward.baseline not in BASELINES and ":" not in reward.baseline:
    raise UsageError(
      f"config.reward.baseline is {reward.baseline!r}; it must be one of {BASELINES}, or name a "
      "function ('module:function')."
    )
  if reward.fn and reward.fns:
    raise UsageError("config.reward.fn and config.reward.fns are both set; list all in fns.")
  compares = "reward" in config.phases and reward.baseline in _COMPARE_SIBLINGS
  if compares and reward.num_samples < 2:
    raise UsageError(
      f"config.reward.baseline={reward.baseline!r} compares samples of one image; set "
      "config.reward.num_samples to 2 or more, or the baseline to 'greedy', 'batch' or 'none'."
    )
  if reward.resample and reward.baseline not in _COMPARE_SIBLINGS and ":" not in reward.baseline:
    raise UsageError(
      f"config.reward.resample is {reward.resample}, but with config.reward.baseline="
      f"{reward.baseline!r} samples that all score alike teach something, too; set it to 0, or the "
      "baseline to 'leave_one_out', 'paper' or 'group_mean'."
    )
  if {"reward", "actor_critic"} & {*config.phases} and not (reward.fn or reward.fns):
    raise UsageError("config.reward.fn is empty; it names the reward ('module:function').")
