"""A run's settings: the knobs, their checks, and the names of code in them.

What config files need is here: `from rtune import config as configs; configs.default()`.
"""

from rtune.config.build import as_kind
from rtune.config.knobs import (
  Checkpoints,
  Codes,
  Coding,
  Config,
  Data,
  Decoder,
  Encoder,
  Imitate,
  Model,
  Optim,
  Part,
  Reward,
  default,
  from_json,
  parse,
  to_json,
  unknown_variant,
)

__all__ = [
  "Checkpoints",
  "Codes",
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
  "as_kind",
  "default",
  "from_json",
  "parse",
  "to_json",
  "unknown_variant",
]
