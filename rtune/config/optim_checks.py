"""Which values the settings of an optimizer may take."""

import math
import re
from typing import Any

from rtune.errors import UsageError

OPTIMIZERS = ("adafactor", "adam", "sgd")
SCHEDULES = ("cosine", "constant", "rsqrt", "linear")
DTYPES = ("bfloat16", "float32")


def check_optim(config: Any, total_steps: int, key: str = "optim") -> None:
  """Raises UsageError for the first field of an Optim out of range, as '{key}.field'."""
  decays_itself = config.schedule in ("cosine", "linear")
  rules = {
    "name": (config.name in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
    "lr": (0 <= config.lr < math.inf, "zero or more, and finite"),
    "schedule": (config.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
    "warmup_steps": (
      # A run of one step, as for a test of a large config, need not change the schedule.
      0 <= config.warmup_steps < total_steps or (config.warmup_steps >= 0 and total_steps <= 1),
      f"zero or more and fewer than the {total_steps} steps of the phase",
    ),
    "cooldown_steps": (
      config.cooldown_steps == 0 or (config.cooldown_steps > 0 and not decays_itself),
      "zero or more, and zero with the schedules cosine and linear, which decay by themselves",
    ),
    "timescale": (config.timescale > 0, "positive"),
    "end_factor": (0 <= config.end_factor <= 1, "between 0 and 1"),
    "weight_decay": (0 <= config.weight_decay < 1, "at least 0 and less than 1"),
    "weight_decay_pattern": (
      _is_pattern(config.weight_decay_pattern),
      "a valid regular expression",
    ),
    "clip_norm": (0 <= config.clip_norm < math.inf, "zero (off) or more, and finite"),
    "skip_above": (
      config.skip_above == 0 or 1 < config.skip_above < math.inf,
      "0 (off), or more than 1 and finite",
    ),
    "b1": (0 <= config.b1 < 1, "at least 0 and less than 1"),
    "b2": (0 <= config.b2 < 1, "at least 0 and less than 1"),
    "momentum_dtype": (config.momentum_dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
    "lr_multipliers": (
      all(_is_pattern(p) and 0 <= m < math.inf for p, m in config.lr_multipliers),
      "pairs of a valid regular expression and a multiplier of zero or more",
    ),
  }
  for field, (good, must) in rules.items():
    if not good:
      raise UsageError(f"{key}.{field} must be {must}; it is {getattr(config, field)!r}")


def _is_pattern(text: str) -> bool:
  try:
    re.compile(text)
  except re.error:
    return False
  return True
