"""Colorization tuned for colorfulness (2302.08242): learn codes of color, imitate, then tune.

  python -m rtune.main --config configs/colorization_vivid.py --workdir runs/color

Default: a code model, imitation and tuning in one run. What tuning is compared with, from the same
code model and the same imitation:

  python -m rtune.main --config configs/colorization_vivid.py:control --workdir runs/color_control
    --config.init_from=runs/color

The paper (ViT-L, ImageNet): colorfulness 0.41 -> 1.79 (H). It can be raised without end of taste,
so Hasler and Suesstrunk's measure stands beside it, and predictions keep the input's lightness.

Variants (after a colon):
  control    as many steps of more imitation as tuning would take
  coco_json  your own photographs: a folder, or a JSON or text file that lists them
             --config.data.train.args.annotations=photos --config.data.train.args.split=train
             --config.data.val.args.annotations=photos --config.data.val.args.split=val
             (without `split` for two folders, or two files)
  paper      the setting of 2302.08242, for a pod; needs rtune[tfds], imagenet2012 prepared, and
             UViM's published weights
  tiny       seconds; for tests
"""

from ml_collections import ConfigDict

from rtune import config as configs
from rtune.config import variants


def get_config(variant: str | None = None) -> ConfigDict:
  """The embedded run, or one of VARIANTS."""
  config = configs.default()
  config.task.fn = "rtune.tasks.colorization:Colorization"
  config.phases = ("codes", "mle", "reward")
  config.reward.fn = "rtune.rewards.pixels:colorfulness"
  embedded(config)
  return variants.apply(config, variant, _CHANGES)


def embedded(config: ConfigDict) -> None:
  """Rendered scenes of 48 px, 36 codes of a dictionary of 256."""
  config.task.args = {"image_size": 48, "codes": dict(variants.SMALL_CODES)}
  drawn = {"size": 48, "max_objects": 4, "smallest": 0.25}
  variants.scenes(config, "rtune.data.scenes.colored:ColoredShapes", 500, drawn)
  config.data.eval_batch_size = 100
  variants.small_model(config)
  variants.small_steps(config, rate=1.5e-3, tuning_rate=2e-4)

  config.codes.update(steps=2500, batch_size=16)
  config.codes.optim.update(name="adam", lr=2e-3, warmup_steps=200)
  config.mle.steps = 3000

  # Without KL one gaudy pattern colors every picture by step 400 (colorfulness 1.4): the reward
  # asks for many hues, not for the right ones. KL leaves what the picture lets imitation believe.
  config.reward.update(steps=300, kl=0.1)
  config.eval_every = 500
  config.eval_examples = 200


def coco_json(config: ConfigDict) -> None:
  """Photographs at 96 px, 64 codes; views are mirrored and zoomed by one to two."""
  config.task.args.update(image_size=96, scale_max=2.0)
  config.task.args.codes.update(code_length=64)
  config.data.eval_batch_size = 32
  config.model.encoder.patch_size = 16
  config.codes.update(steps=2000, batch_size=16)
  config.mle.update(steps=1500, batch_size=16)
  config.reward.update(steps=200, batch_size=8, num_samples=6)
  variants.own_files(config, "rtune.data.sources.photographs:Photographs")
  config.eval_every = 500


def paper(config: ConfigDict) -> None:
  """2302.08242, section on colorization. H: read in a primary source; M, L: from memory, unsure.

  It starts from UViM's published weights (storage.googleapis.com/big_vision/uvim). For all of it,
  set codes_init and init_from to "", and encoder_init to a ViT-L/16 of ImageNet-21k, as UViM does.
  """
  config.codes_init = "color_stageI_params.npz"  # H: UViM's
  config.init_from = "color_stageII_params.npz"  # H: UViM's
  config.task.args = {
    "image_size": 512,  # H
    "gray": "luma",  # H: BT.601, three times
    "keep_lightness": False,  # H: UViM clips what its decoder says
    "flip": 0.5,  # H
    "scale_max": 4.47,  # M: in place of crops of 5 to 100 % of the area
    "codes": dict(variants.UVIM_CODES),  # H
  }
  config.data.train.fn = config.data.val.fn = "rtune.data.sources.tfds_photographs:TfdsPhotographs"
  config.data.train.args = {"name": "imagenet2012", "split": "train[4096:]"}  # H
  config.data.val.args = {"name": "imagenet2012", "split": "validation"}
  variants.paper(config, "L")  # H: ViT-L/16, Adafactor
  config.model.decoder.update(width=1024, depth=24, num_heads=16, mlp_dim=4096)  # H

  config.codes.update(steps=124_714, batch_size=1024)  # H: 100 epochs; M: of 1,277,071
  config.codes.optim.update(lr=4e-4, warmup_steps=4000)  # H
  config.codes.optim.update(weight_decay=4e-5, b2=0.95, clip_norm=1.0)  # H
  config.mle.update(steps=124_714, batch_size=512)  # H: 50 epochs; M: of 1,277,071
  config.mle.optim.update(lr=1e-3, warmup_steps=4000)  # H
  config.mle.optim.update(weight_decay=1e-6, b2=0.95, clip_norm=0.0)  # H
  config.mle.optim.lr_multipliers = (("encoder/.*", 0.1),)  # H

  config.reward.update(
    steps=1000,  # L: about a thousand
    batch_size=128,  # L: as for panoptic quality
    num_samples=2,  # L: H for Algorithm 2, unknown for this task
    kl=0.0,  # M: the paper has none
  )
  config.reward.args = {"threshold": 10.0, "bins": 7}  # M
  config.reward.optim.lr = 3e-7  # L
  config.reward.optim.warmup_steps = 100  # L: a short one


def tiny(config: ConfigDict) -> None:
  """Every part of a run, in seconds."""
  variants.tiny_codes(config)
  config.data.train.args.num = 200


_CHANGES = {"control": variants.control, "coco_json": coco_json, "paper": paper, "tiny": tiny}
VARIANTS = ("", *_CHANGES)
