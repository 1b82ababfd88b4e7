"""What every update has in common: `(state, batch) -> (state, metrics)`.

What is computed in it is said by imitate.py, reinforce.py and codes.py.

Dimension key:
  B: batch of images
  S: samples for each image
  T: decisions of an answer
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from rtune.policies.policy import Inputs, Policy
from rtune.rewards.running import Running
from rtune.tasks.task import Task
from rtune.training.optim import Optimizer, trainable

Batch = Mapping[str, Array]
FEATURES = "features"  # in a batch: what a backbone says of it, where that is kept
Metrics = dict[str, Array]
_SETTLED, _DECAY = 20, 0.98  # steps until norms say what is usual; what one step weighs then
Step = Callable[["State", Batch], tuple["State", Metrics]]


class Norms(NamedTuple):
  """What the norms of gradients usually are.

  Attributes:
    mean: running, of so many steps as `count` says, those far above it cut.
    spikes: updates that were left out because their norm was far above it.
  """

  mean: Float[Array, ""]
  count: Int[Array, ""]
  spikes: Int[Array, ""]


class State(NamedTuple):
  """What training changes; all of it is in a checkpoint.

  Attributes:
    step: updates of this phase so far, tried or done.
    params: what is trained.
    opt_state: the optimizer's.
    skipped: updates of this phase that were not applied because something was not finite.
    skipped_in_a_row: those since the last one that was finite.
    unrewarded: updates that were not applied because no answer of the batch had a valid reward.
    unrewarded_in_a_row: those since the last batch that had one.
    running: what `config.<phase>.running` follows in the predictions; None where it names nothing.
    teacher: a mean of the parameters so far, which labels images; None where nobody asks for it.
    norms: of gradients so far; None where no update is left out for its own.
    kept: what else a phase keeps, such as critics and a replay; None for most.
  """

  step: Int[Array, ""]
  params: Any
  opt_state: Any
  skipped: Int[Array, ""]
  skipped_in_a_row: Int[Array, ""]
  unrewarded: Int[Array, ""]
  unrewarded_in_a_row: Int[Array, ""]
  running: Any = None
  teacher: Any = None
  norms: Norms | None = None
  kept: Any = None


class Programs(NamedTuple):
  """What a phase does in a step.

  Attributes:
    step: (state, batch) -> (state, metrics).
    lower: (state, batch), as shapes -> the device programs of a step by name, lowered: so that they
      can be compiled for machines that are not there.
  """

  step: Step
  lower: Callable[[State, Batch], Iterator[tuple[str, jax.stages.Lowered]]]


class Making(NamedTuple):
  """What a step is made of.

  Attributes:
    settings: of the phase, from the config.
    frozen: what the task's functions take under this name; arrays, or shapes.
    shardings: where the state lives, before and after.
    reference: parameters that tuning starts from; read where a loss asks for them.
    clock: context manager that adds up seconds under a name.
    running: the statistic that rewards and losses may read, if there is one.
    reward: what judges answers, from the config.
  """

  task: Task
  policy: Policy
  settings: Any
  frozen: Any
  optimizer: Optimizer
  key: Array
  shardings: Any
  mesh: Mesh
  reference: Any
  clock: Callable[[str], Any]
  running: Running | None = None
  reward: Any = None


class Learned(NamedTuple):
  """What a phase trains.

  Attributes:
    answers: whether its weights predict by themselves.
    trained: params -> those that have a gradient.
    init: (params, optimizer) -> the state at the start of a phase.
    frozen: (what there was, params) -> what the task's functions take as `frozen` with these.
  """

  answers: bool
  trained: Callable[[Any], Any]
  init: Callable[[Any, Optimizer], State]
  frozen: Callable[[Any, Any], Any]


def seen(task: Task, batch: Batch) -> Inputs:
  """What the policy gets of a batch of training: kept features, or the task's inputs. jit."""
  return batch[FEATURES] if FEATURES in batch else task.inputs(batch)


def init_state(params: Any, optimizer: Optimizer) -> State:
  """The state at the start of a phase."""
  # Five arrays, not one five times: a donated buffer may stand in a state only once.
  step, *counts = [jnp.zeros((), jnp.int32) for _ in range(5)]
  return State(step, params, optimizer.init(params), *counts)


POLICY = Learned(
  answers=True,
  trained=lambda params: params,
  init=init_state,
  frozen=lambda frozen, params: frozen,
)


def accumulate(loss_fn, params, inputs, settings, key, shared: Mapping = {}):
  """Gradient, loss and auxiliary values of `inputs`, taken in slices of the batch.

  Slices are strided, so that on a mesh every slice has examples of every device. Scalars are
  averaged; auxiliary arrays come back in the order of the batch. Of parameters that do not train
  no gradient is taken: it is 0.

  Args:
    settings: of the phase, whose `accumulate` is the number of slices.
    loss_fn: (params, part) -> (loss, auxiliary values); a part also holds what is `shared` by all,
      and of its own a `key`, if one is given.
  """
  trained, parts = trainable(settings.optim, params), settings.accumulate

  def loss_of(params, part):
    held = jax.tree.map(lambda x, t: x if t else jax.lax.stop_gradient(x), params, trained)
    return loss_fn(held, part)

  grad_fn = jax.value_and_grad(loss_of, has_aux=True)

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


def apply_update(
  state: State,
  optimizer: Optimizer,
  grads: Any,
  loss: Array,
  rewarded: Array | bool = True,
  skip_above: float = 0.0,
) -> tuple[State, Metrics]:
  """Applies the update if everything in it is finite and `rewarded`, else keeps the state.

  Where the state has `norms`, an update is left out as well if the norm of its gradient is more
  than `skip_above` times the running one.
  """
  grad_norm = optimizer.norm(grads)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  # The updates too: finite gradients can overflow in the optimizer, and that would stay.
  finite = jnp.isfinite(loss + grad_norm + optimizer.norm(updates))
  usual, norms = _compare(state.norms, grad_norm, finite & rewarded, skip_above)
  applied = finite & rewarded & usual
  params = optax.apply_updates(state.params, updates)

  def keep(new, old):
    return jax.tree.map(lambda n, o: jnp.where(applied, n, o), new, old)

  # Without any reward nothing is learned of how finite the update would have been.
  unrewarded = 1 - jnp.asarray(rewarded, jnp.int32)
  bad = (1 - finite.astype(jnp.int32)) * (1 - unrewarded)
  new_state = State(
    state.step + 1,
    keep(params, state.params),
    keep(opt_state, state.opt_state),
    state.skipped + bad,
    (state.skipped_in_a_row + 1) * bad + state.skipped_in_a_row * unrewarded,
    state.unrewarded + unrewarded,
    (state.unrewarded_in_a_row + 1) * unrewarded,
    state.running,
    state.teacher,
    norms,
    state.kept,
  )
  metrics = {
    "loss": loss,
    "grad_norm": grad_norm,
    "skipped": new_state.skipped,
    "skipped_in_a_row": new_state.skipped_in_a_row,
  }
  if norms is not None:
    metrics["spikes"] = norms.spikes
  return new_state, metrics


def _compare(
  norms: Norms | None, norm: Array, counts: Array, skip_above: float
) -> tuple[Array | bool, Norms | None]:
  """Whether a norm is as usual, and the norms with it; only what `counts` changes them."""
  if norms is None:
    return True, None
  usual = (norms.count < _SETTLED) | (norm <= skip_above * norms.mean)
  # Cut, so that one spike changes little, but not left out: what stays high becomes usual.
  seen = jnp.where(usual, norm, skip_above * norms.mean)
  decay = jnp.minimum(norms.count.astype(norm.dtype) / (norms.count + 1).astype(norm.dtype), _DECAY)
  mean = decay * norms.mean + (1 - decay) * seen
  new = Norms(mean, norms.count + 1, norms.spikes + (1 - usual.astype(jnp.int32)))
  return usual, jax.tree.map(lambda n, o: jnp.where(counts, n, o), new, norms)


def init_norms() -> Norms:
  """Before the first step."""
  return Norms(jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def by_decision(aux: Metrics, names: Sequence[str]) -> Metrics:
  """Means over all of [B, S, T] as means over the decisions that count."""
  alive = aux.pop("alive")
  return {k: v / jnp.maximum(alive, 1e-9) if k in names else v for k, v in aux.items()}
