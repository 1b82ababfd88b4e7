"""Panoptic segmentation tuned for PQ (2302.08242): learn codes of segments, imitate, then tune.

  python -m rtune.main --config configs/panoptic_pq.py --workdir runs/panoptic

Default: a code model, imitation and tuning in one run. What tuning is compared with, from the same
code model and the same imitation:

  python -m rtune.main --config configs/panoptic_pq.py:control --workdir runs/panoptic_control
    --config.init_from=runs/panoptic

The paper (UViM's ViT-L, COCO): PQ 43.1 -> 46.1 (H). `val/PQ` of the phase codes is that of
reconstructed truth, the most that its codes can say (UViM: 75.8).

Variants (after a colon):
  control    as many steps of more imitation as tuning would take
  coco_json  your own COCO panoptic files, with masks of ids in the folder beside each JSON that is
             called like it (or set `masks`):
             --config.data.train.args.annotations=train.json
             --config.data.val.args.annotations=val.json
  paper      the setting of 2302.08242, for a pod; needs COCO 2017 and UViM's published weights
  tiny       seconds; for tests
"""

from ml_collections import ConfigDict

from rtune import config as configs
from rtune.config import variants


def get_config(variant: str | None = None) -> ConfigDict:
  """The embedded run, or one of VARIANTS."""
  config = configs.default()
  config.task.fn = "rtune.tasks.panoptic:Panoptic"
  config.phases = ("codes", "mle", "reward")
  config.reward.fn = "rtune.rewards.segments:matched_iou"
  embedded(config)
  return variants.apply(config, variant, _CHANGES)


def embedded(config: ConfigDict) -> None:
  """Rendered scenes of 48 px with up to six segments, 36 codes of a dictionary of 256."""
  config.task.args = {"image_size": 48, "max_segments": 8, "codes": dict(variants.SMALL_CODES)}
  # As in detection_recall.py: of objects a quarter of the image wide annotators miss a third.
  drawn = {"size": 48, "max_objects": 4, "smallest": 0.25, "small": 0.42, "miss_small": 0.85}
  variants.scenes(config, "rtune.data.scenes.panoptic:PanopticShapes", 1000, drawn)
  config.data.eval_batch_size = 100
  variants.small_model(config)
  variants.small_steps(config, rate=1.5e-3, tuning_rate=2e-4)

  config.codes.update(steps=3000, batch_size=16)
  config.codes.optim.update(name="adam", lr=2e-3, warmup_steps=200)
  config.mle.steps = 6000

  config.reward.steps = 2000
  # Where one guess of six finds its object, PQ gains: a higher price teaches to keep silent.
  config.reward.args = {"unmatched": 0.1}
  # Seed 0, PQ after 1,500 steps: 60.0 at 1.2e-4, 60.2 at 2e-4, 59.3 at 3.5e-4, 54.2 at 7e-4.
  config.eval_every = 1000
  config.eval_examples = 250


def coco_json(config: ConfigDict) -> None:
  """Photographs at 96 px with up to 23 segments, 64 codes; views zoomed by one to two."""
  config.task.args.update(image_size=96, max_segments=24, scale_max=2.0)
  config.task.args.codes.update(code_length=64)
  config.data.eval_batch_size = 16
  config.model.encoder.patch_size = 16
  config.codes.update(steps=1000, batch_size=16)
  config.mle.update(steps=1000, batch_size=16)
  config.reward.update(steps=200, batch_size=8, num_samples=6)
  variants.own_files(config, "rtune.data.sources.coco_panoptic:CocoPanoptic")
  config.eval_every = 500


def paper(config: ConfigDict) -> None:
  """2302.08242, section on panoptic segmentation. H: read in a primary source; M, L: from memory.

  It starts from UViM's published weights (storage.googleapis.com/big_vision/uvim). For all of it,
  set codes_init and init_from to "", and encoder_init to a ViT-L/16 of ImageNet-21k, as UViM does.
  """
  config.codes_init = "panoptic_stageI_params.npz"  # H: UViM's, PQ 75.8 of reconstruction
  config.init_from = "panoptic_stageII_params.npz"  # H: UViM's, PQ 43.1
  config.task.args = {
    "image_size": 512,  # H
    "max_segments": 100,  # H: COCO has up to 98
    "stretch": True,  # H: UViM resizes without keeping the aspect
    "flip": 0.5,  # H
    "scale_max": 4.47,  # M: in place of crops of 5 to 100 % of the area
    "codes": dict(variants.UVIM_CODES),  # H
  }
  config.data.train.fn = config.data.val.fn = "rtune.data.sources.coco_panoptic:CocoPanoptic"
  for split, data in (("train", config.data.train), ("val", config.data.val)):
    data.args = {
      "annotations": f"annotations/panoptic_{split}2017.json",  # H: UViM holds 4,096 of train out
      "images": f"{split}2017",  # H: COCO's own names
    }
  variants.paper(config, "L")  # H: ViT-L/16, Adafactor
  config.model.decoder.update(width=1024, depth=24, num_heads=16, mlp_dim=4096)  # H

  config.codes.update(steps=111_514, batch_size=1024)  # H: 1,000 epochs
  config.codes.optim.update(lr=4e-4, warmup_steps=4000)  # H
  config.codes.optim.update(weight_decay=4e-5, b2=0.95, clip_norm=1.0)  # H
  config.mle.update(steps=44_605, batch_size=512)  # H: 200 epochs
  config.mle.optim.update(lr=1e-3, warmup_steps=4000)  # H
  config.mle.optim.update(weight_decay=1e-6, b2=0.95, clip_norm=0.0)  # H
  config.mle.optim.lr_multipliers = (("encoder/.*", 0.1),)  # H

  config.reward.update(
    steps=30_000,  # M
    batch_size=128,  # M
    num_samples=2,  # H for Algorithm 2
  )
  config.reward.args = {"unmatched": 0.3}  # M: "a small weight"; L: 0.3
  config.reward.optim.lr = 1e-6  # M
  config.reward.optim.warmup_steps = 4000  # M


def tiny(config: ConfigDict) -> None:
  """Every part of a run, in seconds."""
  variants.tiny_codes(config)
  config.data.train.args.num = 200


_CHANGES = {"control": variants.control, "coco_json": coco_json, "paper": paper, "tiny": tiny}
VARIANTS = ("", *_CHANGES)
