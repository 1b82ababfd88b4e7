"""What has got another name since configs were written."""

# Config files, command lines and the config.json of old workdirs outlive a module's name.
_MOVED = {
  "rtune.data.captioned_shapes": "rtune.data.scenes.captioned",
  "rtune.data.coco": "rtune.data.sources.coco",
  "rtune.data.coco_captions": "rtune.data.sources.coco_captions",
  "rtune.data.coco_counts": "rtune.data.sources.coco_counts",
  "rtune.data.coco_panoptic": "rtune.data.sources.coco_panoptic",
  "rtune.data.colored_shapes": "rtune.data.scenes.colored",
  "rtune.data.panoptic_shapes": "rtune.data.scenes.panoptic",
  "rtune.data.photographs": "rtune.data.sources.photographs",
  "rtune.data.shapes": "rtune.data.scenes.shapes",
  "rtune.data.tfds": "rtune.data.sources.tfds",
  "rtune.data.tfds_captions": "rtune.data.sources.tfds_captions",
  "rtune.data.tfds_photographs": "rtune.data.sources.tfds_photographs",
  "rtune.rewards.confidence": "rtune.tasks.confidence",
}


def current(name: str) -> str:
  """What a name is called today; names that nobody has moved as they are."""
  module_name, colon, attribute = name.partition(":")
  return f"{_MOVED.get(module_name, module_name)}{colon}{attribute}"
