"""What every update has in common, and that of imitation: `(state, batch) -> (state, metrics)`.

That of tuning is in reward_step.py, that of a code model in code_step.py.

Dimension key:
  B: batch of images
  S: samples for each image
  L: positions of an answer
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from rtune import config
from rtune.devices import sharding
from rtune.policies.policy import Policy
from rtune.tasks.task import Task
from rtune.training import losses
from rtune.training.scoring import Lesson

Batch = Mapping[str, Array]
Metrics = dict[str, Array]
Step = Callable[["State", Batch], tuple["State", Metrics]]


class State(NamedTuple):
  """What training changes; all of it is in a checkpoint.

  Attributes:
    step: updates of this phase so far, tried or done.
    params: what is trained.
    opt_state: the optimizer's.
    skipped: updates of this phase that were not applied because something was not finite.
    skipped_in_a_row: those since the last one that was applied.
  """

  step: Int[Array, ""]
  params: Any
  opt_state: Any
  skipped: Int[Array, ""]
  skipped_in_a_row: Int[Array, ""]


def init_state(params: Any, optimizer: optax.GradientTransformation) -> State:
  """The state at the start of a phase."""
  # Three arrays, not one thrice: a donated buffer may stand in a state only once.
  zeros = [jnp.zeros((), jnp.int32) for _ in range(3)]
  return State(zeros[0], params, optimizer.init(params), zeros[1], zeros[2])


def imitation_step(
  task: Task,
  policy: Policy,
  optimizer: optax.GradientTransformation,
  phase: config.Imitate,
  frozen: Any,
  key: Array,
  shardings: Any,
  lesson: Lesson | None = None,
) -> Step:
  """Maximum likelihood: raises the log-probability of the ground truth.

  Args:
    frozen: arrays, which are an argument of the compiled step, not constants in it.
    shardings: where the state lives, before and after.
    lesson: what is learned beside it, on answers with mistakes.

  Returns:
    A jitted function with `frozen` bound as its first argument.
  """

  def loss_fn(params, part):
    batch, answers_BSL = part["batch"], part["answers"]
    both = policy.log_prob(params, batch["image"], answers_BSL, part["key"])
    scored, rest = (jax.tree.map(lambda x, i=i: x[:, i], both) for i in (slice(1), slice(1, None)))
    aux = {
      "nll": -jnp.mean(scored.log_prob),
      "alive": jnp.mean(scored.mask),
      "length": jnp.mean(jnp.sum(scored.mask, axis=-1)),
      "entropy": jnp.mean(scored.entropy),
    }
    loss = losses.imitation(scored)
    if lesson:
      aux["supervised"] = lesson.loss(part["frozen"], rest, answers_BSL[:, 1:], batch)
      loss += aux["supervised"]
    return loss, aux

  @functools.partial(jax.jit, donate_argnums=1, out_shardings=(shardings, None))
  def step(frozen, state: State, batch: Batch) -> tuple[State, Metrics]:
    target_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    answers = [task.targets(frozen, batch, target_key)]
    if lesson:
      answers.append(lesson.mistakes(batch, jax.random.fold_in(target_key, 1)))
    inputs = {"batch": dict(batch), "answers": jnp.stack(answers, axis=1)}
    params = sharding.whole(state.params, shardings)
    grads, loss, aux = accumulate(
      loss_fn, params, inputs, phase.accumulate, dropout_key, {"frozen": frozen}
    )
    state, metrics = apply_update(state, optimizer, grads, loss)
    return state, metrics | by_position(aux, ("nll", "entropy"))

  return functools.partial(step, frozen)


def accumulate(loss_fn, params, inputs, parts: int, key, shared: Mapping = {}):
  """Gradient, loss and auxiliary values of `inputs`, taken in `parts` slices of the batch.

  Slices are strided, so that on a mesh every slice has examples of every device. Scalars are
  averaged; auxiliary arrays come back in the order of the batch.

  Args:
    loss_fn: (params, part) -> (loss, auxiliary values); a part also holds what is `shared` by all,
      and of its own a `key`, if one is given.
  """
  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)

  def one(part, index):
    own = None if key is None else jax.random.fold_in(key, index)
    (loss, aux), grads = grad_fn(params, {**part, **shared, "key": own})
    return grads, loss, aux

  if parts == 1:
    return one(inputs, 0)
  sliced = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), inputs)

  def body(total, part_index):
    grads, loss, aux = one(*part_index)
    return jax.tree.map(jnp.add, total, (grads, loss)), aux

  zero = jax.tree.map(jnp.zeros_like, params), jnp.zeros(())
  total, aux = jax.lax.scan(body, zero, (sliced, jnp.arange(parts)))
  grads, loss = jax.tree.map(lambda x: x / parts, total)

  def join(x):
    return jnp.mean(x) if x.ndim == 1 else x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

  return grads, loss, jax.tree.map(join, aux)


def apply_update(state: State, optimizer, grads, loss, worth=True) -> tuple[State, Metrics]:
  """Applies the update if everything in it is finite (and `worth` it), else keeps the state."""
  grad_norm = optax.tree.norm(grads)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  # The updates too: finite gradients can overflow in the optimizer, and that would stay.
  good = jnp.isfinite(loss + grad_norm + optax.tree.norm(updates)) & worth
  params = optax.apply_updates(state.params, updates)

  def keep(new, old):
    return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)

  bad = 1 - good.astype(jnp.int32)
  new_state = State(
    state.step + 1,
    keep(params, state.params),
    keep(opt_state, state.opt_state),
    state.skipped + bad,
    (state.skipped_in_a_row + 1) * bad,
  )
  metrics = {
    "loss": loss,
    "grad_norm": grad_norm,
    "skipped": new_state.skipped,
    "skipped_in_a_row": new_state.skipped_in_a_row,
  }
  return new_state, metrics


def by_position(aux: Metrics, names: tuple[str, ...]) -> Metrics:
  """Means over all of [B, S, L] as means over the positions before the end."""
  alive = aux.pop("alive")
  return {k: v / jnp.maximum(alive, 1e-9) if k in names else v for k, v in aux.items()}
