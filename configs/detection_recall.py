"""Detection tuned for recall.

  python -m rtune.main --config configs/detection_recall.py --workdir runs/recall

Default: embedded scenes, 48 px, on 2 CPU cores.
"""

from ml_collections import ConfigDict

from rtune import config as configs

VARIANTS = ("", "control", "coco_json", "paper", "tiny")


def get_config(variant: str | None = None) -> ConfigDict:
  """The embedded run, or one of VARIANTS."""
  config = configs.default()
  config.task.fn = "rtune.tasks.detection:Detection"
  config.task.args = {"image_size": 48, "max_boxes": 8, "levels": 49, "flip": 0.5}
  scenes = {"size": 48, "max_objects": 4, "smallest": 0.25}
  config.data.train.fn = config.data.val.fn = "rtune.data.shapes:Shapes"
  config.data.train.args = dict(scenes, split="train", num=1_000_000)
  config.data.val.args = dict(scenes, split="val", num=1000)
  config.data.eval_batch_size = 250

  config.model.encoder.update(patch_size=6, width=64, depth=3, num_heads=2, mlp_dim=128)
  config.model.decoder.update(width=64, depth=2, num_heads=2, mlp_dim=128)

  config.mle.update(steps=2500, batch_size=64)
  config.mle.optim.update(name="adam", lr=2e-3, warmup_steps=200)

  config.reward.update(fn="rtune.rewards.boxes:recall", steps=1000, batch_size=32, num_samples=6)
  config.reward.optim.update(name="adam", lr=2e-4, warmup_steps=20)

  if variant == "tiny":
    config.mle.update(steps=20, batch_size=8)
    config.mle.optim.warmup_steps = 4
    config.reward.update(steps=10, batch_size=4, num_samples=3)
    config.reward.optim.warmup_steps = 2
    config.data.val.args.num = 12
    config.data.eval_batch_size = 8
    config.log_every = 5
    config.checkpoints.every = 5
  return config
