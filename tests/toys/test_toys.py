"""What every policy promises, shown for a toy of each kind by the trainer's own functions.

Dimension key:
  B: batch of images
  S: samples for each image
  N: all answers there are
  T: decisions of an answer
"""

import contextlib
import functools
import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from rtune import config as configs
from rtune.config.names import resolve
from rtune.devices import sharding
from rtune.policies.policy import Policy
from rtune.tasks.task import Task
from rtune.training import losses
from rtune.training.optim import Optimizer
from rtune.training.reinforce import reinforce
from rtune.training.scoring import Scoring, make_scoring
from rtune.training.update import Making, init_state

pytestmark = pytest.mark.usefixtures("quick_compiles")

TOYS = ("tokens", "labels", "image", "agent")
COPIES, SAMPLES, STEPS = 48, 4, 40
ADVANTAGES = ("leave_one_out", "paper", "group_mean", "greedy", "batch", "none")


class Toy(NamedTuple):
  """A toy, a batch of its data, and parameters that are far from each other."""

  name: str
  file: str
  task: Task
  policy: Policy
  batch: dict[str, Any]
  params: Any
  reference: Any

  @property
  def inputs(self):
    return self.task.inputs(self.batch)

  @property
  def images(self) -> int:
    return len(jax.tree.leaves(self.batch)[0])


@functools.cache
def make_toy(name: str, images: int = 4) -> Toy:
  file = str(pathlib.Path(__file__).with_name(f"{name}.py"))
  task, data = resolve(f"{file}:Task")(), resolve(f"{file}:Data")()
  policy = resolve(f"{file}:policy")(task.space())
  examples = [task.example(data[index], None) for index in range(images)]
  batch = {key: jnp.stack([one[key] for one in examples]) for key in examples[0]}

  @jax.jit
  def params(seed):
    first = policy.init(jax.random.key(seed), task.inputs(batch))
    leaves, tree = jax.tree.flatten(first)
    keys = jax.random.split(jax.random.key(100 + seed), len(leaves))
    noisy = [x + 0.4 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)

  return Toy(name, file, task, policy, batch, params(0), params(1))


@pytest.fixture(scope="module", params=TOYS)
def toy(request) -> Toy:
  return make_toy(request.param)


def every_answer(toy: Toy) -> np.ndarray:
  """All answers of a toy with classes, [B, N, ...]."""
  space = toy.task.space()
  if toy.name == "tokens":
    shape, values = (space.length,), space.vocab_size
  else:
    shape, values = (space.height, space.width), space.classes
  every = np.array([*itertools.product(range(values), repeat=int(np.prod(shape)))], np.int32)
  return np.broadcast_to(every.reshape(-1, *shape), (toy.images, len(every), *shape))


def probabilities(toy: Toy) -> np.ndarray:
  """Of all answers, [B, N]."""
  found = jax.jit(lambda params: enumerated(toy, params)[0])(toy.params)
  np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
  return np.asarray(found, np.float64)


def enumerated(toy: Toy, params) -> tuple[jax.Array, Any]:
  """Probabilities [B, N] of all answers, and what the policy says of them.

  Decisions that do not count are 0; what differs in them alone is one answer.
  """
  actions = jnp.asarray(every_answer(toy))
  scored = toy.policy.score(params, toy.inputs, actions)
  flat = actions.reshape(scored.mask.shape)
  likely = jnp.exp(scored.log_prob.sum(-1))
  kept = jnp.all((scored.mask > 0) | (flat == 0), axis=-1)
  return jnp.where(kept, likely, 0), scored


def expected(toy: Toy, params) -> dict[str, jax.Array]:
  """Reward, KL and entropy of an answer, expected over answers, mean over images: exact."""
  if toy.name in ("tokens", "labels"):
    likely, scored = enumerated(toy, params)
    every = jnp.asarray(every_answer(toy))
    reference = toy.policy.score(toy.reference, toy.inputs, every)
    values = {
      "reward": scoring_of(toy.name).score({}, every, toy.batch).reward,
      "kl": jnp.sum(toy.policy.divergence(scored, reference) * scored.mask, -1),
      "entropy": jnp.sum(toy.policy.entropy(scored) * scored.mask, -1),
    }
    return {key: jnp.sum(likely * value) / toy.images for key, value in values.items()}
  return {"image": expected_of_image, "agent": expected_of_agent}[toy.name](toy, params)


def expected_of_image(toy: Toy, params) -> dict[str, jax.Array]:
  gray = toy.batch["image"][..., None] / 255
  mean = params["mean"][None] + params["gain"][None] * gray
  before = toy.reference["mean"][None] + toy.reference["gain"][None] * gray
  scale, old = jnp.exp(params["log_scale"]), jnp.exp(toy.reference["log_scale"])
  error = (mean - toy.batch["tinted"]) ** 2 + scale[None] ** 2
  return {
    "reward": -jnp.mean(error),
    "kl": _normal_kl(scale[None], old[None], (mean - before) ** 2).sum() / toy.images,
    "entropy": _normal_entropy(scale).sum(),
  }


def expected_of_agent(toy: Toy, params) -> dict[str, jax.Array]:
  """A place is normal at each step: its mean and variance are followed."""
  mean, variance = toy.batch["start"], jnp.zeros((1, 2))
  own, old = (jax.tree.map(lambda x: x[None], x) for x in (params, toy.reference))
  gain, bias, scale = own["gain"], own["bias"], jnp.exp(own["log_scale"])
  more_gain, more_bias = gain - old["gain"], bias - old["bias"]
  cost, kl = jnp.zeros(()), jnp.zeros(())
  for _ in range(toy.task.steps):
    cost += jnp.sum((gain * mean + bias) ** 2 + gain**2 * variance + scale**2) / toy.images
    apart = (more_gain * mean + more_bias) ** 2 + more_gain**2 * variance
    kl += _normal_kl(scale, jnp.exp(old["log_scale"]), apart).sum() / toy.images
    mean, variance = (1 + gain) * mean + bias, (1 + gain) ** 2 * variance + scale**2
  missed = jnp.sum((mean - toy.batch["goal"]) ** 2 + variance) / toy.images
  entropy = toy.task.steps * _normal_entropy(scale).sum()
  return {"reward": -missed - 0.1 * cost, "kl": kl, "entropy": entropy}


def _normal_kl(scale, reference, square):
  return jnp.log(reference / scale) + (scale**2 + square) / (2 * reference**2) - 0.5


def _normal_entropy(scale):
  return 0.5 * jnp.log(2 * jnp.pi * jnp.e * scale**2)


def settings_of(toy: Toy, **changes) -> configs.Reward:
  return configs.Reward(fn=f"{toy.file}:reward", num_samples=SAMPLES, **changes)


@functools.cache
def scoring_of(name: str, credit: bool = False) -> Scoring:
  """Shared, since it is compiled for each shape once."""
  toy = make_toy(name)
  args = {"credit": True} if credit else {}
  return make_scoring(settings_of(toy, args=args), toy.task, sharding.make_mesh())


def measured_gradients(toy: Toy, credit: bool = False, **changes) -> Any:
  """Gradients of many reward steps [steps, ...]: plain SGD moves by minus the gradient."""
  making = Making(
    toy.task,
    toy.policy,
    settings_of(toy, **changes),
    frozen={},
    optimizer=Optimizer(*optax.sgd(1.0), optax.tree.norm),
    key=jax.random.key(7),
    shardings=None,
    mesh=sharding.make_mesh(),
    reference=toy.reference,
    clock=lambda part: contextlib.nullcontext(),
  )
  step = reinforce(making, scoring_of(toy.name, credit)).step
  batch = {key: jnp.repeat(value, COPIES, axis=0) for key, value in toy.batch.items()}
  first = jax.device_get(init_state(toy.params, making.optimizer))
  found = []
  for number in range(STEPS):
    state = jax.device_put(first._replace(step=np.int32(number)))
    found.append(jax.device_get(step(state, batch)[0].params))
  return jax.tree.map(lambda old, *new: old - np.stack(new), first.params, *found)


def assert_mean(measured: Any, exact: Any, precision: float = 0.03) -> None:
  """The length along the exact gradient within four standard errors, and each number within five.

  Of hundreds of numbers one may well be four away. `precision` is the largest standard error of the
  length, in lengths: a gradient of another length shall not pass.
  """
  want = np.concatenate([x.ravel() for x in jax.tree.leaves(exact)])
  rows = np.concatenate([x.reshape(len(x), -1) for x in jax.tree.leaves(measured)], axis=1)
  length = rows @ want / (want @ want)
  error, length_error = (x.std(axis=0, ddof=1) / np.sqrt(STEPS) for x in (rows, length))
  away = np.abs(rows.mean(axis=0) - want)
  assert np.all(away <= 5 * error + 1e-6), away / error
  assert abs(length.mean() - 1) <= 4 * length_error
  assert length_error < precision


def exact_gradient(toy: Toy, **factors: float) -> Any:
  """Of minus the expectations of an answer, added with these factors, for each decision."""
  sampled = jax.eval_shape(
    lambda: toy.policy.sample(toy.params, toy.inputs, jax.random.key(0), SAMPLES)
  )
  decisions = sampled.log_prob.shape[-1]
  each = exact_gradients(toy.name, toy.images)
  parts = [jax.tree.map(lambda x, f=f: -f / decisions * x, each[k]) for k, f in factors.items()]
  return jax.tree.map(lambda *x: sum(x), *parts)


@functools.cache
def exact_gradients(name: str, images: int) -> dict[str, Any]:
  toy = make_toy(name, images)
  return jax.device_get(jax.jit(jax.jacrev(lambda params: expected(toy, params)))(toy.params))


def draw(toy: Toy, number: int) -> tuple[Any, Any]:
  """Samples, and what the policy says of them."""

  @jax.jit
  def both(params, inputs):
    sampled = toy.policy.sample(params, inputs, jax.random.key(0), number)
    return sampled, toy.policy.score(params, inputs, sampled.actions)

  return both(toy.params, toy.inputs)


def test_samples_follow_their_score(toy):
  number = 5000
  sampled, scored = jax.device_get(draw(toy, number))
  assert sampled.log_prob.shape == scored.log_prob.shape == scored.mask.shape
  np.testing.assert_allclose(sampled.log_prob, scored.log_prob, atol=1e-5)
  assert np.all(np.where(scored.mask, 0, scored.log_prob) == 0)
  if toy.name in ("tokens", "labels"):
    answers = zip(every_answer(toy), probabilities(toy), sampled.actions, strict=True)
    for every, likely, actions in answers:
      place = {answer.tobytes(): at for at, answer in enumerate(every)}
      counts = np.bincount([place[answer.tobytes()] for answer in actions], None, len(every))
      wanted = number * likely / likely.sum()
      assert counts[likely == 0].sum() == 0
      rare = wanted < 5  # together they are one case
      counts, wanted = ([*x[~rare], x[rare].sum() + 1e-9] for x in (counts, wanted))
      assert stats.chisquare(counts, wanted, sum_check=False).pvalue > 1e-4
  else:
    noise = (sampled.actions - scored.outputs.mean) / scored.outputs.scale
    noise = np.float64(noise.reshape(toy.images * number, -1))
    rows, size = noise.shape
    assert np.all(np.abs(noise.mean(axis=0)) < 5 / np.sqrt(rows))
    covariance = noise.T @ noise / rows
    assert np.all(np.abs(covariance - np.eye(size)) < 5 * np.sqrt((1 + np.eye(size)) / rows))
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4


def some(cases, quick):
  """All cases, those that are not quick in slow tests only."""
  return [pytest.param(*case, marks=() if quick(*case) else pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(
  ("name", "advantage"),
  some(
    itertools.product(TOYS, ADVANTAGES),
    lambda name, advantage: name in ("tokens", "image") or advantage == "leave_one_out",
  ),
)
def test_gradient_of_the_expected_reward(name, advantage):
  toy = make_toy(name)
  shrink = 1 - 1 / SAMPLES if advantage == "group_mean" else 1
  exact = exact_gradient(toy, reward=shrink)
  # Without a baseline the rewards' own level is noise.
  precision = 0.08 if advantage == "none" else 0.03
  assert_mean(measured_gradients(toy, baseline=advantage), exact, precision)


@pytest.mark.parametrize(
  "advantage", some(zip(ADVANTAGES, strict=True), lambda advantage: advantage == "leave_one_out")
)
def test_gradient_with_credit_for_each_pixel(advantage):
  toy = make_toy("labels")
  measured = measured_gradients(toy, True, baseline=advantage)
  shrink = 1 - 1 / SAMPLES if advantage == "group_mean" else 1
  assert_mean(measured, exact_gradient(toy, reward=shrink))


@pytest.mark.parametrize(
  "name", some(zip(TOYS, strict=True), lambda name: name in ("tokens", "agent"))
)
def test_gradient_with_kl_and_entropy(name):
  toy = make_toy(name)
  measured = measured_gradients(toy, kl=0.3, entropy=0.2)
  assert_mean(measured, exact_gradient(toy, reward=1, kl=-0.3, entropy=0.2))


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("name", ["kl", "entropy"])
def test_extra_losses_have_the_gradient_of_their_expectation(name, samples):
  """Of all tuples of answers, each as often as it is drawn; far from the reference."""
  toy = make_toy("tokens", images=1)
  inputs, policy = toy.inputs, toy.policy
  likely = probabilities(toy)[0]
  tuples = np.array([*itertools.product(np.flatnonzero(likely), repeat=samples)])
  often = np.prod(likely[tuples], axis=1)
  actions = jnp.asarray(every_answer(toy)[0][tuples][:, None])

  def gradient(loss):
    def one(params, actions):
      scored = policy.score(params, inputs, actions)
      if name == "entropy":
        return loss(scored, policy)
      return loss(scored, policy, policy.score(toy.reference, inputs, actions))

    each = jax.jit(jax.vmap(jax.grad(one), in_axes=(None, 0)))(toy.params, actions)
    return jax.tree.map(lambda x: np.tensordot(often, x, 1), each)

  def off(found):
    apart = jax.tree.map(np.subtract, found, exact)
    return float(optax.tree.norm(apart) / optax.tree.norm(exact))

  exact = exact_gradient(toy, **{name: -1 if name == "kl" else 1})
  assert off(gradient(getattr(losses, name))) < 1e-5
  assert off(gradient(getattr(losses, f"{name}_of_next"))) > 0.05


def test_best_is_the_mode(toy):
  policy, inputs = toy.policy, toy.inputs
  best = jax.jit(policy.best)(toy.params, inputs)
  if toy.name in ("tokens", "labels"):
    likely, every = probabilities(toy), every_answer(toy)
    mode = every[np.arange(toy.images), np.argmax(likely, axis=1)]
    if toy.name == "labels":
      np.testing.assert_array_equal(best, mode)
      return
    np.testing.assert_array_equal(
      jax.jit(policy.best, static_argnums=2)(toy.params, inputs, 2), mode
    )
    for share, greedy in zip(likely, np.asarray(best), strict=True):  # the mode of each next token
      for place, token in enumerate(greedy):
        begun = np.all(every[0, :, :place] == greedy[:place], axis=-1)
        shares = [share[begun & (every[0, :, place] == other)].sum() for other in range(3)]
        assert token == np.argmax(shares)
    return

  def density(actions):
    return policy.score(toy.params, inputs, actions).log_prob.sum(-1)

  slope = jax.jit(jax.grad(lambda actions: density(actions).sum()))(best[:, None])
  np.testing.assert_allclose(slope, 0, atol=1e-4)
  assert np.all(density(best[:, None]) > draw(toy, 2000)[1].log_prob.sum(-1))


@pytest.mark.parametrize(
  ("name", "samples"),
  some(itertools.product(TOYS, (4, 8)), lambda *case: case in (("tokens", 4), ("agent", 8))),
)
def test_compiled_samples_are_those_of_plain_operations(name, samples):
  """Compiled as training does it, with all of the compiler's optimizations."""
  toy = make_toy(name)

  def draw(params, inputs, key):
    sampled = toy.policy.sample(params, inputs, key, samples)
    return sampled, toy.task.decode({}, sampled.actions, toy.batch, None)

  given = toy.params, toy.inputs, jax.random.key(3)
  before = jax.config.values["jax_disable_most_optimizations"]
  jax.config.update("jax_disable_most_optimizations", False)
  compiled = jax.jit(draw)(*given)
  jax.config.update("jax_disable_most_optimizations", before)
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5),
    compiled,
    draw(*given),
  )
