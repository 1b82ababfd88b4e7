"""What one update of the phase `codes` does, and what its code model makes of labels.

`State.params` are the code model's variables: {"params": what has a gradient, "state": the
dictionary, which follows the data by itself}.

Dimension key:
  B: batch of images
  L: codes of an image
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from rtune import config
from rtune.devices import sharding
from rtune.tasks.coded import CodedTask
from rtune.training import update


def init_state(variables: Any, optimizer: optax.GradientTransformation) -> update.State:
  """The state at the start of the phase; the optimizer knows of "params" alone."""
  state = update.init_state(variables["params"], optimizer)
  return state._replace(params=dict(variables))


def codes_step(
  task: CodedTask,
  optimizer: optax.GradientTransformation,
  phase: config.Coding,
  key: Array,
  shardings: Any,
) -> update.Step:
  """Raises the likelihood of labels, or lowers their error, given their own codes.

  With `phase.accumulate` gradients are taken part by part; the dictionary sees the whole batch at
  once, either way. An update that is not finite leaves parameters and dictionary as they were.

  Args:
    shardings: where the state lives, before and after.
  """
  model = task.codes_of()

  def loss_fn(params, part):
    variables = {"params": params, "state": part["state"]}
    batch = part["batch"]
    given = variables, task.labels(batch), batch["image"], part["key"]
    logits, found = model.train(*given)
    loss, terms = task.code_loss(logits, batch)
    return loss, {"terms": dict(terms), "found": found}

  @functools.partial(jax.jit, donate_argnums=0, out_shardings=(shardings, None))
  def step(state: update.State, batch: update.Batch) -> tuple[update.State, update.Metrics]:
    dropout_key, split_key = jax.random.split(jax.random.fold_in(key, state.step))
    old = state.params
    inputs, shared = {"batch": dict(batch)}, {"state": old["state"]}
    params = sharding.whole(old["params"], shardings)
    grads, loss, aux = update.accumulate(
      loss_fn, params, inputs, phase.accumulate, dropout_key, shared
    )
    trained = state._replace(params=old["params"])
    new, metrics = update.apply_update(trained, optimizer, grads, loss)
    learned, said = model.learn(old["state"], aux["found"], split_key)
    good = new.skipped_in_a_row == 0
    learned = jax.tree.map(lambda n, o: jnp.where(good, n, o), learned, old["state"])
    state = new._replace(params={"params": new.params, "state": learned})
    return state, metrics | aux["terms"] | said

  return step


def make_reconstruct(task: CodedTask) -> Callable[..., Any]:
  """(variables, batch) -> (actions [B, 1, L], predictions [B, ...]), jitted.

  The true labels through the code model and back: what a policy without fault would answer.
  """

  @jax.jit
  def reconstruct(variables, batch):
    actions = task.targets(variables, batch, jax.random.key(0))[:, None]
    predictions = task.decode(variables, actions, batch, None)
    return actions, jax.tree.map(lambda x: x[:, 0], predictions)

  return reconstruct
