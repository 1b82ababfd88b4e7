"""Which values the knobs of config.py may take."""

import math
from typing import Any

from rtune.errors import UsageError

_DTYPES = ("auto", "float32", "bfloat16")
_CHOICES = {
  "reward.baseline": ("leave_one_out", "paper", "greedy", "batch", "none"),
  "reward.on_error": ("stop", "skip"),
  "model.dtype": _DTYPES,
  "model.encoder.variant": ("", "Ti", "S", "B", "L", "H"),
}
_PHASES = ("codes", "mle", "control", "reward")
_AT_LEAST_ONE = (
  *(f"model.encoder.{key}" for key in ("patch_size", "width", "depth", "num_heads", "mlp_dim")),
  *(f"model.decoder.{key}" for key in ("width", "depth", "num_heads", "mlp_dim")),
  *(f"{phase}.{key}" for phase in _PHASES for key in ("batch_size", "accumulate")),
  *(
    "reward.num_samples",
    "reward.overlap",
    "data.eval_batch_size",
    "data.threads",
    "model.cache_block",
  ),
  *("log_every", "checkpoints.every", "checkpoints.keep_last", "max_bad_steps", "eval_beam"),
)
_NOT_NEGATIVE = (
  *(f"{phase}.steps" for phase in _PHASES),
  *("reward.kl", "reward.timeout_s", "eval_every", "eval_examples"),
  *("data.prefetch", "data.cache_mb"),
  *("checkpoints.keep_every", "seed"),
)
_MULTIPLES = (
  *((f"{phase}.batch_size", f"{phase}.accumulate") for phase in _PHASES),
  ("reward.batch_size", "reward.overlap"),
  *((f"model.{part}.width", f"model.{part}.num_heads") for part in ("encoder", "decoder")),
)


def get(config: Any, path: str) -> Any:
  """The value at a dotted path of a dataclass or ConfigDict."""
  for name in path.split("."):
    config = getattr(config, name)
  return config


def check(config: Any) -> None:
  """Raises UsageError for the first value of a Config that is out of its range."""
  for path, choices in _CHOICES.items():
    if get(config, path) not in choices:
      raise UsageError(f"config.{path} is {get(config, path)!r}; it must be one of {choices}.")
  for paths, least in ((_AT_LEAST_ONE, 1), (_NOT_NEGATIVE, 0)):
    for path in paths:
      if get(config, path) < least:
        raise UsageError(f"config.{path} is {get(config, path)}; it must be at least {least}.")
  if not config.phases or len(set(config.phases)) < len(config.phases):
    raise UsageError(f"config.phases is {config.phases}; name each phase that is to be run once.")
  for phase in config.phases:
    if phase not in _PHASES:
      raise UsageError(f"config.phases names {phase!r}; phases are codes, mle, control and reward.")
  for whole, part in _MULTIPLES:
    if get(config, whole) % get(config, part):
      raise UsageError(
        f"config.{whole}={get(config, whole)} is not a multiple of "
        f"config.{part}={get(config, part)}."
      )
  needs_siblings = config.reward.baseline in ("leave_one_out", "paper")
  if "reward" in config.phases and needs_siblings and config.reward.num_samples < 2:
    raise UsageError(
      f"config.reward.baseline={config.reward.baseline!r} compares samples of one image; set "
      "config.reward.num_samples to 2 or more, or the baseline to 'greedy', 'batch' or 'none'."
    )
  for part in ("encoder", "decoder"):
    if config.model.scan_layers and get(config, f"model.{part}.drop_path"):
      raise UsageError(
        f"config.model.scan_layers runs equal layers, and config.model.{part}.drop_path makes them "
        "differ: set it to 0, or scan_layers to False."
      )
  for path in ("task", "data.train", "data.val"):
    if not get(config, path).fn:
      raise UsageError(f"config.{path}.fn is empty; it names the code to use ('module:attribute').")
  if "reward" in config.phases and not config.reward.fn:
    raise UsageError("config.reward.fn is empty; it names the reward ('module:function').")


def check_codes(codes: Any, path: str) -> None:
  """Raises UsageError for the first value of a Codes that is out of its range, below `path`."""
  sizes = ("patch_size", "code_length", "width", "encoder_depth", "decoder_depth", "num_heads")
  for name in (*sizes, "mlp_dim", "dict_size", "codeword_dim"):
    if getattr(codes, name) < 1:
      raise UsageError(f"{path}.{name} is {getattr(codes, name)}; it must be at least 1.")
  for name in ("momentum", "min_count"):
    if not 0 < getattr(codes, name) < 1:
      raise UsageError(f"{path}.{name} is {getattr(codes, name)}; it must be between 0 and 1.")
  for name, choices in {"code_dropout": ("none", "random"), "dtype": _DTYPES}.items():
    if getattr(codes, name) not in choices:
      raise UsageError(f"{path}.{name} is {getattr(codes, name)!r}; it must be one of {choices}.")
  for part in (codes.num_heads, 4):
    if codes.width % part:
      raise UsageError(f"{path}.width={codes.width} is not a multiple of {part}.")
  if codes.resize and math.isqrt(codes.code_length) ** 2 != codes.code_length:
    raise UsageError(
      f"{path}.code_length={codes.code_length} is not a square number; with resize codes lie on a "
      f"square grid. Take a square number, or set {path}.resize=False."
    )
  if codes.conv_context and codes.patch_size.bit_count() != 1:
    raise UsageError(
      f"{path}.patch_size={codes.patch_size} is not a power of 2, which conv_context halves down."
    )
