"""What is compared with the agent of a recursive restorer: other ways to use the same autoencoder.

Each is a way to predict. None but the oracle sees an original of what it restores.

Dimension key:
  B: batch of pictures
  S: choices that are tried
  H, W: height and width in pixels
  C: channels, each of which has two numbers: its step and its mix
  P: patches of a picture
  A: numbers that are chosen for a patch
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from rtune.devices import sharding
from rtune.display.progress import Progress
from rtune.policies.policy import Control
from rtune.rewards.patch_gain import by_patch
from rtune.training import restore
from rtune.training.optim import make_optimizer
from rtune.training.predicting import Predict
from rtune.training.restore import Restored

STEPS = (0.0, 0.5, 0.75, 1.0, 1.25, 1.5)
MIXES = (-0.4, -0.2, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
TRIED = np.array(list(itertools.product(STEPS, MIXES)), np.float32)
PUBLISHED_REACH = 0.001  # of multipliers
_REACH = 2.0  # of step and mix here, more than any that is tried
_INSIDE = 0.9999  # of the range of tanh, where it has an inverse


def one_pass(run: Restored, reach: float = _REACH, acts_on: str = "step_and_mix") -> Control:
  """A policy of one pass, in which no patch is ever done."""
  given = {"passes": 1, "reach": reach, "done_at": 2 * reach, "acts_on": acts_on}
  return restore.with_policy(run, **given).policy.control


def in_turn(run: Restored, go: Callable[..., Any], passes: int) -> Predict:
  """Predicts by `passes` passes of one pass each.

  Args:
    go: (parameters, picture, number of the pass, batch) -> actions of one pass, leaves [B, 1, ...].
  """

  @jax.jit
  def predict(frozen, params, batch):
    image, found = batch["image"], []
    for number in range(passes):
      found.append(go(params, image, number, batch))
      image = found[-1]["image"][:, 0]
    actions = {
      name: jnp.concatenate([one[name] for one in found], axis=2)
      for name in ("passes", "numbers", "choices")
    } | {"image": image[:, None]}
    predictions = run.task.decode(frozen, actions, batch, None)
    return actions, jax.tree.map(lambda x: x[:, 0], predictions)

  return predict


def random_choices(run: Restored, passes: int, seed: int = 0) -> Predict:
  """Multipliers of the transform's weights, drawn from the published range: what its agent did."""
  control = one_pass(run, PUBLISHED_REACH, "multipliers")

  def go(params, image, number, batch):
    none = jnp.zeros((1, control.numbers))
    shape = jax.eval_shape(functools.partial(_alike, control), params, image, none)["choices"].shape
    key = jax.random.fold_in(jax.random.key(seed), number)
    drawn = jax.random.uniform(
      key, (len(image), 1, shape[3] * shape[4], control.numbers), minval=-1.0, maxval=1.0
    )
    return control.play(params, {"image": image}, jnp.arctanh(_INSIDE * drawn))

  return in_turn(run, go, passes)


def constant(run: Restored, chosen: Sequence[Float[np.ndarray, "c 2"]]) -> Predict:
  """The same step and mix of each channel for all patches, of each pass."""
  control = one_pass(run)

  def go(params, image, number, batch):
    return _alike(control, params, image, _unsquashed(jnp.asarray(chosen[number][None])))

  return in_turn(run, go, len(chosen))


def best_constants(
  run: Restored, params: Any, batches: Iterable[Mapping[str, Array]], passes: int
) -> list[Float[np.ndarray, "c 2"]]:
  """Step and mix of each pass that leave the least error on these pictures, pass by pass.

  Of several channels one after the other, twice: all together would be 72 to the power of 3.
  """
  control = one_pass(run)
  channels = control.numbers // 2

  @jax.jit
  def errors(params, image, clean, tried):
    pictures = _alike(control, params, image, _unsquashed(tried))["image"]
    return jnp.mean((pictures - clean[:, None]) ** 2, axis=(2, 3, 4))

  @jax.jit
  def after(params, image, best):
    return _alike(control, params, image, _unsquashed(best[None]))["image"][:, 0]

  pairs = [(batch["image"], batch["clean"]) for batch in batches]
  chosen = []
  for _ in range(passes):
    best = np.tile(np.float32([1, 0]), (channels, 1))
    for channel in range(channels) if channels == 1 else (*range(channels), *range(channels)):
      tried = np.tile(best, (len(TRIED), 1, 1))
      tried[:, channel] = TRIED
      # PSNR is averaged over pictures, so logarithms are.
      found = [np.log(np.asarray(errors(params, *pair, tried), np.float64)) for pair in pairs]
      best = tried[int(np.concatenate(found).mean(axis=0).argmin())]
    chosen.append(best)
    pairs = [(after(params, image, best), clean) for image, clean in pairs]
  return chosen


def oracle(run: Restored, passes: int) -> Predict:
  """The step and mix of each patch that leave the least error in it, seen on the original.

  Channels are treated alike, and as if its neighbors did the same; so it is no upper bound, but
  near one of gray pictures.
  """
  control = one_pass(run)
  tried = jnp.tile(TRIED[:, None], (1, control.numbers // 2, 1))
  args = run.config.policy.args
  size = int(args.get("side", 16)), int(args.get("overlap", 4))

  def go(params, image, number, batch):
    choices_SA = _unsquashed(tried)
    found = _alike(control, params, image, choices_SA)
    rows, columns = found["numbers"].shape[3:5]
    errors = jnp.mean((found["image"] - batch["clean"][:, None]) ** 2, axis=-1)
    errors_BSP = jax.vmap(lambda x: by_patch(x, rows, columns, *size))(errors)
    best_BP = jnp.argmin(errors_BSP.reshape(*errors.shape[:2], -1), axis=1)
    return control.play(params, {"image": image}, choices_SA[best_BP][:, None])

  return in_turn(run, go, passes)


def by_gradient(run: Restored, params: Any, batches: Iterable[Mapping[str, np.ndarray]]) -> Any:
  """Parameters with an agent that follows the exact gradient of the PSNR after each pass.

  In as many steps, and with the same optimizer, as tuning by rewards takes.
  """
  settings, policy = run.config.reward, run.policy
  optimizer, _ = make_optimizer(settings.optim, settings.steps, params["actor"])

  def loss_fn(actor, rest, batch):
    best = policy.best({**rest, "actor": actor}, run.task.inputs(batch))
    errors = jnp.mean((best["passes"] - batch["clean"][:, None]) ** 2, axis=(2, 3, 4))
    return jnp.mean(jnp.log(errors))

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(actor, opt_state, rest, batch):
    grads = jax.grad(loss_fn)(actor, rest, batch)
    updates, opt_state = optimizer.update(grads, opt_state, actor)
    return optax.apply_updates(actor, updates), opt_state

  actor = jax.tree.map(jnp.copy, params["actor"])
  opt_state = optimizer.init(actor)
  rest = {name: value for name, value in params.items() if name != "actor"}
  with Progress(settings.steps, "exact gradient", images_per_unit=settings.batch_size) as progress:
    for done, batch in enumerate(itertools.islice(batches, settings.steps), start=1):
      given = rest, sharding.put_batch(run.mesh, batch)
      actor, opt_state = jax.block_until_ready(step(actor, opt_state, *given))
      progress.update(done)
  return {**params, "actor": actor}


def _unsquashed(pairs_SC2: Float[Array, "s c 2"]) -> Float[Array, "s a"]:
  """Choices of a policy whose numbers reach `_REACH`, before they are squashed."""
  around = jnp.asarray([1.0, 0.0])[None, None]
  return jnp.arctanh((pairs_SC2 - around) / _REACH).reshape(len(pairs_SC2), -1)


def _alike(
  control: Control, params: Any, image: Float[Array, "b h w c"], choices: Float[Array, "s a"]
) -> Any:
  """Actions of samples, each with the same choices for all patches."""
  every = jnp.broadcast_to(choices[None, :, None], (len(image), len(choices), 1, choices.shape[-1]))
  return control.play(params, {"image": image}, every)
