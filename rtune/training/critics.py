"""Twin critics of soft actor-critic (Haarnoja et al., 1812.05905), and a bound on the actor's step.

Dimension key:
  N: decisions
  F: features of a state
  A: numbers that are chosen
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from rtune import config as configs
from rtune.models.mlp import Mlp, mlp
from rtune.policies.policy import Control
from rtune.training.optim import of_mixed_types
from rtune.training.replay import Decisions

_MOST_HALVINGS = 12


class Critics(NamedTuple):
  """What is learned of the value of decisions.

  Attributes:
    params: of two critics, leaves [2, ...].
    target: slower copies of them.
    log_temperature: logarithm of the weight of the entropy.
    opt_state: of critics and temperature.
  """

  params: Any
  target: Any
  log_temperature: Float[Array, ""]
  opt_state: Any


def network(settings: configs.ActorCritic) -> Mlp:
  """One critic: state and choice -> value."""
  return mlp((settings.critic_width, settings.critic_width, 1))


def optimizer(settings: configs.ActorCritic) -> optax.GradientTransformation:
  """Of critics and temperature."""
  return of_mixed_types(optax.adam(settings.critic_lr))


def first(control: Control, settings: configs.ActorCritic, key: Array) -> Critics:
  """Critics that know nothing."""
  features = control.features + control.numbers
  params = jax.vmap(lambda key: network(settings).init(key, features))(jax.random.split(key, 2))
  log_temperature = jnp.log(jnp.float32(settings.temperature))
  opt_state = optimizer(settings).init((params, log_temperature))
  # Copies: a donated buffer may stand in a state only once.
  return Critics(params, jax.tree.map(jnp.copy, params), log_temperature, opt_state)


def values(
  settings: configs.ActorCritic,
  params: Any,
  state: Float[Array, "n f"],
  choice: Float[Array, "n a"],
) -> Float[Array, "2 n"]:
  """What both critics say."""
  given = jnp.concatenate([state, choice], axis=-1)
  return jax.vmap(network(settings).apply, in_axes=(0, None))(params, given)[..., 0]


def chosen(control: Control, params: Any, state: Float[Array, "n f"], key: Array):
  """Choices of the actor with their log-probabilities and gradients: ([N, A], [N])."""
  at = control.actor(params, state)
  choice = control.head.sample(key, at)
  return choice, jnp.sum(control.head.log_prob(at, choice), axis=-1)


def learn(
  control: Control,
  settings: configs.ActorCritic,
  critics: Critics,
  policy_params: Any,
  decisions: Decisions,
  key: Array,
) -> tuple[Critics, dict[str, Array]]:
  """One update of critics, their slow copies and the temperature."""
  wanted = decisions.reward
  temperature = jnp.exp(critics.log_temperature)
  if settings.discount:
    choice, log_prob = chosen(control, policy_params, decisions.following, key)
    ahead = jnp.min(values(settings, critics.target, decisions.following, choice), axis=0)
    soft = ahead - temperature * log_prob
    wanted = wanted + settings.discount * decisions.goes_on * soft
  wanted = jax.lax.stop_gradient(wanted)
  _, log_prob = chosen(control, policy_params, decisions.state, jax.random.fold_in(key, 1))
  missing = settings.target_entropy * control.numbers + mean(log_prob, decisions.weight)

  def loss_fn(learned):
    params, log_temperature = learned
    apart = values(settings, params, decisions.state, decisions.choice) - wanted[None]
    error = mean(jnp.sum(apart**2, axis=0), decisions.weight)
    return error - log_temperature * jax.lax.stop_gradient(missing), error

  learned = critics.params, critics.log_temperature
  grads, error = jax.grad(loss_fn, has_aux=True)(learned)
  updates, opt_state = optimizer(settings).update(grads, critics.opt_state, learned)
  params, log_temperature = optax.apply_updates(learned, updates)
  target = optax.incremental_update(params, critics.target, settings.target_rate)
  said = {"critic_loss": error, "critic_grad_norm": optax.tree.norm(grads)}
  return Critics(params, target, log_temperature, opt_state), said


def actor_loss(
  control: Control,
  settings: configs.ActorCritic,
  critics: Critics,
  policy_params: Any,
  decisions: Decisions,
  key: Array,
) -> tuple[Float[Array, ""], dict[str, Array]]:
  """Minus what the more careful critic says of the actor's choices, and their entropy."""
  choice, log_prob = chosen(control, policy_params, decisions.state, key)
  value = jnp.min(values(settings, critics.params, decisions.state, choice), axis=0)
  temperature = jnp.exp(critics.log_temperature)
  loss = mean(temperature * log_prob - value, decisions.weight)
  said = {
    "value": mean(value, decisions.weight),
    "entropy": -mean(log_prob, decisions.weight),
  }
  return loss, said


def bounded(
  control: Control,
  old: Any,
  new: Any,
  decisions: Decisions,
  bound: float,
) -> tuple[Any, dict[str, Array]]:
  """As much of the step from old to new parameters as keeps KL(old || new) within the bound.

  The step is halved until it does, twelve times at most; then it is not taken.

  Args:
    bound: of the mean over decisions, in nats; 0: there is none.
  """
  before = control.actor(old, decisions.state)

  def at(share):
    # What is not finite stays so when it is multiplied by 0.
    return jax.tree.map(lambda o, n: jnp.where(share > 0, o + share * (n - o), o), old, new)

  def kl(share):
    after = control.actor(at(share), decisions.state)
    return mean(jnp.sum(control.head.kl(before, after), axis=-1), decisions.weight)

  whole = jnp.ones(())
  if not bound:
    return new, {"kl_step": kl(whole), "step_share": whole}

  def too_far(found):
    share, apart = found
    return ~(apart <= bound) & (share > 0)

  def halved(found):
    share = jnp.where(found[0] > 2.0**-_MOST_HALVINGS, found[0] / 2, 0.0)
    return share, kl(share)

  share, apart = jax.lax.while_loop(too_far, halved, (whole, kl(whole)))
  return at(share), {"kl_step": apart, "step_share": share}


def mean(values: Float[Array, " n"], weight: Float[Array, " n"]) -> Float[Array, ""]:
  """Over the decisions that count."""
  return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1.0)
