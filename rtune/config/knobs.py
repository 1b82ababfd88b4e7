"""Every knob of rtune, once: frozen dataclasses with a comment on each field.

A config file is Python with `get_config(variant) -> ConfigDict`, which starts from `default()` and
sets only what differs. `parse` turns the result into these dataclasses, strictly. Light on purpose:
no jax here, so that a typo is answered before anything heavy is imported.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_collections

from rtune.config import checks
from rtune.config.build import as_kind
from rtune.disk import parse_json
from rtune.errors import UsageError
from rtune.models.sizes import Model


@dataclass(frozen=True)
class Part:
  """A piece of code by name, with its arguments."""

  fn: str = ""  # "package.module:attribute" or "path/to/file.py:attribute"
  args: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments, plain values


@dataclass(frozen=True)
class Weighted:
  """One of several rewards or extra losses."""

  fn: str = ""  # "package.module:attribute" or "path/to/file.py:attribute"
  args: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments, plain values
  weight: float = 1.0  # what it is multiplied by before all are added


@dataclass(frozen=True)
class Data:
  """Where examples come from; a Part gives a Source."""

  train: Part = Part()  # what is trained on
  val: Part = Part()  # what is evaluated on, every example once
  target: Part = Part()  # images of another domain, for phases that adapt to it
  splits: Mapping[str, Part] = field(default_factory=dict)  # more to evaluate on, by name
  threads: int = 8  # threads that read and transform
  prefetch: int = 4  # batches prepared ahead by each process
  cache_mb: int = 0  # memory for decoded examples in megabytes, of train and of val, a process
  mosaic: float = 0.0  # training images of four others, as a share of the training data
  views: int = 0  # views of each training example; 0: a new one each time
  features: str = ""  # folder for features of a backbone that is not trained; "": in the workdir
  features_mb: int = 4000  # room for them in megabytes; where it is less they are not kept
  on_error: str = "stop"  # an example that cannot be read ends the run; "skip" leaves it out
  skip_at_most: int = 100  # so many may be left out of a source
  skip_share: float = 0.01  # and no more than this share of it
  timeout_s: float = 1800.0  # seconds after which reading one example hangs; 0 = waits for ever
  # Images a step of evaluation, over all devices; 1: one, which may have a size of its own, however
  # many devices there are.
  eval_batch_size: int = 64


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
  skip_above: float = 0.0  # leave out updates with so many times the usual norm; 0 = none
  b1: float = 0.9  # decay of the first moment; 0 keeps none
  b2: float = 0.999  # decay of the second moment; of adafactor, the most that 1 - t^-0.8 may reach
  momentum_dtype: str = "bfloat16"  # of the first moment of adafactor and sgd; adam's is float32
  # (pattern of names, factor), the first that matches; 0 freezes.
  lr_multipliers: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Coding:
  """A phase that trains the code model of a task with dense answers."""

  steps: int = 1000  # updates
  batch_size: int = 64  # images a step, over all devices
  accumulate: int = 1  # splits a batch into this many parts, one after the other
  optim: Optim = Optim()  # optimizer


@dataclass(frozen=True)
class Adapt:
  """How a phase learns from `data.target`, images of another domain, beside its own data."""

  by: str = ""  # who labels them: "model" (itself), "person" (those chosen); "": it does not
  mix: float = 0.5  # share of examples that come from data.train; 0 = none
  select: str = "balanced"  # the model's labels to keep: "balanced", or above a "threshold"
  share: float = 0.5  # of "balanced": share of the pixels of each class, the surest
  threshold: float = 0.9  # of "threshold": least probability
  rounds: int = 1  # how often in the phase the model labels anew
  teacher: float = 0.0  # decay of the mean of weights that labels; 0 = the weights as they are
  recolor: bool = False  # the model labels the target's images in the colors of data.train
  choose: str = "diverse"  # or "random", "entropy", "impurity", or code (rtune.training.choosing)
  budget: int = 10  # images to be labeled by a person
  labels: Part = Part()  # source of what a person has labeled; else the target's own labels


@dataclass(frozen=True)
class Imitate:
  """A phase of maximum likelihood."""

  steps: int = 1000  # updates
  batch_size: int = 64  # images a step, over all devices
  accumulate: int = 1  # splits a batch into this many parts, one after the other
  mistakes: Part = Part()  # makes answers with mistakes (task, batch, key), for the extra loss
  supervised: Part = Part()  # extra loss on them, as reward.supervised
  supervised_weight: float = 0.3  # its weight
  losses: tuple[Weighted, ...] = ()  # more extra losses, on them or else on the truth
  nll_weight: float = 1.0  # of the likelihood itself; 0 leaves the extra losses alone
  running: Part = Part()  # statistic of predictions that losses may read (rtune/rewards/running.py)
  adapt: Adapt = Adapt()  # learning from another domain's images
  optim: Optim = Optim()  # optimizer


@dataclass(frozen=True)
class Reward:
  """A phase of REINFORCE."""

  fn: str = ""  # the reward: "package.module:function" or "path/to/file.py:function"
  args: Mapping[str, Any] = field(default_factory=dict)  # its keyword arguments
  fns: tuple[Weighted, ...] = ()  # several rewards instead of `fn`, each logged by its name
  steps: int = 1000  # updates
  batch_size: int = 64  # images a step, over all devices
  num_samples: int = 4  # answers drawn for each image
  accumulate: int = 1  # splits the update of a batch into this many parts
  resample: int = 0  # times that an image whose samples all score alike may draw again
  baseline: str = "leave_one_out"  # or "paper", "group_mean", "greedy", "batch", "none", or code
  normalize: bool = False  # divide advantages by the deviation of the image's rewards
  kl: float = 0.0  # weight of KL to the model that tuning starts from
  entropy: float = 0.0  # weight of the entropy bonus
  supervised: Part = Part()  # extra loss on the policy's own samples, such as expected IoU
  supervised_weight: float = 0.3  # its weight
  losses: tuple[Weighted, ...] = ()  # more extra losses (rtune/training/losses.py)
  running: Part = Part()  # statistic of predictions that rewards and losses may read
  adapt: Adapt = Adapt()  # learning from another domain's images
  on_error: str = "stop"  # a host reward that raises ends the run; "skip" leaves the sample out
  overlap: int = 1  # parts of a batch: the host scores one while the device samples the next
  timeout_s: float = 0.0  # seconds that one call of a host reward may take; 0 = no limit
  workers: int = 0  # processes that call host rewards, of each process of the run; 0: it calls them
  # Numbers of evaluations, such as "val/AP": that the reward rises while one of them falls is told,
  # for then it is being hacked; (): those that the task is judged by.
  watched: tuple[str, ...] = ()
  optim: Optim = Optim(lr=1e-6, schedule="constant")  # optimizer


@dataclass(frozen=True)
class ActorCritic:
  """A phase of soft actor-critic, for policies with decisions that follow each other.

  Its reward, which must give credit, is that of `reward`.
  """

  steps: int = 1000  # updates of the actor
  batch_size: int = 8  # images a step, over all devices
  accumulate: int = 1  # splits the actor's update into this many parts
  num_samples: int = 1  # answers drawn for each image
  capacity: int = 20_000  # decisions that the replay holds; the oldest make room
  replayed: int = 1024  # decisions of an update
  critic_updates: int = 4  # updates of the critics for each of the actor
  critic_width: int = 64  # of their two hidden layers
  critic_lr: float = 1e-3  # learning rate of critics and temperature
  discount: float = 0.0  # of what a place gains in the next round; 0: each round by itself
  target_rate: float = 0.005  # how far target critics follow in each update
  temperature: float = 0.05  # first weight of the entropy; it is learned
  target_entropy: float = -1.0  # of each number that is chosen, in nats
  kl_bound: float = 0.01  # most mean KL of a decision from one step to the next; 0 = no bound
  optim: Optim = Optim(name="adam", lr=1e-3, schedule="constant")  # optimizer of the actor


@dataclass(frozen=True)
class Checkpoints:
  """How a run survives."""

  every: int = 1000  # steps between saves of the training state
  keep_last: int = 2  # newest ones that stay
  keep_every: int = 0  # steps whose multiples stay for good; 0 = none
  on_error: str = "stop"  # a save that fails ends the run; "warn": training goes on, the next tries
  # The number of an evaluation, such as "val/AP", by which the best weights of a phase are kept
  # beside its last; "": what the task is judged by first, never the reward; "none": keep none.
  best: str = ""
  best_is: str = ""  # the "max" or the "min" of that number; "": as the task says
  patience: int = 0  # evaluations in a row without a new best that end a phase; 0 = none do


@dataclass(frozen=True)
class Config:
  """One run."""

  task: Part = Part()  # the task, such as rtune.tasks.detection:Detection
  policy: Part = Part("rtune.policies.tokens:tokens")  # what draws answers for the task's space
  model: Model = field(default_factory=Model)  # sizes that a policy may ask for by name
  data: Data = Data()  # training and validation examples
  metrics: tuple[Part, ...] = ()  # what is reported; (): what the task usually is judged by
  # Run in this order; there are codes, mle, control, pseudo, active, reward, actor_critic.
  phases: tuple[str, ...] = ("mle", "reward")
  codes: Coding = Coding()  # the code model that dense answers are written with
  mle: Imitate = Imitate()  # imitation of the ground truth
  control: Imitate = Imitate()  # more imitation: what tuning is compared with
  pseudo: Imitate = Imitate(adapt=Adapt("model"))  # imitation of the model's own labels
  active: Imitate = Imitate(adapt=Adapt("person"))  # imitation of labels that a person gives
  reward: Reward = Reward()  # tuning
  actor_critic: ActorCritic = ActorCritic()  # tuning by soft actor-critic
  # Weights are a file, its folder, a workdir, or any of these on a hub: "hf://user/name",
  # or in a cloud: "gs://bucket/run".
  init_from: str = ""  # weights that stand for the mle phase: a .safetensors file or a workdir
  codes_init: str = ""  # a code model for the codes phase: UViM .npz, .safetensors or a workdir
  encoder_init: str = ""  # a ViT or a backbone to start mle from, or "imagenet:vgg16"
  warm_start: str = ""  # weights of a model of its kind that mle starts from, as far as they fit
  seed: int = 0  # of everything random
  log_every: int = 50  # steps between lines of metrics
  eval_every: int = 0  # steps between evaluations; 0 = at the end of a phase only
  eval_examples: int = 0  # images of the evaluations within a phase; 0 = all
  eval_beam: int = 1  # evaluate with beam search as well at the end of a phase; 1 = greedy only
  # Steps between tables of a few validation images with what is drawn for them and its rewards; 0 =
  # none, since a program of its own must be compiled for it.
  samples_every: int = 0
  checkpoints: Checkpoints = Checkpoints()  # saving and keeping
  shard_parameters: bool = False  # spread parameters and optimizer over devices
  max_bad_steps: int = 5  # non-finite updates in a row before the run stops
  tensorboard: bool = True  # write TensorBoard events as well
  # Who gets the numbers and pictures of the log as well: "wandb", "trackio", "mlflow" (extras of
  # these names), or code (rtune.display.trackers.tracker:Open).
  trackers: tuple[str, ...] = ()
  report: bool = True  # write report.html at the end


def default() -> ml_collections.ConfigDict:
  """All knobs with their defaults, locked against new names; `args` and `splits` take any."""
  return _to_config_dict(dataclasses.asdict(Config()))


def _to_config_dict(tree: Mapping[str, Any]) -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict(tree, type_safe=False)
  config.lock()
  return _unlock_args(config)


def _unlock_args(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      value.unlock() if key in checks.OPEN else _unlock_args(value)
  return config


def parse(config: ml_collections.ConfigDict | Mapping[str, Any]) -> Config:
  """Checks names, types and ranges; raises UsageError that names the key and the mend."""
  tree = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
  parsed = as_kind(Config, tree, "config")
  checks.check(parsed)
  return parsed


def unknown_variant(variant: str, known: tuple[str, ...]) -> UsageError:
  """The error for a variant that a config file does not have."""
  names = ", ".join(name for name in known if name)
  return UsageError(f"There is no variant {variant!r}; behind the colon may stand: {names}.")


def as_json(config: Config) -> dict[str, Any]:
  """The config as `json.loads` of its text gives it."""
  return json.loads(to_json(config))


def to_json(config: Config) -> str:
  """The config as JSON text; `from_json` reads it back."""
  return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True)


def from_json(text: str) -> Config:
  """A config that `to_json` wrote."""
  return parse(parse_json(text))
