"""How near what samples say of a reward's gradient is to the gradient itself, for pictures.

python examples/gradient_of_samples.py runs/denoising rtune.rewards.lpips:lpips

Prints, for each window that credit is taken from, the cosine with 16, 64 and all samples. Noise is
normal around restored pictures, in mirrored pairs, as in the policy `gaussian`.

Dimension key:
  N: pairs of samples
  H, W, C: height and width of a picture in pixels, channels
  Y, X: rows and columns of the smallest blocks of credit
"""

import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np

from rtune import commands
from rtune.config.names import build_part, resolve
from rtune.data import loader
from rtune.errors import UsageError
from rtune.predictions.images import Picture
from rtune.training import restore

BLOCK, WINDOWS = 4, (4, 12, 28, 0)  # in pixels; 0 is the whole picture
PAIRS = (8, 32)
POLICY = "rtune.policies.gaussian:gaussian"


def pictures_of(workdir, number):
  """Restored pictures and their originals, [N, H, W, C] each, as imitation leaves them."""
  run = restore.restore(workdir)
  _, params = restore.load_params(run, "mle")
  if run.config.policy.fn != POLICY:
    raise UsageError(f"{workdir} has the policy {run.config.policy.fn}; this is about {POLICY}.")
  source = build_part(run.config.data.train, "data.train")
  batches = loader.train_batches(
    source, run.task.example, batch_size=number, seed=3, num_threads=1, prefetch=0
  )
  batch = next(batches)
  batches.close()
  return run.policy.best(params, run.task.inputs(batch))["image"], jnp.asarray(batch["clean"])


def windowed(credit_NYX, window):
  """Sums of credit over a window around each block."""
  if not window:
    return jnp.broadcast_to(jnp.sum(credit_NYX, axis=(1, 2), keepdims=True), credit_NYX.shape)
  side = window // BLOCK
  return jax.lax.reduce_window(credit_NYX, 0.0, jax.lax.add, (1, side, side), (1, 1, 1), "SAME")


def estimates(judge, made_HWC, key, pairs, scale):
  """Of each window one estimate of the gradient a pair, [N, H, W, C]."""
  noise_NHWC = scale * jax.random.normal(key, (pairs, *made_HWC.shape))
  rows, columns = (side // BLOCK for side in made_HWC.shape[:2])

  def credit(noise_HWC):
    plus, minus = (judge(made_HWC + sign * noise_HWC)["credit"] for sign in (1, -1))
    return (plus - minus).reshape(rows, columns) / 2

  credit_NYX = jax.lax.map(credit, noise_NHWC, batch_size=16)
  for window in WINDOWS:
    by_pixel = jnp.repeat(jnp.repeat(windowed(credit_NYX, window), BLOCK, 1), BLOCK, 2)
    yield window, np.asarray(by_pixel[..., None] * noise_NHWC / scale**2)


def cosine(a, b):
  return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def main(args):
  """The command; returns its exit code."""
  parser = commands.Parser(
    "gradient_of_samples",
    "The cosine of estimated and exact gradients.",
    "python examples/gradient_of_samples.py runs/denoising rtune.rewards.structure:ssim",
  )
  add = parser.add_argument
  add("workdir")
  add("reward", nargs="?", default="rtune.rewards.structure:ssim")
  add("--pictures", type=commands.positive, default=4)
  add("--pairs", type=commands.positive, default=1536, help=f"of samples; at least {max(PAIRS)}")
  add("--scale", type=float, default=0.003, help="of the noise, above 0")
  return commands.guarded(lambda: compare(parser.parse_args(args)))


def compare(flags):
  """Prints a line a window."""
  if flags.pairs < max(PAIRS) or not flags.scale > 0:
    raise UsageError(f"--pairs is at least {max(PAIRS)}, --scale above 0.")
  reward = resolve(flags.reward)
  if "grid" not in inspect.signature(reward).parameters:
    raise UsageError(f"{flags.reward} gives no credit by place; it has no argument `grid`.")
  exact, found = [], {window: [] for window in WINDOWS}
  made, clean = pictures_of(flags.workdir, flags.pictures)
  for number, (made_HWC, clean_HWC) in enumerate(zip(made, clean, strict=True)):

    def judge(picture_HWC, original=Picture(clean_HWC)):  # noqa: B008, of this picture
      return reward(Picture(picture_HWC), original, grid=BLOCK)

    exact.append(np.asarray(jax.grad(lambda x, judge=judge: judge(x)["reward"])(made_HWC)))
    key = jax.random.key(number)
    for window, one in estimates(judge, made_HWC, key, flags.pairs, flags.scale):
      found[window].append(one)
  for window, of_pictures in found.items():
    by_pair = np.stack(of_pictures)  # [pictures, N, H, W, C]
    told = []
    for pairs in (*PAIRS, flags.pairs):
      parts = [by_pair[:, i : i + pairs] for i in range(0, flags.pairs - pairs + 1, pairs)]
      mean = np.mean([cosine(part.mean(axis=1), np.stack(exact)) for part in parts])
      told.append(f"{2 * pairs} samples {mean:.3f}")
    print(f"window {window or 'whole'}: {', '.join(told)}", flush=True)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
