"""What tests of policies over pictures share: a network of single pixels, and many gradients.

Dimension key:
  B: batch of pictures
  S: samples for each picture
  T: decisions
"""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from rtune.devices.compiling import jit_once
from rtune.models.restorer import Restored, Restorer, enlarged
from rtune.policies.policy import Scored
from rtune.training import advantages, losses

ADVANTAGES = ("leave_one_out", "paper", "group_mean", "greedy", "batch", "none")


def pointwise(channels: int, *, scale: int = 1) -> Restorer:
  """What is made of a pixel depends on that pixel alone."""

  def init(key, image, sigma):
    kernel = jnp.eye(channels) + 0.3 * jax.random.normal(key, (channels, channels))
    return {"kernel": kernel, "bias": jnp.full(channels, 0.1)}

  def apply(params, image, sigma):
    image = enlarged(image, scale)
    found = image @ params["kernel"] + params["bias"][None, None, None]
    return Restored(found, jnp.concatenate([found, image**2], axis=-1))

  return Restorer(init, apply, scale)


def inputs_of(height: int, width: int, number: int = 2, channels: int = 1):
  rng = np.random.default_rng(height * width)
  image = rng.random((number, height, width, channels), np.float32)
  return {"image": jnp.asarray(image), "sigma": jnp.full(number, 0.1)}


def random_params(policy, inputs, scale: float = 0.3, seed: int = 0):
  """Parameters that nothing is special about: heads are zero in those of `init`."""
  rng = np.random.default_rng(seed)

  def moved(leaf):  # in numpy: jax would compile a sum for each shape
    return jnp.asarray(np.asarray(leaf) + scale * rng.normal(size=leaf.shape), leaf.dtype)

  return jax.tree.map(moved, jit_once(policy.init)(jax.random.key(0), inputs))


def gradients(policy, params, inputs, judge, samples=4, copies=32, steps=48, names=ADVANTAGES):
  """Of REINFORCE by kind of reward and advantage, {(kind, name): [steps, numbers]}.

  Args:
    judge: (actions [B, S, ...], inputs) -> what each decision earned [B, S, T].
  """
  inputs = jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), inputs)
  best = jax.tree.map(lambda x: x[:, None], policy.best(params, inputs))
  greedy = judge(best, inputs)[:, 0]

  def one(key):
    sampled = policy.sample(params, inputs, key, samples)
    credit = judge(sampled.actions, inputs)
    valid = jnp.ones(credit.shape[:2], bool)
    log_prob, back = jax.vjp(
      lambda params: policy.score(params, inputs, sampled.actions).log_prob, params
    )
    pushes = {}
    for kind, name in itertools.product(("whole", "credit"), names):
      rewards, baseline = (x.sum(-1) if kind == "whole" else x for x in (credit, greedy))
      function = advantages.named(name)
      compared = advantages.advantages(function, rewards, valid, greedy=baseline)

      def loss(log_prob, compared=compared):
        scored = Scored(log_prob, jnp.ones_like(log_prob), None)
        return losses.reinforce(scored, compared)

      pushes[kind, name] = jax.grad(loss)(log_prob)
    (found,) = jax.vmap(back)(jnp.stack([*pushes.values()]))  # compiled once for all
    rows = jnp.concatenate([x.reshape(len(pushes), -1) for x in jax.tree.leaves(found)], axis=1)
    return dict(zip(pushes, rows, strict=True))

  found = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(1), steps))
  return jax.device_get(found)


def assert_mean(rows, want, precision: float = 0.08):
  """Each number, and the length along `want`, within a few standard errors."""
  rows, want = np.asarray(rows, np.float64), np.asarray(want, np.float64)
  length = rows @ want / (want @ want)
  error, length_error = (x.std(axis=0, ddof=1) / np.sqrt(len(rows)) for x in (rows, length))
  assert np.all(np.abs(rows.mean(axis=0) - want) <= 5 * error + 1e-6)
  assert abs(length.mean() - 1) <= 4 * length_error
  assert length_error < precision, "a gradient of another length would pass"


def flat(tree) -> np.ndarray:
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.device_get(tree))])


@contextlib.contextmanager
def all_optimizations():
  """Of the compiler, as training has them."""
  before = jax.config.values["jax_disable_most_optimizations"]
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


def assert_compiled_as_plain(policy, params, inputs, samples: int, precision: float = 1e-5):
  """Samples under jit are those without, and no two pictures of one image are alike."""

  def draw(params, inputs, key):
    return policy.sample(params, inputs, key, samples)

  given = params, inputs, jax.random.key(3)
  with all_optimizations():
    compiled = jax.jit(draw)(*given)
  plain = draw(*given)
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=precision),
    compiled,
    plain,
  )
  actions = compiled.actions
  pictures = actions["image"] if isinstance(actions, dict) else actions
  for picture in np.asarray(pictures):
    for one, other in itertools.combinations(picture, 2):
      assert np.abs(one - other).max() > 1e-3
