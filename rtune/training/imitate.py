"""Imitation: raises the log-probability of the ground truth (maximum likelihood).

Dimension key:
  B: batch of images
  S: answers of each image: the truth, and behind it one with mistakes where a config makes them
  T: decisions of an answer
"""

import functools

import jax
import jax.numpy as jnp

from rtune.config.names import resolve
from rtune.devices import sharding
from rtune.training import follow, losses
from rtune.training.update import (
  Batch,
  Making,
  Metrics,
  Programs,
  State,
  accumulate,
  apply_update,
  by_decision,
  seen,
)


def imitation(making: Making) -> Programs:
  """One program: gradient and update.

  Extra losses are taken of the truth. Where the config names `mistakes`, answers with mistakes are
  scored beside the truth, and the extra losses are taken of them: what a policy thinks of wrong
  answers is learned while it costs no samples.
  """
  task, settings = making.task, making.settings
  mistakes = None
  if settings.mistakes.fn:
    mistakes = functools.partial(resolve(settings.mistakes.fn), task, **settings.mistakes.args)
  loss_fn = _loss(making, mistakes is not None)

  @functools.partial(jax.jit, donate_argnums=1, out_shardings=(making.shardings, None))
  def update(frozen, state: State, batch: Batch) -> tuple[State, Metrics]:
    target_key, dropout_key = jax.random.split(jax.random.fold_in(making.key, state.step))
    answers = [task.targets(frozen, batch, target_key)]
    if mistakes:
      answers.append(mistakes(batch, jax.random.fold_in(target_key, 1)))
    stacked = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *answers)
    inputs = {"batch": dict(batch), "answers": stacked}
    params = sharding.whole(state.params, making.shardings)
    shared = {"frozen": frozen, "running": state.running}
    grads, loss, aux = accumulate(loss_fn, params, inputs, settings, dropout_key, shared)
    if making.running:
      state = follow.follow(making, state, aux.pop("best"), batch)
    state, metrics = apply_update(
      state, making.optimizer, grads, loss, skip_above=settings.optim.skip_above
    )
    state = follow.averaged(state, follow.teacher_decay(settings))
    return state, metrics | by_decision(aux, ("nll", "entropy"))

  def lower(state, batch):
    yield "update", update.lower(making.frozen, state, batch)

  return Programs(functools.partial(update, making.frozen), lower)


def _loss(making: Making, mistaken: bool):
  """The loss of an update, and what is logged with it: a function of parameters and a part."""
  task, policy, settings = making.task, making.policy, making.settings
  extras = losses.extra_losses(settings)
  needs = losses.needed(extras)

  def loss_fn(params, part):
    batch, inputs = part["batch"], seen(task, part["batch"])
    both = policy.score(params, inputs, part["answers"], part["key"])
    scored, rest = (jax.tree.map(lambda x, i=i: x[:, i], both) for i in (slice(1), slice(1, None)))
    aux = {
      "nll": -jnp.mean(losses.counted(scored)),
      "alive": jnp.mean(scored.mask),
      "entropy": jnp.mean(policy.entropy(scored) * scored.mask),
    }
    aux |= {name: jnp.mean(value) for name, value in policy.describe(scored).items()}
    best = None
    if making.running or "best" in needs:
      best = follow.best_prediction(task, policy, params, inputs, part["frozen"], batch)
    if making.running:
      aux |= {"best": jax.lax.stop_gradient(best)}
    loss = settings.nll_weight * losses.imitation(scored) if settings.nll_weight else 0.0
    if extras:
      actions = part["answers"]
      if mistaken:
        scored, actions = rest, jax.tree.map(lambda x: x[:, 1:], actions)
      offered = {"scored": scored, "policy": policy, "actions": actions}
      offered |= {"truth": task.truth(batch), "running": part["running"], "best": best}
      if "predictions" in needs:
        offered["predictions"] = task.decode(part["frozen"], actions, batch, None)
      weighted, measured = losses.terms(extras, offered)
      aux |= weighted | measured
      loss += sum(weighted.values())
    return loss, aux

  return loss_fn
