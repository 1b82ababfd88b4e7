"""REINFORCE: what an update of the phase reward does.

Three device programs, so that the time of each shows: sample -> score -> update.

Dimension key:
  B: batch of images
  S: samples for each image
  T: decisions of an answer
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rtune.devices import sharding
from rtune.errors import UsageError
from rtune.policies.policy import Actions, Sampled, Scored
from rtune.training import follow, losses, siblings
from rtune.training.advantages import advantages, asks_for, named
from rtune.training.redraw import alike, redrawing, same_parts
from rtune.training.reward_metrics import reward_metrics
from rtune.training.scoring import Scores, Scoring, make_scoring
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


def reinforce(making: Making, scoring: Scoring | None = None) -> Programs:
  """REINFORCE with any policy, any reward and any advantage.

  Args:
    scoring: gives rewards to actions; the config's if None.
  """
  task, policy, settings = making.task, making.policy, making.settings
  scoring = scoring or make_scoring(settings, task, making.mesh)
  needs_greedy = asks_for(named(settings.baseline), "greedy")
  parts, frozen, clock = settings.overlap, making.frozen, making.clock
  reference = making.reference
  decoding = functools.partial(jax.jit, compiler_options=policy.compiler_options)

  @decoding
  def sample(params, step, batch, part) -> Sampled:
    sample_key = jax.random.fold_in(making.key, step)
    if parts > 1 or settings.resample:
      sample_key = jax.random.fold_in(sample_key, part)
    params = sharding.whole(params, making.shardings)
    return policy.sample(params, seen(task, batch), sample_key, settings.num_samples)

  @decoding
  def best(params, batch) -> Actions:
    found = policy.best(sharding.whole(params, making.shardings), seen(task, batch))
    return jax.tree.map(lambda x: x[:, None], found)

  def again(state: State, batch: Batch, number: int) -> tuple[Sampled, Scores]:
    with clock("sample"):
      sampled = jax.block_until_ready(sample(state.params, state.step, batch, parts + number))
    with clock("score"):
      given = frozen, sampled.actions, batch, state.running
      return sampled, jax.block_until_ready(scoring.score(*given))

  redraw = redrawing(making.mesh, settings.resample, again)
  update = jax.jit(reward_update(making), donate_argnums=1, out_shardings=(making.shardings, None))

  def step(state: State, batch: Batch) -> tuple[State, Metrics]:
    slices = _split(batch, parts)
    # All are dispatched at once: while the host scores one, the device samples the next. Where a
    # program is small, or its loop is led by the host, this call is what takes the time.
    with clock("sample"):
      pending = [sample(state.params, state.step, x, i) for i, x in enumerate(slices)]
    scores = []
    for inputs, sampled in zip(slices, pending, strict=True):
      with clock("sample"):
        jax.block_until_ready(sampled)
      with clock("score"):
        given = frozen, sampled.actions, inputs, state.running
        scores.append(jax.block_until_ready(scoring.score(*given)))
    greedy = None
    if needs_greedy:
      with clock("sample"):
        found = jax.block_until_ready(best(state.params, batch))
      with clock("score"):
        greedy = scoring.score(frozen, found, batch, state.running)
    first = _join(same_parts(scores))
    sampled, scores = redraw(state, batch, (_join(pending), first))
    return jax.block_until_ready(
      update(frozen, state, batch, sampled, scores, first, greedy, reference)
    )

  given = making, scoring, sample, update, needs_greedy
  return Programs(step, functools.partial(_lower, *given))


def _lower(making: Making, scoring: Scoring, sample, update, needs_greedy: bool, state, batch):
  """The device programs of a step by name, lowered from shapes."""
  across = sharding.batch_sharding(making.mesh)
  spread = functools.partial(
    jax.tree.map, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=across)
  )
  drawing = state.params, state.step, batch, 0
  yield "sample", sample.lower(*drawing)
  sampled = spread(jax.eval_shape(sample, *drawing))
  if scoring.on_device:
    judged = making.frozen, sampled.actions, batch, state.running
    yield "score", scoring.score.lower(*judged)
    scores = spread(jax.eval_shape(scoring.score, *judged))
  else:
    shape = sampled.log_prob.shape[:2]
    blank = Scores(jnp.zeros(shape), jnp.zeros(shape, bool), {})
    scores = spread(jax.eval_shape(lambda: blank))
  greedy = jax.tree.map(
    lambda x: spread(jax.ShapeDtypeStruct((x.shape[0], 1, *x.shape[2:]), x.dtype)), scores
  )
  last = (sampled, scores, scores, greedy if needs_greedy else None, making.reference)
  yield "update", update.lower(making.frozen, state, batch, *last)


@functools.partial(jax.jit, static_argnums=1)
def _split(tree: Any, parts: int) -> list[Any]:
  """A batch as `parts` strided slices: on a mesh every slice has examples of every device."""
  return [jax.tree.map(lambda x, i=i: x[i::parts], tree) for i in range(parts)]


@jax.jit
def _join(slices: Sequence[Any]) -> Any:
  """What `_split` took apart."""
  return jax.tree.map(lambda *x: jnp.stack(x, axis=1).reshape(-1, *x[0].shape[1:]), *slices)


def reward_loss(making: Making):
  """The loss of an update, and what is logged with it: a function of parameters and a part."""
  task, policy = making.task, making.policy
  extras = losses.extra_losses(making.settings)
  needs, weights = losses.needed(extras), task.space().weights

  def loss_fn(params, part):
    batch, actions = part["batch"], part["actions"]
    inputs = seen(task, batch)
    scored: Scored = policy.score(params, inputs, actions)
    offered = {"scored": scored, "policy": policy, "actions": actions}
    if "reference" in needs:
      offered["reference"] = policy.score(part["reference"], inputs, actions)
    if "predictions" in needs:
      offered["predictions"] = task.decode(part["frozen"], actions, batch, None)
    if "truth" in needs:
      offered["truth"] = task.truth(batch)
    if "running" in needs:
      offered["running"] = part["running"]
    best = None
    if making.running or "best" in needs:
      best = follow.best_prediction(task, policy, params, inputs, part["frozen"], batch)
      offered["best"] = best
    terms = {"reinforce": losses.reinforce(scored, part["advantages"], weights)}
    weighted, measured = losses.terms(extras, offered)
    terms |= weighted
    aux = terms | measured
    aux |= {"entropy": jnp.mean(policy.entropy(scored) * scored.mask)}
    aux |= {"alive": jnp.mean(scored.mask)}
    aux |= {name: jnp.mean(value) for name, value in policy.describe(scored).items()}
    if making.running:
      aux |= {"best": jax.lax.stop_gradient(best)}
    return sum(terms.values()), aux | {"log_prob": losses.counted(scored)}

  return loss_fn


def reward_update(making: Making):
  """The part of a reward step with gradients."""
  settings, loss_fn = making.settings, reward_loss(making)
  needs = losses.needed(losses.extra_losses(settings))
  baseline = named(settings.baseline)

  def update(frozen, state: State, batch, sampled, scores, first: Scores, greedy, reference):
    rewards = scores.reward if scores.credit is None else _credit(scores.credit, sampled)
    offered = {"sampled": sampled}
    if greedy is not None:
      offered["greedy"] = (greedy.reward if greedy.credit is None else greedy.credit)[:, 0]
    compared = advantages(baseline, rewards, scores.valid, settings.normalize, **offered)
    inputs = {"batch": dict(batch), "actions": sampled.actions, "advantages": compared}
    shared = {"frozen": frozen, "running": state.running}
    if "reference" in needs:
      shared["reference"] = sharding.whole(reference, making.shardings)
    params = sharding.whole(state.params, making.shardings)
    grads, loss, aux = accumulate(loss_fn, params, inputs, settings, None, shared)
    gap = jnp.max(jnp.abs(aux.pop("log_prob") - sampled.log_prob))
    if making.running:
      state = follow.follow(making, state, aux.pop("best"), batch)
    state, metrics = apply_update(
      state, making.optimizer, grads, loss, jnp.any(scores.valid), settings.optim.skip_above
    )
    state = follow.averaged(state, follow.teacher_decay(settings))
    metrics |= {name: getattr(state, name) for name in ("unrewarded", "unrewarded_in_a_row")}
    metrics |= by_decision(aux, ("entropy", "kl")) | {"log_prob_gap": gap}
    # What was drawn again is no fair sample: the log is of the first draws.
    metrics |= reward_metrics(first) | {"advantage_std": jnp.std(compared)}
    if settings.resample:
      left = alike(scores)
      metrics |= {"alike_left": jnp.mean(left), "redrawn": jnp.mean(alike(first) & ~left)}
    copied = siblings.copied_share(sampled)
    metrics |= {} if copied is None else {"copied": copied}
    return state, metrics | {"unique": siblings.unique_share(sampled.actions)}

  return update


def _credit(credit: Array, sampled: Sampled) -> Array:
  if credit.shape != sampled.log_prob.shape:
    raise UsageError(
      f"The reward gives credit for {credit.shape[-1]} decisions, but an answer consists of "
      f"{sampled.log_prob.shape[-1]}; give one number for each."
    )
  return credit
