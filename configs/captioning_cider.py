"""Captioning tuned for CIDEr-D (2302.08242, section on captioning): learn captions, then tune.

  python -m rtune.main --config configs/captioning_cider.py --workdir runs/captions

Default: about ten minutes on 2 CPU cores. Compare with the same number of steps of more imitation:

  python -m rtune.main --config configs/captioning_cider.py:control --workdir runs/captions_control

The paper (ViT-B, COCO): CIDEr 120.0 -> 134.5; ViT-L 121.7 -> 138.7 (M: from memory).

Variants (after a colon):
  control    MLE, then as many steps of more MLE as tuning would take
  coco_json  your own COCO-format captions, on the features of a VGG16 where
             pip install 'rtune[backbones]' has been run:
             --config.data.train.args.annotations=train.json
             --config.data.val.args.annotations=val.json
  from_scratch  the same without a backbone, for a ViT as encoder_init
  paper      the setting of 2302.08242, for a pod; needs rtune[tfds] and coco_captions prepared
  tiny       seconds; for tests
"""

from ml_collections import ConfigDict

from rtune import config as configs
from rtune.config import variants


def get_config(variant: str | None = None) -> ConfigDict:
  """The embedded run, or one of VARIANTS."""
  config = configs.default()
  config.task.fn = "rtune.tasks.captioning:Captioning"
  embedded(config)
  return variants.apply(config, variant, _CHANGES)


def embedded(config: ConfigDict) -> None:
  """Rendered scenes with five captions each, and a model of 0.2 M parameters."""
  config.task.args = {"image_size": 48, "length": 20}
  drawn = {"size": 48, "max_objects": 4, "smallest": 0.25}
  variants.scenes(config, "rtune.data.scenes.captioned:CaptionedShapes", 1000, drawn)
  config.data.eval_batch_size = 250
  variants.small_model(config)
  variants.small_steps(config, rate=2e-3, tuning_rate=4e-4)
  config.mle.steps = 6000
  config.reward.update(fn="rtune.rewards.text:cider_d", steps=1200)
  config.eval_every = 600
  config.eval_examples = 250
  config.eval_beam = 3


def from_scratch(config: ConfigDict) -> None:
  """Photographs at 96 px; words that occur at least twice.

  A few hundred teach little more than what captions are like.
  """
  config.task.args = {"image_size": 96, "length": 24, "min_count": 2}
  config.data.eval_batch_size = 32
  config.mle.update(steps=1000, batch_size=16)
  config.reward.update(steps=300, batch_size=16, num_samples=6)
  variants.own_files(config, "rtune.data.sources.coco_captions:CocoCaptions")
  config.eval_every = 250


def coco_json(config: ConfigDict) -> None:
  """Photographs at 160 px on a backbone, or from scratch."""
  from_scratch(config)
  if variants.has_backbone("195 photographs of COCO come to CIDEr 0.17 instead of 0.05"):
    variants.on_backbone(config, patch_size=16)
    config.model.decoder.update(width=128, depth=2, num_heads=4, mlp_dim=256)
    config.model.encoder.dropout = config.model.decoder.dropout = 0.2
    config.mle.optim.lr = 1e-3


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
  variants.paper(config, "B")  # H: ViT-B/16, Adafactor; M: ViT-L as well
  config.model.decoder.update(
    width=768, depth=6, num_heads=12, mlp_dim=3072
  )  # L: 6 layers; width unknown

  config.mle.update(steps=10_000, batch_size=256)  # L: not known
  config.mle.optim.update(lr=3e-4, warmup_steps=1000)  # L
  config.mle.optim.lr_multipliers = (("encoder/.*", 0.1),)  # M: as UViM

  config.reward.update(
    steps=10_000,  # M
    batch_size=256,  # M
    num_samples=8,  # L: 7 beside the one with the gradient
  )
  config.reward.optim.lr = 1e-5  # L
  config.reward.optim.lr_multipliers = (("encoder/.*", 0.1),)  # L
  config.reward.optim.warmup_steps = 1000  # L: a short one, as for detection


def tiny(config: ConfigDict) -> None:
  """Every part of a run, in seconds."""
  variants.tiny(config)
  config.data.train.args.num = 200


_CHANGES = {
  **{"control": variants.control, "coco_json": coco_json, "from_scratch": from_scratch},
  **{"paper": paper, "tiny": tiny},
}
VARIANTS = ("", *_CHANGES)
