"""What one update of the phase `codes` does, and what its code model makes of labels.

`State.params` are the code model's variables: {"params": what has a gradient, "state": the
dictionary, which follows the data by itself}.

Dimension key:
  B: batch of images
  L: codes of an image
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from rtune.devices import sharding
from rtune.policies.policy import Policy
from rtune.tasks.coded import CodedTask
from rtune.training import update
from rtune.training.optim import Optimizer
from rtune.training.predicting import Predict
from rtune.training.update import (
  Batch,
  Learned,
  Making,
  Metrics,
  Programs,
  State,
  accumulate,
  apply_update,
)


def init_state(variables: Any, optimizer: Optimizer) -> State:
  """The state at the start of the phase; the optimizer knows of "params" alone."""
  state = update.init_state(variables["params"], optimizer)
  return state._replace(params=dict(variables))


CODE_MODEL = Learned(
  answers=False,
  trained=lambda variables: variables["params"],
  init=init_state,
  frozen=lambda frozen, variables: variables,
)


def coding(making: Making) -> Programs:
  """Raises the likelihood of labels, or lowers their error, given their own codes.

  With `settings.accumulate` gradients are taken part by part; the dictionary sees the whole batch
  at once, either way. An update that is not finite leaves parameters and dictionary as they were.
  """
  task, settings = making.task, making.settings
  model = task.codes_of()

  def loss_fn(params, part):
    variables = {"params": params, "state": part["state"]}
    batch = part["batch"]
    given = variables, task.labels(batch), task.inputs(batch), part["key"]
    logits, found = model.train(*given)
    loss, terms = task.code_loss(logits, batch)
    return loss, {"terms": dict(terms), "found": found}

  @functools.partial(jax.jit, donate_argnums=0, out_shardings=(making.shardings, None))
  def step(state: State, batch: Batch) -> tuple[State, Metrics]:
    dropout_key, split_key = jax.random.split(jax.random.fold_in(making.key, state.step))
    old = state.params
    inputs, shared = {"batch": dict(batch)}, {"state": old["state"]}
    params = sharding.whole(old["params"], making.shardings)
    grads, loss, aux = accumulate(loss_fn, params, inputs, settings, dropout_key, shared)
    trained = state._replace(params=old["params"])
    new, metrics = apply_update(
      trained, making.optimizer, grads, loss, skip_above=settings.optim.skip_above
    )
    learned, said = model.learn(old["state"], aux["found"], split_key)
    good = new.skipped_in_a_row == 0
    if new.norms is not None:
      good &= new.norms.spikes == state.norms.spikes
    learned = jax.tree.map(lambda n, o: jnp.where(good, n, o), learned, old["state"])
    state = new._replace(params={"params": new.params, "state": learned})
    return state, metrics | aux["terms"] | said

  def lower(state, batch):
    yield "update", step.lower(state, batch)

  return Programs(step, lower)


def reconstruction(task: CodedTask, policy: Policy, effort: int = 1) -> Predict:
  """The true labels through the code model and back: what a policy without fault would answer."""
  del policy, effort

  @jax.jit
  def reconstruct(frozen, variables, batch):
    del frozen
    actions = task.targets(variables, batch, jax.random.key(0))[:, None]
    predictions = task.decode(variables, actions, batch, None)
    return actions, jax.tree.map(lambda x: x[:, 0], predictions)

  return reconstruct
