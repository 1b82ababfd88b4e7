"""How fast answers are drawn, beside the plain sampler and beside the floor."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rtune import config as configs
from rtune.benchmark.plain_sampler import plain_sample
from rtune.benchmark.row import Row
from rtune.benchmark.timing import interleaved
from rtune.models import encoder_decoder
from rtune.models.encoder_decoder import EncoderDecoder
from rtune.plan import counts
from rtune.policies.policy import Policy
from rtune.policies.tokens import autoregressive


class Setting(NamedTuple):
  """What is sampled: a model, the sizes of its input and its answers."""

  model: configs.Model
  vocab_size: int
  image_size: int
  length: int
  batch: int
  samples: int


STANDARD = Setting(
  model=configs.Model(
    encoder=configs.Encoder(variant="S", patch_size=16),
    decoder=configs.Decoder(width=384, depth=6, num_heads=6, mlp_dim=1536),
  ),
  vocab_size=1200,
  image_size=224,
  length=128,
  batch=4,
  samples=4,
)


class Ready(NamedTuple):
  """A setting made real, with random weights: how fast it is does not depend on them."""

  model: EncoderDecoder
  policy: Policy
  params: dict
  images: jax.Array
  sizes: counts.Sizes


def make_ready(setting: Setting) -> Ready:
  """Weights such that tokens depend on image and prefix, and images of noise."""
  model = encoder_decoder.build(setting.model, setting.vocab_size, setting.length)
  policy = autoregressive(model, setting.length, None, setting.model.cache_block)
  shape = (setting.batch, setting.image_size, setting.image_size, 3)
  images = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))

  shapes = jax.eval_shape(policy.init, jax.random.key(0), images[:1])
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    around = 1.0 if path[-1].key == "scale" else 0.0
    return jnp.asarray(around + 0.03 * rng.standard_normal(leaf.shape, np.float32))

  params = jax.tree_util.tree_map_with_path(draw, shapes)
  sizes = counts.Sizes(model, setting.image_size, setting.length, setting.batch, setting.samples)
  return Ready(model, policy, params, images, sizes)


def samplers(ready: Ready) -> dict:
  """Calls that sample, ours and the plain one, with the key 0; both return `Sampled`."""
  sizes = ready.sizes
  options = ready.policy.compiler_options
  ours = jax.jit(ready.policy.sample, static_argnums=3, compiler_options=options)
  plain = jax.jit(functools.partial(plain_sample, ready.model), static_argnums=(3, 4))
  given = ready.params, ready.images, jax.random.key(0), sizes.samples
  return {"ours": lambda: ours(*given), "plain": lambda: plain(*given, sizes.length)}


def decode_rows(machine: counts.Machine, repeats: int) -> list[Row]:
  """The standard setting: rtune's sampler, the yardstick and on CPUs bfloat16, in turns."""
  tokens = STANDARD.batch * STANDARD.samples * STANDARD.length
  title = f"{STANDARD.batch} images x {STANDARD.samples} samples x {STANDARD.length} tokens"
  ready, on_cpu = make_ready(STANDARD), jax.default_backend() == "cpu"
  calls = samplers(ready)
  if on_cpu:
    halves = dataclasses.replace(STANDARD.model, dtype="bfloat16")
    calls["halves"] = samplers(make_ready(STANDARD._replace(model=halves)))["ours"]
  timed = interleaved(calls, repeats)

  def row(name: str, title: str, floor: counts.Floor | None = None) -> Row:
    note = ""
    if name != "plain":
      note = f"{timed.ratio('plain', name):.2f} x as fast as the plain one"
      note += f", {timed.cpu_ratio('plain', name):.2f} x by CPU seconds" if on_cpu else ""
    return Row("decode", title, timed.median(name), tokens, "token", floor, note)

  floor = sampling_floor(ready.sizes, machine)
  rows = [row("ours", f"sampling, {title}", floor), row("plain", "plain cached sampler")]
  return [*rows, row("halves", "sampling, dtype=bfloat16")] if on_cpu else rows


def sampling_floor(sizes: counts.Sizes, machine: counts.Machine) -> counts.Floor:
  """Encoding, then decoding: one after the other."""
  one, other = (counts.floor(part(sizes), machine) for part in (counts.encoding, counts.decoding))
  longer = one if one.seconds > other.seconds else other
  return counts.Floor(one.seconds + other.seconds, longer.binds)


SWEEPS = {
  "samples": (1, 2, 4, 8),
  "length": (32, 64, 128),
  "image_size": (112, 224, 448),
  "batch": (1, 2, 4, 8),
}


def sweep_rows(machine: counts.Machine, repeats: int, names: Sequence[str] = ()) -> list[Row]:
  """The standard setting with one size changed at a time, and how time grows with it."""
  rows = []
  for name in names or SWEEPS:
    before = None
    for value in SWEEPS[name]:
      ready = make_ready(STANDARD._replace(**{name: value}))
      timed = interleaved({"ours": samplers(ready)["ours"]}, repeats)
      seconds, sizes = timed.median("ours"), ready.sizes
      floor = sampling_floor(sizes, machine)
      note = ""
      if before is not None:
        grown = np.log(seconds / before[1]) / np.log(value / before[0])
        least = np.log(floor.seconds / before[2]) / np.log(value / before[0])
        note = f"grows as {name}^{grown:.2f}, floor ^{least:.2f}"
      tokens = sizes.batch * sizes.samples * sizes.length
      rows.append(Row("sweep", f"{name} {value}", seconds, tokens, "token", floor, note))
      before = value, seconds, floor.seconds
  return rows
