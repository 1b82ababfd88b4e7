"""A run's settings: the knobs, their checks, and the names of code in them.

What config files need is here: `from rtune import config as configs; configs.default()`.
"""

from rtune.config.build import as_kind
from rtune.config.knobs import (
  ActorCritic,
  Adapt,
  Checkpoints,
  Coding,
  Config,
  Data,
  Imitate,
  Optim,
  Part,
  Reward,
  Weighted,
  as_json,
  default,
  from_json,
  parse,
  to_json,
  unknown_variant,
)
from rtune.models.sizes import CodeSizes, Decoder, Encoder, Model

__all__ = [
  "ActorCritic",
  "Adapt",
  "Checkpoints",
  "CodeSizes",
  "Coding",
  "Config",
  "Data",
  "Decoder",
  "Encoder",
  "Imitate",
  "Model",
  "Optim",
  "Part",
  "Reward",
  "Weighted",
  "as_json",
  "as_kind",
  "default",
  "from_json",
  "parse",
  "to_json",
  "unknown_variant",
]
