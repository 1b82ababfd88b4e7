"""Soft actor-critic: what an update of the phase actor_critic does.

Answers are sampled and scored as in REINFORCE. Their decisions, with what each earned, go into a
replay, from which critics learn what decisions are worth; the actor follows the critics' gradient.
So the reward needs no gradient, and an answer teaches more than once.

Dimension key:
  B: batch of images
  S: samples for each image
  T: decisions of an answer
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rtune import config as configs
from rtune.devices import sharding
from rtune.errors import UsageError
from rtune.policies.policy import Policy, Sampled
from rtune.training import critics, replay
from rtune.training.critics import Critics
from rtune.training.replay import Replay
from rtune.training.reward_metrics import reward_metrics
from rtune.training.scoring import Scores, make_scoring
from rtune.training.update import (
  Batch,
  Making,
  Metrics,
  Programs,
  State,
  accumulate,
  apply_update,
  seen,
)


class Kept(NamedTuple):
  """What the phase keeps beside the policy's parameters."""

  critics: Critics
  replay: Replay


def first(policy: Policy, settings: configs.ActorCritic, key: Array) -> Kept:
  """Critics and a replay that know nothing yet."""
  control = policy.control
  held = replay.empty(control, settings.capacity, settings.discount > 0)
  return Kept(critics.first(control, settings, key), held)


def actor_critic(making: Making) -> Programs:
  """Soft actor-critic with any policy that says what its decisions are, and any reward of them."""
  task, policy, settings = making.task, making.policy, making.settings
  scoring = make_scoring(making.reward, task, making.mesh)
  frozen, clock = making.frozen, making.clock

  @functools.partial(jax.jit, compiler_options=policy.compiler_options)
  def sample(params, step, batch) -> Sampled:
    params = sharding.whole(params, making.shardings)
    key = jax.random.fold_in(making.key, step)
    return policy.sample(params, seen(task, batch), key, settings.num_samples)

  update = jax.jit(_update(making), donate_argnums=0, out_shardings=(making.shardings, None))

  def step(state: State, batch: Batch) -> tuple[State, Metrics]:
    with clock("sample"):
      sampled = jax.block_until_ready(sample(state.params, state.step, batch))
    with clock("score"):
      given = frozen, sampled.actions, batch, state.running
      scores = jax.block_until_ready(scoring.score(*given))
    return jax.block_until_ready(update(state, batch, sampled, scores))

  def lower(state, batch):
    across = sharding.batch_sharding(making.mesh)
    spread = functools.partial(
      jax.tree.map, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=across)
    )
    drawing = state.params, state.step, batch
    yield "sample", sample.lower(*drawing)
    sampled = spread(jax.eval_shape(sample, *drawing))
    if scoring.on_device:
      judged = frozen, sampled.actions, batch, state.running
      yield "score", scoring.score.lower(*judged)
      scores = spread(jax.eval_shape(scoring.score, *judged))
    else:
      log_prob = sampled.log_prob
      blank = Scores(log_prob[..., 0], log_prob[..., 0] > 0, {}, log_prob)
      scores = spread(jax.eval_shape(lambda: jax.tree.map(jnp.zeros_like, blank)))
    yield "update", update.lower(state, batch, sampled, scores)

  return Programs(step, lower)


def _update(making: Making):
  """What comes after scoring: into the replay, critics, actor."""
  settings, control = making.settings, making.policy.control

  def update(state: State, batch: Batch, sampled: Sampled, scores: Scores):
    params = sharding.whole(state.params, making.shardings)
    held = replay.add(state.kept.replay, _decided(making, params, batch, sampled, scores))
    key = jax.random.fold_in(making.key, state.step)
    draw_key, learn_key = jax.random.split(jax.random.fold_in(key, 1))

    def one(found: Critics, number) -> tuple[Critics, Metrics]:
      drawn = replay.draw(held, jax.random.fold_in(draw_key, number), settings.replayed)
      own = jax.random.fold_in(learn_key, number)
      return critics.learn(control, settings, found, params, drawn, own)

    learned, said = jax.lax.scan(one, state.kept.critics, jnp.arange(settings.critic_updates))
    drawn = replay.draw(
      held, jax.random.fold_in(draw_key, settings.critic_updates), settings.replayed
    )

    def loss_fn(params, part):
      given = part["decisions"], part["key"]
      return critics.actor_loss(control, settings, part["critics"], params, *given)

    parts, shared = {"decisions": drawn}, {"critics": learned}
    key = jax.random.fold_in(learn_key, settings.critic_updates)
    grads, loss, aux = accumulate(loss_fn, params, parts, settings, key, shared)
    # Critics that are not finite leave out the whole step, as a loss that is not does.
    sound = jnp.all(jnp.isfinite(said["critic_grad_norm"]))
    loss = jnp.where(sound, loss, jnp.nan)
    new, metrics = apply_update(state, making.optimizer, grads, loss, jnp.any(scores.valid))
    stepped, moved = critics.bounded(control, state.params, new.params, drawn, settings.kl_bound)
    good = new.skipped_in_a_row + new.unrewarded_in_a_row == 0
    kept = jax.tree.map(lambda n, o: jnp.where(good, n, o), Kept(learned, held), state.kept)
    metrics |= aux | moved | {name: jnp.mean(value) for name, value in said.items()}
    metrics |= {name: getattr(new, name) for name in ("unrewarded", "unrewarded_in_a_row")}
    metrics |= {"temperature": jnp.exp(learned.log_temperature), "replay": held.filled}
    metrics |= reward_metrics(scores)
    return new._replace(params=stepped, kept=kept), metrics

  return update


def _decided(making: Making, params: Any, batch: Batch, sampled: Sampled, scores: Scores):
  """The decisions of sampled answers, and what each earned."""
  control, actions = making.policy.control, sampled.actions
  credit = scores.credit
  if credit is None or credit.shape != sampled.log_prob.shape:
    raise UsageError(
      "config.reward gives no credit for single decisions, from which actor-critic learns; take "
      "one that does, such as rtune.rewards.patch_gain:patch_gain."
    )
  states, mask = control.states(params, seen(making.task, batch), actions)
  # What is not valid as a whole teaches nothing of its decisions.
  earned = jnp.where(scores.valid[..., None], credit, jnp.nan)
  looks_ahead = making.settings.discount > 0
  return replay.decisions_of(control, states, mask, control.choices(actions), earned, looks_ahead)
