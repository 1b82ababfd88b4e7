"""Recursive restoration: autoencoders of patches, and an agent that says how to use them again.

  python -m rtune.main --config configs/restoration_recursive.py --workdir runs/recursive

trains the autoencoders, then the agent by REINFORCE, and prints PSNR, SSIM and UQI by pass. What it
is worth beside other ways to go (docs/recursive.md) one more command says:

  python -m rtune.analyze.passes --workdir runs/recursive

Imitated are clean patches of 16 x 16 pixels. What is sampled are four passes: in each the agent
chooses for every patch how far its latent goes towards a clean one, and how much of the patch stays
as it was; the next pass sees the picture that comes out. Credit is by patch and pass, in dB.

Variants (after a colon):
  control     as many steps of more imitation as tuning would take
  sac         the agent learns by soft actor-critic
  table       control, REINFORCE and soft actor-critic from one imitation
  renewed     imitation restores twice: training pairs are renewed with the model's own pictures
  groups      64 learned groups of clean latents, the nearest of which the transform sees
  blind       tuned without a reference: latents shall come near to those of clean patches
  color       color scenes, an autoencoder for each of Y, U and V
  folder      your own clean pictures in a folder, or a list of files; they are corrupted:
              --config.data.train.args.annotations=photos --config.data.val.args.annotations=photos
              (one in ten is held out)
  coco_json   JSON files that list clean pictures:
              --config.data.train.args.annotations=train.json
              --config.data.val.args.annotations=val.json
  polyu       real noise, the PolyU pairs: --config.data.train.args.root=DIR and
              --config.data.val.args.root=DIR
  sidd        real noise, SIDD Small or Medium (sRGB): the same settings
  celeba      CelebA-HQ at 256 pixels in a folder, with the published noise: as folder
  paper       2111.07499 as published, on SIDD: its sizes, its actions, its learner; for a GPU
  tiny        seconds; for tests
"""

from ml_collections import ConfigDict

from rtune import config as configs
from rtune.config import variants

_PASSES = 4
_MIXED = {"fn": "rtune.data.corrupt:mixed", "args": {}}


def get_config(variant: str | None = None) -> ConfigDict:
  """The embedded run, or one of VARIANTS."""
  config = configs.default()
  config.task.fn = "rtune.tasks.restoration:Restoration"
  config.policy.fn = "rtune.policies.recursive:recursive"
  config.reward.fn = "rtune.rewards.patch_gain:patch_gain"
  embedded(config)
  return variants.apply(config, variant, _CHANGES)


def embedded(config: ConfigDict) -> None:
  """Rendered gray scenes of 64 px, every region of which has another kind of noise."""
  config.task.args = {"size": 64, "channels": 1, "corruptions": (_MIXED,)}
  config.policy.args = {"passes": _PASSES}
  scenes = {"size": 64, "gray": True}
  variants.scenes(config, "rtune.data.scenes.clean:CleanScenes", 200, scenes)
  config.metrics = (
    {"fn": "rtune.metrics.pictures:restoring", "args": {}},
    {"fn": "rtune.metrics.passes:by_pass", "args": {}},
  )
  config.data.eval_batch_size = 50
  config.mle.update(steps=4000, batch_size=16)
  config.mle.optim.update(name="adam", lr=1e-3, warmup_steps=100, schedule="cosine")
  config.reward.update(steps=300, batch_size=8, num_samples=8)
  config.reward.optim.update(name="adam", lr=1e-3, warmup_steps=20, schedule="cosine")
  config.actor_critic.update(steps=300, critic_width=128, critic_lr=2e-3, kl_bound=0.02)
  config.actor_critic.discount = 0.5  # without it the last pass is 0.3 dB below the second
  config.actor_critic.optim.lr = 2e-3
  variants.control_steps(config)


def sac(config: ConfigDict) -> None:
  """The agent says how far its choices spread; credit is what can be known of a patch alone."""
  config.phases = ("mle", "actor_critic")
  for_critics(config)


def for_critics(config: ConfigDict) -> None:
  """What soft actor-critic wants of policy and reward."""
  config.policy.args.update(learn_noise=True, noise=0.3)
  config.reward.args.unit = "patch"


def table(config: ConfigDict) -> None:
  """All that is learned, from one imitation."""
  config.phases = ("mle", "control", "reward", "actor_critic")
  for_critics(config)


def renewed(config: ConfigDict) -> None:
  """The second pass is imitated as well, on what the first has made."""
  config.policy.args.imitated_passes = 2


def groups(config: ConfigDict) -> None:
  """The transform sees which group of clean latents is near."""
  config.policy.args.groups = 64


def blind(config: ConfigDict) -> None:
  """Its reward needs no original, and can be hacked."""
  groups(config)
  config.reward.fn = "rtune.rewards.patch_gain:latent_gain"


def color(config: ConfigDict) -> None:
  """Three autoencoders, and two numbers of the agent for each."""
  config.task.args.channels = 3
  for data in (config.data.train, config.data.val):
    data.args.gray = False


def folder(config: ConfigDict) -> None:
  """A user's photographs in color, one after the other in evaluation, each in its own size."""
  coco_json(config)
  variants.one_folder(config)


def coco_json(config: ConfigDict) -> None:
  """Files for training and for validation."""
  variants.own_files(config, "rtune.data.sources.clean:CleanPictures")
  variants.control_steps(config)
  config.data.train.args = {"annotations": "", "least_side": config.task.args.size}
  config.data.val.args = {"annotations": ""}
  config.task.args.channels = 3
  config.data.eval_batch_size = 1


def pairs(config: ConfigDict, layout: str) -> None:
  """Real noise: nothing is corrupted."""
  coco_json(config)
  variants.pairs(config, config.task.args.size, layout=layout)
  config.task.args.corruptions = ()


def polyu(config: ConfigDict) -> None:
  """github.com/csjunxu/PolyU-Real-World-Noisy-Images-Dataset."""
  pairs(config, "polyu")


def sidd(config: ConfigDict) -> None:
  """abdokamel.github.io/sidd; pictures of 12 megapixels are restored whole in evaluation."""
  pairs(config, "sidd")


def celeba(config: ConfigDict) -> None:
  """The published noise: white, of a variance of 0.02."""
  folder(config)
  sigma = 255 * 0.02**0.5
  config.task.args.corruptions = ({"fn": "rtune.data.corrupt:gaussian", "args": {"sigma": sigma}},)


def paper(config: ConfigDict) -> None:
  """What is published of RSE-RL. H: read in its code; M, L: not."""
  sidd(config)
  config.policy.args.side = 16  # H
  config.policy.args.overlap = 4  # H
  config.policy.args.latent = 96  # H: of SIDD; 72 of CelebA-HQ
  config.policy.args.width = 128  # H: of its dense layer, behind four convolutions
  config.policy.args.acts_on = "multipliers"  # H
  config.policy.args.reach = 1e-3  # H
  config.policy.args.passes = 1  # H: in its code nothing is recursive
  config.policy.args.learn_noise = True  # H: as SAC of Stable-Baselines3
  config.mle.steps = 50_000  # L: 25 epochs of a number of patches that is not said
  config.mle.batch_size = 8  # ours, L: 128 patches, which are drawn by themselves there
  config.mle.optim.lr = 1e-3  # H
  config.phases = ("mle", "actor_critic")
  config.actor_critic.update(steps=100, critic_lr=1e-3)  # H: it learned nothing in them
  config.actor_critic.optim.lr = 1e-3  # H


def tiny(config: ConfigDict) -> None:
  """Every part of a run, in seconds."""
  config.policy.args.update(passes=2, latent=8, width=16, agent_width=8)
  config.task.args.size = 28
  for data in (config.data.train, config.data.val):
    data.args.size = 32
  config.data.val.args.num = 8
  config.data.eval_batch_size = 4
  config.mle.update(steps=20, batch_size=4)
  config.control.update(steps=10, batch_size=4)
  config.reward.update(steps=10, batch_size=4, num_samples=4)
  config.actor_critic.update(steps=10, batch_size=4, capacity=300, replayed=16, critic_width=8)
  for phase in (config.mle, config.control, config.reward):
    phase.optim.warmup_steps = 2
  config.log_every = config.checkpoints.every = 5


_CHANGES = {
  "control": variants.control,
  "sac": sac,
  "table": table,
  "renewed": renewed,
  "groups": groups,
  "blind": blind,
  "color": color,
  "folder": folder,
  "coco_json": coco_json,
  "polyu": polyu,
  "sidd": sidd,
  "celeba": celeba,
  "paper": paper,
  "tiny": tiny,
}
VARIANTS = ("", *_CHANGES)
