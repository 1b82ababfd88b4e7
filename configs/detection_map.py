"""Detection tuned for mAP: recall at ten IoU thresholds, rare classes worth more, learned scores.

  python -m rtune.main --config configs/detection_map.py --workdir runs/map

Variants are those of detection_recall.py, from which this differs in the reward and in the extra
loss that teaches confidence tokens the expected IoU of the model's own boxes. Its mle phase is the
same: `--config.init_from=runs/recall` spares it.
"""

import pathlib

from ml_collections import ConfigDict

from rtune.config.names import resolve

_RECALL = pathlib.Path(__file__).with_name("detection_recall.py")
VARIANTS = resolve(f"{_RECALL}:VARIANTS")


def get_config(variant: str | None = None) -> ConfigDict:
  """The embedded run, or one of VARIANTS."""
  config = resolve(f"{_RECALL}:get_config")(variant)
  config.reward.fn = "rtune.rewards.boxes:weighted_recall"
  config.reward.args = {"smoothing": 0.05, "duplicate_weight": 0.3}  # H: released reward
  config.reward.supervised.fn = "rtune.tasks.confidence:expected_iou"
  if variant == "paper":
    config.reward.supervised_weight = 0.3  # H: conf_w
    config.reward.args.class_counts = resolve("rtune.data.sources.coco_counts:COCO_COUNTS")  # H
    return config
  config.task.args.tune_confidence = False
  config.reward.supervised_weight = 0.2  # a larger one drowns REINFORCE
  return config
