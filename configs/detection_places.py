"""Detection by place, tuned for recall: each place of a grid says whether an object centers there.

  python -m rtune.main --config configs/detection_places.py --workdir runs/places

The other answer to what configs/detection_recall.py writes as a sequence: all places are decided at
once, which few images and short training teach, and each has its own credit in tuning. What is
imitated knows no way to leave out a second box for the same object; tuning teaches it.

Variants (after a colon):
  control    the same, with more imitation in place of tuning: what tuning is compared with
  coco_json  your own COCO-format files, on the features of a VGG16: pip install 'rtune[backbones]'
             --config.data.train.args.annotations=train.json
             --config.data.val.args.annotations=val.json
  tiny       seconds; for tests
"""

from ml_collections import ConfigDict

from rtune import config as configs
from rtune.config import variants


def get_config(variant: str | None = None) -> ConfigDict:
  """The embedded run, or one of VARIANTS."""
  config = configs.default()
  config.task.fn = "rtune.tasks.placed_detection:PlacedDetection"
  config.policy.fn = "rtune.policies.places:places"
  config.reward.fn = "rtune.rewards.boxes:recall"
  config.reward.args = {"by_box": True, "unmatched_weight": 0.1}
  embedded(config)
  return variants.apply(config, variant, _CHANGES)


def embedded(config: ConfigDict) -> None:
  """Rendered scenes of 48 px, places of 8."""
  config.task.args = {"image_size": 48, "max_boxes": 5, "place": 8}
  drawn = {"size": 48, "max_objects": 4, "smallest": 0.25, "small": 0.42, "miss_small": 0.85}
  drawn["loose"] = 0.025
  variants.scenes(config, "rtune.data.scenes.shapes:Shapes", 1000, drawn)
  config.data.eval_batch_size = 250
  variants.small_model(config)
  variants.small_steps(config, rate=1.5e-3, tuning_rate=3.5e-4)
  config.policy.args = {"head_width": 64, "at_least": 0.1}
  config.mle.steps = 4000
  config.reward.steps = 1500
  variants.control_steps(config)
  config.eval_every = 1000
  config.eval_examples = 250


def coco_json(config: ConfigDict) -> None:
  """Photographs at 160 px, eight views of each, on features of a VGG16 that stays as it is."""
  config.task.args = {"max_boxes": 40, "place": 8}
  config.task.args.update(scale_min=0.8, scale_max=1.6, color_jitter=0.2)
  variants.on_backbone(config, patch_size=8)
  config.policy.args.head_width = 128
  config.data.eval_batch_size = 32
  config.mle.update(steps=1000, batch_size=16)
  config.mle.optim.weight_decay = 1e-4
  config.reward.update(steps=300, batch_size=16, num_samples=8)
  variants.own_files(config, "rtune.data.sources.coco:CocoDetection")
  config.eval_every = 500


def tiny(config: ConfigDict) -> None:
  """Every part of a run, in seconds."""
  variants.tiny(config)
  config.model.encoder.conv_stem = False
  config.policy.args.update(head_width=8, head_depth=1)


_CHANGES = {"control": variants.control, "coco_json": coco_json, "tiny": tiny}
VARIANTS = ("", *_CHANGES)
