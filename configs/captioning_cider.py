"""Captioning tuned for CIDEr-D (2302.08242, section on captioning): learn captions, then tune.

  python -m rtune.main --config configs/captioning_cider.py --workdir runs/captions

Default: about ten minutes on 2 CPU cores. Compare with the same number of steps of more imitation:

  python -m rtune.main --config configs/captioning_cider.py:control --workdir runs/captions_control

The paper (ViT-B, COCO): CIDEr 120.0 -> 134.5; ViT-L 121.7 -> 138.7 (M: from memory).

Variants (after a colon):
  control    MLE, then as many steps of more MLE as tuning would take
  coco_json  your own COCO-format captions:
             --config.data.train.args.annotations=train.json
             --config.data.val.args.annotations=val.json
  paper      the setting of 2302.08242, for a pod; needs rtune[tfds] and coco_captions prepared
  tiny       seconds; for tests
"""

from ml_collections import ConfigDict

from rtune import config as configs

VARIANTS = ("", "control", "coco_json", "paper", "tiny")


def get_config(variant: str | None = None) -> ConfigDict:
  """The embedded run, or one of VARIANTS."""
  config = configs.default()
  config.task.fn = "rtune.tasks.captioning:Captioning"
  change = {"control": control, "coco_json": coco_json, "paper": paper, "tiny": tiny}
  if variant not in (None, *VARIANTS):
    raise configs.unknown_variant(variant, VARIANTS)
  embedded(config)
  if variant:
    change[variant](config)
  return config


def embedded(config: ConfigDict) -> None:
  """Rendered scenes with five captions each, and a model of 0.2 M parameters."""
  config.task.args = {"image_size": 48, "length": 20}
  scenes = {"size": 48, "max_objects": 4, "smallest": 0.25}
  config.data.train.fn = config.data.val.fn = "rtune.data.scenes.captioned:CaptionedShapes"
  config.data.train.args = {"split": "train", "num": 1_000_000, **scenes}
  config.data.val.args = {"split": "val", "num": 1000, **scenes}
  config.data.eval_batch_size = 250

  config.model.encoder.update(patch_size=8, conv_stem=True)
  config.model.encoder.update(width=64, depth=2, num_heads=2, mlp_dim=128)
  config.model.decoder.update(width=64, depth=2, num_heads=2, mlp_dim=128)

  config.mle.update(steps=6000, batch_size=16)
  config.mle.optim.update(name="adam", lr=2e-3, warmup_steps=200)

  config.reward.update(fn="rtune.rewards.text:cider_d", steps=1200, batch_size=16, num_samples=6)
  config.reward.optim.update(name="adam", lr=4e-4, warmup_steps=40, schedule="cosine")
  config.reward.optim.end_factor = 0.1
  config.eval_every = 600
  config.eval_examples = 250
  config.eval_beam = 3


def control(config: ConfigDict) -> None:
  """As many steps of imitation as tuning would take, with a learning rate that still moves it."""
  config.phases = ("mle", "control")
  config.control.update(steps=config.reward.steps, batch_size=config.mle.batch_size)
  config.control.optim.update(name="adam", lr=5e-4, warmup_steps=20)


def coco_json(config: ConfigDict) -> None:
  """Photographs at 96 px; words that occur at least twice.

  From scratch a few hundred photographs teach little more than what captions are like: set
  encoder_init.
  """
  config.task.args = {"image_size": 96, "length": 24, "min_count": 2}
  config.data.train.fn = config.data.val.fn = "rtune.data.sources.coco_captions:CocoCaptions"
  config.data.train.args = config.data.val.args = {"annotations": ""}
  config.data.cache_mb = 1000
  config.data.eval_batch_size = 32
  config.mle.update(steps=1000, batch_size=16)
  config.reward.update(steps=300, batch_size=16, num_samples=6)
  control(config)
  config.phases = ("mle", "reward")  # for a control, say --config.phases='("control",)'
  config.checkpoints.every = 250
  config.eval_every = 250


def paper(config: ConfigDict) -> None:
  """2302.08242, section on captioning. H: read in a primary source; M, L: from memory, unsure.

  ViT-L: --config.model.encoder.variant=L. Pieces instead of words, as the paper has them:
  --config.task.args.sentence_piece=YOURS.model
  --config.reward.fn=rtune.rewards.text:cider_d_of_pieces
  """
  config.task.args = {
    "image_size": 512,  # L: the resolution is not known to us
    "length": 32,  # L: at most 32 tokens
    "min_count": 5,  # L: of words; the paper has BERT's 30,000 word pieces
  }
  config.data.train.fn = config.data.val.fn = "rtune.data.sources.tfds_captions:TfdsCaptions"
  config.data.train.args = {"name": "coco_captions", "split": "train+restval"}
  config.data.val.args = {"name": "coco_captions", "split": "test"}
  config.data.eval_batch_size = 256
  config.data.threads = 32

  config.model.encoder.update(
    variant="B", patch_size=16, conv_stem=False
  )  # H: ViT-B/16; M: ViT-L as well
  config.model.decoder.update(
    width=768, depth=6, num_heads=12, mlp_dim=3072
  )  # L: 6 layers; width unknown
  config.model.update(remat=True, scan_layers=True)

  config.mle.update(steps=10_000, batch_size=256)  # L: not known
  config.mle.optim.update(name="adafactor", lr=3e-4, warmup_steps=1000)  # H: Adafactor; L: rate
  config.mle.optim.lr_multipliers = (("encoder/.*", 0.1),)  # M: as UViM

  config.reward.update(
    steps=10_000,  # M
    batch_size=256,  # M
    num_samples=8,  # L: 7 beside the one with the gradient
    baseline="paper",  # H: gradient on one sample, the others are its baseline
  )
  config.reward.optim.update(name="adafactor", lr=1e-5, schedule="constant")  # L
  config.reward.optim.lr_multipliers = (("encoder/.*", 0.1),)  # L
  config.reward.optim.warmup_steps = 1000  # L: a short one, as for detection
  config.shard_parameters = True
  config.eval_every = 0


def tiny(config: ConfigDict) -> None:
  """Every part of a run, in seconds."""
  config.model.encoder.update(width=32, depth=1, num_heads=2, mlp_dim=32)
  config.model.decoder.update(width=32, depth=1, num_heads=2, mlp_dim=32)
  config.mle.update(steps=20, batch_size=8)
  config.mle.optim.warmup_steps = 4
  config.control.update(steps=10, batch_size=8)
  config.control.optim.update(name="adam", warmup_steps=2)
  config.reward.update(steps=10, batch_size=4, num_samples=3)
  config.reward.optim.warmup_steps = 2
  config.data.train.args.num = 200
  config.data.val.args.num = 12
  config.data.eval_batch_size = 8
  config.log_every = config.checkpoints.every = 5
  config.eval_every = 10
  config.eval_examples = 0
