"""Semantic segmentation tuned for mIoU: imitate label maps, then tune with credit for each pixel.

  python -m rtune.main --config configs/segmentation_miou.py --workdir runs/segmentation

What tuning is compared with, from the same imitation; the first is more of the same, the others are
losses that stand for mIoU, and the reward of whole maps:

  python -m rtune.main --config configs/segmentation_miou.py:control --workdir runs/control
    --config.init_from=runs/segmentation

Variants (after a colon):
  control        as many steps of more imitation as tuning would take
  class_weights  cross-entropy, rare classes weigh more
  soft_jaccard   soft IoU in place of cross-entropy
  lovasz         the Lovasz extension of IoU in place of cross-entropy
  expectation    the gradient of the reward's exact expectation: what sampling comes close to
  whole_map      REINFORCE with the mIoU of each image as one number: it loses
  objects        REINFORCE for the classes that an image has, for which there is no such loss
  adapt_pseudo   adapt to another style with the model's own labels, beside a control
  adapt_active   adapt to another style with ten labeled images, beside a control
  folder         your own images and masks in folders, see docs/segmentation.md:
                 --config.data.train.args.root=... --config.data.train.args.layout=camvid
  coco_json      JSON files that list images and masks:
                 --config.data.train.args.annotations=train.json
                 --config.data.val.args.annotations=val.json
  paper          Cityscapes at 512 x 1024 with DeepLabV3, for a GPU
  tiny           seconds; for tests
"""

from ml_collections import ConfigDict

from rtune import config as configs
from rtune.config import variants

_LOSSES = "rtune.tasks.label_losses"
_REWARDS = "rtune.rewards.labels"
_KINDS = ("rectangle", "ellipse", "triangle", "diamond", "cross", "ring")
_STYLE = 0.3  # of the domain to adapt to


def get_config(variant: str | None = None) -> ConfigDict:
  """The embedded run, or one of VARIANTS."""
  config = configs.default()
  config.task.fn = "rtune.tasks.segmentation:Segmentation"
  config.policy.fn = "rtune.policies.labels:labels"
  config.policy.args = {"network": {"fn": "rtune.models.unet:unet", "args": {}}}
  config.reward.fn = f"{_REWARDS}:miou_change"
  config.reward.running.fn = f"{_REWARDS}:class_confusion"
  embedded(config)
  return variants.apply(config, variant, _CHANGES)


def embedded(config: ConfigDict) -> None:
  """Rendered scenes of 48 px with rare kinds of objects, of which small ones are overlooked."""
  config.task.args = {"image_size": (48, 48)}
  variants.scenes(config, "rtune.data.scenes.labeled:LabeledShapes", 1000, {"size": 48})
  config.data.splits = {"true": {"fn": config.data.val.fn, "args": _unmissed(config)}}
  config.data.eval_batch_size = 100
  config.mle.update(steps=4000, batch_size=16)
  config.mle.optim.update(name="adam", lr=3e-3, warmup_steps=200)
  config.reward.update(steps=1000, batch_size=16, num_samples=4)
  config.reward.optim.update(name="adam", lr=1e-3, warmup_steps=40, schedule="cosine")
  config.reward.optim.end_factor = 0.1
  variants.control_as_tuning(config)
  config.eval_every = 500
  config.eval_examples = 250


def _unmissed(config: ConfigDict) -> dict:
  """The validation scenes with the labels that nobody has overlooked."""
  return {**config.data.val.args, "true_labels": True}


def control(config: ConfigDict) -> None:
  """As many steps of imitation as tuning would take, with the same learning rates."""
  config.phases = ("mle", "control")


def peer(loss: str, **args) -> variants.Change:
  """A control with another loss in place of cross-entropy."""

  def change(config: ConfigDict) -> None:
    control(config)
    config.control.nll_weight = 0.0
    config.control.losses = ({"fn": f"{_LOSSES}:{loss}", "args": args, "weight": 1.0},)

  return change


def expectation(config: ConfigDict) -> None:
  """What the reward's samples estimate, computed."""
  peer("expected_credit")(config)
  config.control.running.fn = f"{_REWARDS}:class_confusion"


def whole_map(config: ConfigDict) -> None:
  """One number for each sampled map."""
  config.reward.fn = f"{_REWARDS}:mean_iou"
  config.reward.running.fn = ""
  config.reward.num_samples = 8


def objects(config: ConfigDict) -> None:
  """Objects found, each counting the same: a reward that no gradient can be taken of."""
  of = {"of": _KINDS}
  config.reward.update(fn="rtune.rewards.objects:objects_found", args=of, num_samples=8)
  config.reward.running.fn = ""
  config.metrics = tuple(
    {"fn": f"rtune.metrics.{name}", "args": args}
    for name, args in (("labels:segmentation", {}), ("objects:objects", of))
  )


def adapt_pseudo(config: ConfigDict) -> None:
  """Another style, which the model labels itself: the surest half of each class is learned.

  It labels the images in the colors that it knows, and learns from them as they are. Three ways to
  go on from the same imitation: more of the source, cross-entropy on its own labels, and pixel
  credit on the same labels.
  """
  other_style(config)
  config.phases = ("mle", "control", "pseudo", "reward")
  config.reward.adapt.update(by="model", mix=config.pseudo.adapt.mix)
  config.pseudo.adapt.recolor = config.reward.adapt.recolor = True


def adapt_active(config: ConfigDict) -> None:
  """Another style, of which ten images are labeled."""
  other_style(config)
  config.phases = ("mle", "control", "active")


def other_style(config: ConfigDict) -> None:
  """Trained on scenes of one style, judged on another one, of which 400 are to be adapted to."""
  train, val = config.data.train, config.data.val
  config.data.splits = {"source": {"fn": val.fn, "args": dict(val.args)}}
  val.args.style = _STYLE
  config.data.target.fn = train.fn
  config.data.target.args = {**train.args, "num": 400, "seed": 1, "style": _STYLE}
  adapt_as_tuning(config)


def adapt_as_tuning(config: ConfigDict) -> None:
  """Steps and learning rates of the phases that adapt are those of tuning."""
  for phase in (config.pseudo, config.active):
    phase.update(steps=config.reward.steps, batch_size=config.reward.batch_size)
    phase.optim.update(config.reward.optim)


def folder(config: ConfigDict) -> None:
  """Your images and masks in folders, at 128 x 128; views zoomed by one to two."""
  own_masks(config, "rtune.data.sources.label_folder:LabelFolder")
  config.data.train.args = {"root": "", "split": "train"}
  config.data.val.args = {"root": "", "split": "val"}


def coco_json(config: ConfigDict) -> None:
  """JSON files that list images and masks, at 96 x 128: CamVid's aspect."""
  own_masks(config, "rtune.data.sources.coco_labels:CocoLabels")
  config.task.args.image_size = (96, 128)


def own_masks(config: ConfigDict, source: str) -> None:
  """What a user's photographs share."""
  variants.own_files(config, source)
  config.data.splits = {}
  config.task.args = {"image_size": (128, 128), "scale_max": 2.0}
  config.data.eval_batch_size = 16
  config.policy.args.network.args = {"width": 24, "depth": 4}
  config.mle.update(steps=1200, batch_size=8)
  config.reward.update(steps=400, batch_size=8)
  variants.control_as_tuning(config)
  adapt_as_tuning(config)
  config.eval_every = 0


def paper(config: ConfigDict) -> None:
  """DeepLabV3-R50-D8 of MMSegmentation on Cityscapes, tuned. H: read at its source; M, L: not.

  Its model zoo has a mIoU of 79.09 for the first phase and 79.32 for twice as many steps (H).
  """
  config.task.args = {
    "image_size": (512, 1024),  # H
    "eval_size": (1024, 2048),  # H: whole images, here through windows
    "scale_min": 0.5,  # H
    "scale_max": 2.0,  # H
  }
  network = {"fn": "rtune.models.deeplab:deeplab", "args": {"backbone": "resnet50"}}  # H
  config.policy.args = {"network": network, "window": (512, 1024)}  # H: as in training
  source = "rtune.data.sources.label_folder:LabelFolder"
  config.data.splits = {}
  for split, data in (("train", config.data.train), ("val", config.data.val)):
    data.update(fn=source, args={"root": "cityscapes", "layout": "cityscapes", "split": split})
  config.data.threads = 32
  config.data.eval_batch_size = 1
  auxiliary = {"fn": f"{_LOSSES}:auxiliary_nll", "args": {}, "weight": 0.4}  # H
  config.mle.losses = config.reward.losses = (auxiliary,)
  config.mle.update(steps=40_000, batch_size=8)  # H
  # SGD with momentum, falling by a polynomial of power 0.9; here by a line.
  config.mle.optim.update(name="sgd", lr=0.01, b1=0.9, schedule="linear")  # H
  config.mle.optim.weight_decay = 5e-6  # H: 5e-4 of the gradient's, times the learning rate here
  config.mle.optim.warmup_steps = 0  # H
  config.reward.update(steps=40_000, batch_size=8)  # H
  config.reward.num_samples = 4  # ours, L: the seed draws none
  config.reward.optim.update(name="sgd", lr=1e-4, b1=0.9, schedule="linear")  # M
  config.reward.optim.update(warmup_steps=0, end_factor=0.01)  # M
  config.eval_every = 4000


def tiny(config: ConfigDict) -> None:
  """Every part of a run, in seconds."""
  variants.tiny(config)
  config.policy.args.network.args = {"width": 4, "depth": 1}
  config.task.args.image_size = (24, 24)
  for data in (config.data.train, config.data.val, config.data.splits.true):
    data.args.size = 24
  config.data.splits.true.args.num = 12


_CHANGES = {
  "control": control,
  "class_weights": peer("balanced_nll"),
  "soft_jaccard": peer("soft_jaccard"),
  "lovasz": peer("lovasz"),
  "expectation": expectation,
  "whole_map": whole_map,
  "objects": objects,
  "adapt_pseudo": adapt_pseudo,
  "adapt_active": adapt_active,
  "folder": folder,
  "coco_json": coco_json,
  "paper": paper,
  "tiny": tiny,
}
VARIANTS = ("", *_CHANGES)
