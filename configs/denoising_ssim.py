"""Denoising tuned for SSIM: a network learns to restore with L1, then what SSIM pays for.

  python -m rtune.main --config configs/denoising_ssim.py --workdir runs/denoising

What tuning is compared with, from the same imitation: more of the same, and the gradient of the
reward itself, which SSIM has:

  python -m rtune.main --config configs/denoising_ssim.py:control --workdir runs/control
    --config.init_from=runs/denoising

What is sampled in tuning are pixels around the restored picture, 64 times for one pass of the
network, in mirrored pairs. Credit is by block of 4 x 4 pixels.

Variants (after a colon):
  control    as many steps of more imitation as tuning would take
  exact      the gradient of the restored picture's reward in place of samples: the ceiling
  gains      the network stays as it is; what is sampled is how much of each band of detail that it
             has changed stays, four numbers for each block of 8 x 8 pixels:
             of runs/denoising: --config.warm_start=runs/denoising/weights/mle.safetensors
             --config.mle.steps=0
  constant   as gains, the same four numbers for all blocks of all pictures: the best ones
  lpips      tuned for LPIPS: pip install 'rtune[lpips]'
  folder     your own clean pictures in a folder, or a list of files; they are corrupted:
             --config.data.train.args.annotations=photos --config.data.val.args.annotations=photos
             (one in ten is held out)
  coco_json  JSON files that list clean pictures:
             --config.data.train.args.annotations=train.json
             --config.data.val.args.annotations=val.json
  pairs      your own noisy and clean pictures, files of equal names in two folders:
             --config.data.train.args.degraded=noisy --config.data.train.args.clean=clean
             --config.data.val.args.degraded=noisy --config.data.val.args.clean=clean
  paper      RDUNet as published, for a GPU; files as of folder
  tiny       seconds; for tests
"""

from ml_collections import ConfigDict

from rtune import config as configs
from rtune.config import variants

_LEVELS = (15, 25, 50)  # of evaluation, in 8-bit values: those of papers on denoising


def get_config(variant: str | None = None) -> ConfigDict:
  """The embedded run, or one of VARIANTS."""
  config = configs.default()
  config.task.fn = "rtune.tasks.restoration:Restoration"
  config.policy.fn = "rtune.policies.gaussian:gaussian"
  # Without the edges' own windows nothing would be paid for the pixels there, which then drift.
  config.reward.update(fn="rtune.rewards.structure:ssim", args={"grid": 4, "edges": True})
  embedded(config)
  return variants.apply(config, variant, _CHANGES)


def embedded(config: ConfigDict) -> None:
  """Rendered gray scenes of 64 px with fine textures; noise of 5 to 50 is drawn for each patch."""
  config.task.args = {
    "size": 48,
    "channels": 1,
    "corruptions": (noise([5, 50]),),
    "eval_corruptions": tuple((noise(level),) for level in _LEVELS),
  }
  network = {"fn": "rtune.models.rdunet:rdunet", "args": {"filters": 16, "blocks": 1}}
  config.policy.args = {"network": network, "block": 4, "likelihood": "laplace"}
  config.policy.args.update(scale=0.01, antithetic=True)
  scenes = {"size": 64, "gray": True}
  variants.scenes(config, "rtune.data.scenes.clean:CleanScenes", 300, scenes)
  config.data.eval_batch_size = 50
  config.mle.update(steps=3000, batch_size=8)
  config.mle.optim.update(name="adam", lr=1e-3, warmup_steps=100)
  config.reward.update(steps=800, batch_size=8, num_samples=64)
  config.reward.optim.update(name="adam", lr=6e-4, warmup_steps=20, schedule="cosine")
  variants.control_steps(config)
  config.eval_every = 1000
  config.eval_examples = 60


def noise(sigma) -> dict:
  """Gaussian noise as a step of a chain."""
  return {"fn": "rtune.data.corrupt:gaussian", "args": {"sigma": sigma}}


def exact(config: ConfigDict) -> None:
  """The reward's own gradient, with the steps and learning rates of tuning."""
  variants.control(config)
  config.control.optim.update(config.reward.optim)
  config.control.nll_weight = 0.0
  args = {name: value for name, value in config.reward.args.items() if name != "grid"}
  reward = {"reward": config.reward.fn, "args": args}
  loss = {"fn": "rtune.training.losses:reward_of_best", "args": reward, "weight": 1.0}
  config.control.losses = (loss,)


def gains(config: ConfigDict) -> None:
  """Few decisions: a head learns what to keep of what a network, which stays, has changed."""
  config.policy.fn = "rtune.policies.gains:gains"
  config.policy.args = {"network": config.policy.args.network, "block": 8}
  config.reward.args.grid = 8
  config.reward.num_samples = 8
  config.reward.optim.lr = 1e-3


def constant(config: ConfigDict) -> None:
  """The best constant answer: four numbers, found by the reward's own gradient."""
  gains(config)
  exact(config)
  config.policy.args.head = "constant"
  config.control.optim.lr = 1e-2


def lpips(config: ConfigDict) -> None:
  """How different pictures look to a network that was trained on photographs."""
  config.reward.fn = "rtune.rewards.lpips:lpips"
  config.reward.args = {"grid": 4}
  config.reward.num_samples = 16  # a network looks at each one: 64 take 40 minutes on one core
  measures = ("PSNR", "PSNR_float", "SSIM", "GMSD", "UQI", "LPIPS")
  restoring = {"fn": "rtune.metrics.pictures:restoring", "args": {"measures": measures}}
  config.metrics = (restoring,)


def folder(config: ConfigDict) -> None:
  """A user's photographs, in color, one after the other in evaluation, each in its own size."""
  coco_json(config)
  variants.one_folder(config)


def coco_json(config: ConfigDict) -> None:
  """Files for training and for validation, where each picture comes with every level of noise."""
  variants.own_files(config, "rtune.data.sources.clean:CleanPictures")
  variants.control_steps(config)
  config.data.train.args = {"annotations": "", "least_side": config.task.args.size}
  config.data.val.args = {"annotations": "", "times": len(_LEVELS)}
  config.task.args.channels = 3
  config.data.eval_batch_size = 1
  config.eval_every = 0


def pairs(config: ConfigDict) -> None:
  """A user's noisy and clean pictures: nothing is corrupted."""
  coco_json(config)
  variants.pairs(config, config.task.args.size)
  config.task.args.update(corruptions=(), eval_corruptions=())


def paper(config: ConfigDict) -> None:
  """RDUNet (Gurrola-Ramos et al. 2021). H: read in a primary source; M, L: not."""
  folder(config)
  config.task.args.size = config.data.train.args.least_side = 64  # H
  config.task.args.corruptions = (noise([5, 50]),)  # H
  config.policy.args.network.args.filters = 128  # H
  config.policy.args.network.args.blocks = 2  # H
  config.mle.steps = 1_000_000  # L: it has 21 epochs in 10 parts, of a number of patches unknown
  config.mle.batch_size = 16  # H
  config.mle.optim.lr = 1e-4  # H
  config.mle.optim.weight_decay = 1e-9  # H: 1e-5 of AdamW, which is times the learning rate there
  config.mle.optim.update(schedule="cosine", warmup_steps=0)  # ours, L: halved every three epochs
  config.reward.update(steps=5000, batch_size=16)  # L: ours, nobody has tuned it before
  variants.control_steps(config)


def tiny(config: ConfigDict) -> None:
  """Every part of a run, in seconds."""
  config.policy.args.network.args.update(filters=4, blocks=1)
  config.task.args.size = 16
  for data in (config.data.train, config.data.val):
    data.args.size = 24
  config.data.val.args.num = 12
  config.data.eval_batch_size = 4
  config.mle.update(steps=20, batch_size=4)
  config.control.update(steps=10, batch_size=4)
  config.reward.update(steps=10, batch_size=4, num_samples=4)
  for phase in (config.mle, config.control, config.reward):
    phase.optim.warmup_steps = 2
  config.log_every = config.checkpoints.every = 5
  config.eval_every, config.eval_examples = 10, 0


_CHANGES = {
  "control": variants.control,
  "exact": exact,
  "gains": gains,
  "constant": constant,
  "lpips": lpips,
  "folder": folder,
  "coco_json": coco_json,
  "pairs": pairs,
  "paper": paper,
  "tiny": tiny,
}
VARIANTS = ("", *_CHANGES)
