"""Every knob of rtune, once: frozen dataclasses with a comment on each field.

A config file is Python with `get_config(variant) -> ConfigDict`, which starts from `default()` and
sets only what differs. `parse` turns the result into these dataclasses, strictly. Light on purpose:
no jax here, so that a typo is answered before anything heavy is imported.
"""

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_collections

from rtune.errors import UsageError


@dataclass(frozen=True)
class Part:
  """A piece of code by name, with its arguments."""

  fn: str = ""  # "package.module:attribute" or "path/to/file.py:attribute"
  args: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments, plain values


@dataclass(frozen=True)
class Encoder:
  """The image encoder, a ViT."""

  variant: str = ""  # "Ti", "S", "B", "L" or "H"; overrides the four sizes below
  patch_size: int = 16  # pixels; the image size must be a multiple of it
  width: int = 768  # token width
  depth: int = 12  # layers
  num_heads: int = 12  # attention heads
  mlp_dim: int = 3072  # hidden width of the MLPs
  conv_stem: bool = False  # stride-2 convolutions instead of one patch projection
  dropout: float = 0.0  # while imitating only
  drop_path: float = 0.0  # stochastic depth of the last layer, while imitating only


@dataclass(frozen=True)
class Decoder:
  """The autoregressive decoder."""

  width: int = 512  # token width
  depth: int = 6  # layers
  num_heads: int = 8  # attention heads
  mlp_dim: int = 2048  # hidden width of the MLPs
  dropout: float = 0.0  # while imitating only
  drop_path: float = 0.0  # stochastic depth of the last layer, while imitating only


@dataclass(frozen=True)
class Model:
  """Sizes and numerics of the network."""

  encoder: Encoder = Encoder()  # of images
  decoder: Decoder = Decoder()  # of answers
  dtype: str = "auto"  # of compute: "float32", "bfloat16"; auto: bfloat16 except on CPU
  remat: bool = False  # recompute activations in the backward pass: less memory, more time
  cache_block: int = (
    64  # the sampler's caches grow by this many tokens; memory traffic for compiles
  )


@dataclass(frozen=True)
class Data:
  """Where examples come from; a Part gives a Source."""

  train: Part = Part()  # what is trained on
  val: Part = Part()  # what is evaluated on, every example once
  threads: int = 8  # threads that read and transform
  prefetch: int = 4  # batches prepared ahead by each process
  eval_batch_size: int = 64  # images a step of evaluation, over all devices


@dataclass(frozen=True)
class Optim:
  """Optimizer and schedule of one phase."""

  name: str = "adafactor"  # "adafactor" (variant of Zhai et al. 2021), "adam" or "sgd"
  lr: float = 1e-3  # peak learning rate, reached after warmup
  schedule: str = "cosine"  # after warmup: "cosine", "linear", "rsqrt" or "constant"
  warmup_steps: int = 0  # steps in which the rate rises linearly from 0
  cooldown_steps: int = 0  # last steps of "constant" and "rsqrt", falling to end_factor
  timescale: int = 10_000  # of "rsqrt": steps until the rate has fallen by the square root of 2
  end_factor: float = 0.0  # last rate over peak rate, for "cosine", "linear" and cooldown
  weight_decay: float = 0.0  # share that a parameter loses in a step; follows the schedule, not lr
  weight_decay_pattern: str = r"(.*/)?kernel"  # names of the parameters that decay (full match)
  clip_norm: float = 1.0  # largest norm of the whole gradient; 0 = no clipping
  b1: float = 0.9  # decay of the first moment; 0 keeps none
  b2: float = 0.999  # decay of the second moment; of adafactor, the most that 1 - t^-0.8 may reach
  momentum_dtype: str = "bfloat16"  # type of adafactor's first moment: "bfloat16" or "float32"
  lr_multipliers: tuple[
    tuple[str, float], ...
  ] = ()  # (name pattern, factor), first match; 0 freezes


@dataclass(frozen=True)
class Imitate:
  """A phase of maximum likelihood."""

  steps: int = 1000  # updates
  batch_size: int = 64  # images a step, over all devices
  accumulate: int = 1  # splits a batch into this many parts, one after the other
  mistakes: Part = Part()  # makes answers with mistakes (task, batch, key), for the extra loss
  supervised: Part = Part()  # extra loss on them, as reward.supervised
  supervised_weight: float = 0.3  # its weight
  optim: Optim = Optim()  # optimizer


@dataclass(frozen=True)
class Reward:
  """A phase of REINFORCE."""

  fn: str = ""  # the reward: "package.module:function" or "path/to/file.py:function"
  args: Mapping[str, Any] = field(default_factory=dict)  # its keyword arguments
  steps: int = 1000  # updates
  batch_size: int = 64  # images a step, over all devices
  num_samples: int = 4  # answers drawn for each image
  accumulate: int = 1  # splits the update of a batch into this many parts
  baseline: str = "leave_one_out"  # or "paper" (gradient on one sample), "greedy", "batch", "none"
  normalize: bool = False  # divide advantages by their deviation within the image's group
  kl: float = 0.0  # weight of KL to the model that tuning starts from
  entropy: float = 0.0  # weight of the entropy bonus
  supervised: Part = Part()  # extra loss on the policy's own samples, such as expected IoU
  supervised_weight: float = 0.3  # its weight
  on_error: str = "stop"  # a host reward that raises ends the run; "skip" leaves the sample out
  overlap: int = 1  # parts of a batch: the host scores one while the device samples the next
  timeout_s: float = 0.0  # seconds that one call of a host reward may take; 0 = no limit
  optim: Optim = Optim(lr=1e-6, schedule="constant")  # optimizer


@dataclass(frozen=True)
class Checkpoints:
  """How a run survives."""

  every: int = 1000  # steps between saves of the training state
  keep_last: int = 2  # newest ones that stay
  keep_every: int = 0  # steps whose multiples stay for good; 0 = none


@dataclass(frozen=True)
class Config:
  """One run."""

  task: Part = Part()  # the task, such as rtune.tasks.detection:Detection
  model: Model = Model()  # the network
  data: Data = Data()  # training and validation examples
  phases: tuple[str, ...] = ("mle", "reward")  # what is run, in order: mle, control, reward
  mle: Imitate = Imitate()  # imitation of the ground truth
  control: Imitate = Imitate()  # more imitation: what tuning is compared with
  reward: Reward = Reward()  # tuning
  init_from: str = ""  # weights that stand for the mle phase: a .safetensors file or a workdir
  encoder_init: str = ""  # encoder weights to start mle from: big_vision .npz, HF .safetensors
  warm_start: str = ""  # another detector's weights that mle starts from, as far as they fit
  seed: int = 0  # of everything random
  log_every: int = 50  # steps between lines of metrics
  eval_every: int = 0  # steps between evaluations; 0 = at the end of a phase only
  eval_examples: int = 0  # images of the evaluations within a phase; 0 = all
  eval_beam: int = 1  # evaluate with beam search as well at the end of a phase; 1 = greedy only
  checkpoints: Checkpoints = Checkpoints()  # saving and keeping
  shard_parameters: bool = False  # spread parameters and optimizer over devices
  max_bad_steps: int = 5  # non-finite updates in a row before the run stops
  tensorboard: bool = True  # write TensorBoard events as well


def default() -> ml_collections.ConfigDict:
  """All knobs with their defaults, locked against new names; `args` take any."""
  return _to_config_dict(dataclasses.asdict(Config()))


def _to_config_dict(tree: Mapping[str, Any]) -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(tree, type_safe=False)
  config.lock()
  return _unlock_args(config)


def _unlock_args(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      value.unlock() if key == "args" else _unlock_args(value)
  return config


def parse(config: ml_collections.ConfigDict | Mapping[str, Any]) -> Config:
  """Checks names, types and ranges; raises UsageError that names the key and the mend."""
  tree = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
  parsed = _build(Config, tree, "config")
  _check(parsed)
  return parsed


def _build(kind: Any, value: Any, path: str) -> Any:
  """`value` as `kind`: nested dataclasses, tuples, numbers; bool is not a number here."""
  if dataclasses.is_dataclass(kind):
    return _build_dataclass(kind, value, path)
  origin = typing.get_origin(kind)
  if origin is tuple and isinstance(value, (tuple, list)):
    inner = typing.get_args(kind)
    inner = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
    if len(inner) == len(value):
      pairs = enumerate(zip(inner, value, strict=True))
      return tuple(_build(item, part, f"{path}[{i}]") for i, (item, part) in pairs)
  elif isinstance(value, Mapping) if origin is not None else type(value) is kind:
    return value
  elif kind is float and type(value) is int:
    return float(value)
  name = {Mapping: "a dict", tuple: str(kind)}[origin] if origin else kind.__name__
  hint = f" Write {(value,)}." if origin is tuple and isinstance(value, str) else ""
  raise UsageError(f"{path} must be {name}, not {value!r} ({type(value).__name__}).{hint}")


def _build_dataclass(kind: Any, value: Any, path: str) -> Any:
  if not isinstance(value, Mapping):
    raise UsageError(f"{path} holds settings of its own; it cannot be {value!r}.")
  hints = typing.get_type_hints(kind)
  for key in value:
    if key not in hints:
      raise unknown_key(f"{path}.{key}", list(hints))
  return kind(**{key: _build(hints[key], item, f"{path}.{key}") for key, item in value.items()})


def check_plain(kind: Any, value: Any, path: str) -> None:
  """Raises UsageError where `kind` is a number, text or bool and `value` is not one."""
  if kind in (bool, int, float, str):
    _build(kind, value, path)


def unknown_key(path: str, known: list[str]) -> UsageError:
  """The error for a key that nobody reads, with the nearest one that somebody does."""
  parent, _, key = path.rpartition(".")
  near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
  hint = f" Did you mean {parent}.{near[0]}?" if near else f" Known: {', '.join(sorted(known))}."
  return UsageError(f"Unknown config key {path}.{hint}")


def unknown_variant(variant: str, known: tuple[str, ...]) -> UsageError:
  """The error for a variant that a config file does not have."""
  names = ", ".join(name for name in known if name)
  return UsageError(f"There is no variant {variant!r}; behind the colon may stand: {names}.")


_CHOICES = {
  "reward.baseline": ("leave_one_out", "paper", "greedy", "batch", "none"),
  "reward.on_error": ("stop", "skip"),
  "model.dtype": ("auto", "float32", "bfloat16"),
  "model.encoder.variant": ("", "Ti", "S", "B", "L", "H"),
}
_PHASES = ("mle", "control", "reward")
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
  *("reward.kl", "reward.timeout_s", "eval_every", "eval_examples", "data.prefetch"),
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


def _check(config: Config) -> None:
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
      raise UsageError(f"config.phases names {phase!r}; phases are mle, control and reward.")
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
  for path in ("task", "data.train", "data.val"):
    if not get(config, path).fn:
      raise UsageError(f"config.{path}.fn is empty; it names the code to use ('module:attribute').")
  if "reward" in config.phases and not config.reward.fn:
    raise UsageError("config.reward.fn is empty; it names the reward ('module:function').")


def to_json(config: Config) -> str:
  """The config as JSON text; `from_json` reads it back."""
  return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True)


def from_json(text: str) -> Config:
  """A config that `to_json` wrote."""
  return parse(json.loads(text))
