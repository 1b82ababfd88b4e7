"""Super-resolution tuned for SSIM: a conditional flow whose samples are tuned.

  python -m rtune.main --config configs/superres_ssim.py --workdir runs/superres

What tuning is compared with, from the same imitation:

  python -m rtune.main --config configs/superres_ssim.py:control --workdir runs/control
    --config.init_from=runs/superres

Imitation is exact likelihood. Samples are drawn at a temperature of 0.8, which belongs to the
policy: log-probabilities describe what is drawn. Credit is by block of 8 x 8 pixels. A price on the
divergence from the imitated flow keeps its likelihood.

Variants (after a colon):
  control     as many steps of more imitation as tuning would take
  lpips       tuned for LPIPS: pip install 'rtune[lpips]'
  folder      your own pictures in a folder, or a list of files; made smaller as MATLAB does it:
              --config.data.train.args.annotations=photos --config.data.val.args.annotations=photos
              (one in ten is held out)
  coco_json   JSON files that list pictures:
              --config.data.train.args.annotations=train.json
              --config.data.val.args.annotations=val.json
  pairs       your own small and large pictures, files of equal names in two folders:
              --config.data.train.args.degraded=small --config.data.train.args.clean=large
              --config.data.val.args.degraded=small --config.data.val.args.clean=large
  x4          four times as large; and x4_control, x4_lpips, x4_folder, x4_coco_json, x4_pairs
  paper       SRFlow as published for x4, for a GPU; files as of folder
  tiny        seconds; for tests
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from rtune import config as configs
from rtune.config import variants


def get_config(variant: str | None = None) -> ConfigDict:
  """The embedded run, or one of VARIANTS."""
  config = configs.default()
  config.task.fn = "rtune.tasks.restoration:Restoration"
  config.policy.fn = "rtune.policies.flow:flow"
  config.reward.update(fn="rtune.rewards.structure:ssim", args={"grid": 8})
  embedded(config)
  return variants.apply(config, variant, _CHANGES)


def embedded(config: ConfigDict) -> None:
  """Rendered scenes of 64 px with fine textures, twice as large as what the model is given."""
  scaled(config, 2)
  variants.scenes(config, "rtune.data.scenes.clean:CleanScenes", 200, {"size": 64})
  config.data.eval_batch_size = 50
  config.mle.update(steps=10_000, batch_size=8)
  config.mle.optim.update(name="adam", lr=5e-4, warmup_steps=100)
  config.reward.update(steps=800, batch_size=8, num_samples=4)
  config.reward.optim.update(name="adam", lr=1e-4, warmup_steps=20, schedule="cosine")
  # Without it samples become one picture: 13 bits a number instead of 2.7, for 0.002 more of SSIM.
  config.reward.kl = 1e-4
  variants.control_as_tuning(config)
  config.eval_every = 1000
  config.eval_examples = 50


def scaled(config: ConfigDict, scale: int) -> None:
  """Patches of 32 restored pixels."""
  smaller = {"fn": "rtune.data.corrupt:bicubic", "args": {"scale": scale}}
  config.task.args = {"size": 32 // scale, "scale": scale, "corruptions": (smaller,)}
  network = {"fn": "rtune.models.srflow:srflow", "args": {"scale": scale}}
  config.policy.args = {"network": network, "temperature": 0.8, "block": 8}
  # As papers on super-resolution measure: Y alone, without a border as wide as the scale.
  papers = {"measures": ("PSNR", "SSIM", "LR_PSNR"), "luma": True, "border": scale}
  config.metrics = ({"fn": "rtune.metrics.pictures:restoring", "args": papers},)


def control(config: ConfigDict) -> None:
  """As many steps of imitation as tuning would take."""
  config.phases = ("mle", "control")


def x4(config: ConfigDict) -> None:
  """Four times as large."""
  scaled(config, 4)


def x4_of(change: Callable[[ConfigDict], None]) -> Callable[[ConfigDict], None]:
  """Another variant, four times as large."""

  def changed(config: ConfigDict) -> None:
    x4(config)
    change(config)

  return changed


def lpips(config: ConfigDict) -> None:
  """How different pictures look to a network that was trained on photographs."""
  config.reward.fn = "rtune.rewards.lpips:lpips"
  config.metrics[0]["args"]["measures"] = ("PSNR", "SSIM", "LR_PSNR", "LPIPS")


def folder(config: ConfigDict) -> None:
  """A user's photographs, one after the other in evaluation, each in its own size."""
  coco_json(config)
  variants.one_folder(config)


def coco_json(config: ConfigDict) -> None:
  """Files for training and for validation."""
  variants.own_files(config, "rtune.data.sources.clean:CleanPictures")
  variants.control_as_tuning(config)
  scale = config.task.args.scale
  config.data.val.args = {"annotations": "", "multiple": scale}
  smallest = scale * config.task.args.size
  config.data.train.args = {"annotations": "", "multiple": scale, "least_side": smallest}
  config.data.eval_batch_size = 1
  config.eval_every = 0


def pairs(config: ConfigDict) -> None:
  """A user's small and large pictures."""
  coco_json(config)
  variants.pairs(config, config.task.args.size, scale=config.task.args.scale)


def paper(config: ConfigDict) -> None:
  """SRFlow (Lugmayr et al. 2020) for x4. H: read in its published config; M, L: not."""
  x4_of(folder)(config)
  config.task.args.size = 40  # M: patches of 160 pixels
  config.data.train.args.least_side = 160  # M
  config.policy.args.temperature = 0.9  # H
  net = config.policy.args.network.args
  net.update(filters=64, blocks=23, stacked=(1, 8, 15, 22))  # H
  net.growth = 32  # M: the default of its code
  net.update(levels=3, steps=16, transitions=2)  # H
  net.splits = 1  # H: in its code, after all levels but the last two
  net.hidden = 64  # M: the default of its code
  net.residual = False  # H
  config.mle.steps = 200_000  # H
  config.mle.batch_size = 16  # M
  config.mle.optim.update(lr=2.5e-4, b1=0.9, b2=0.99)  # H
  # Its rate is halved four times, and it starts from a trained RRDB.
  config.mle.optim.update(schedule="cosine", warmup_steps=0)  # ours, L
  config.reward.update(steps=5000, batch_size=16)  # L: ours, nobody has tuned it before
  variants.control_as_tuning(config)


def tiny(config: ConfigDict) -> None:
  """Every part of a run, in seconds."""
  config.task.args.size = 8
  small = {"filters": 4, "blocks": 1, "growth": 4, "steps": 1, "hidden": 8}
  config.policy.args.network.args.update(small)
  for data in (config.data.train, config.data.val):
    data.args.size = 32
  config.data.val.args.num = 8
  config.data.eval_batch_size = 4
  config.mle.update(steps=20, batch_size=4)
  config.control.update(steps=10, batch_size=4)
  config.reward.update(steps=10, batch_size=4, num_samples=4)
  for phase in (config.mle, config.control, config.reward):
    phase.optim.warmup_steps = 2
  config.log_every = config.checkpoints.every = 5
  config.eval_every, config.eval_examples = 10, 0


_PLAIN = {
  "control": control,
  "lpips": lpips,
  "folder": folder,
  "coco_json": coco_json,
  "pairs": pairs,
}
_CHANGES = {
  **_PLAIN,
  "x4": x4,
  **{f"x4_{name}": x4_of(change) for name, change in _PLAIN.items()},
  "paper": paper,
  "tiny": tiny,
}
VARIANTS = ("", *_CHANGES)
