"""The optimizer against the formulae, computed step by step in numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from rtune.errors import UsageError
from rtune.training.optim import Optim, check_optim, make_optimizer, schedule_factor, trainable

STEPS = 10
# kernel, heads: factored (the two largest dimensions are >= 32); narrow, bias: not factored.
SHAPES = {
  "encoder": {"kernel": (40, 32), "bias": (32,)},
  "decoder": {"heads": {"kernel": (34, 3, 48)}, "narrow": {"kernel": (64, 31)}},
}


def make_params(seed: int = 0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
    SHAPES,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def make_grads(step: int):
  """Gradients whose size changes from step to step, so that moments and clipping matter."""
  size = 10.0 if step % 3 == 0 else 0.01
  return jax.tree.map(lambda x: size * x, make_params(100 + step))


def run(config: Optim, steps: int = STEPS, total_steps: int = STEPS):
  params = make_params()
  optimizer, _ = make_optimizer(config, total_steps, params)
  state = optimizer.init(params)

  @jax.jit
  def step(params, state, grads):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  for t in range(steps):
    params, state = step(params, state, make_grads(t))
  return params, state


class Adafactor:
  """Second moment of one leaf, factored over its two largest dimensions; float64 numpy."""

  def __init__(self, shape, b1, cap, momentum_dtype):
    self.t, self.b1, self.cap, self.dtype = 0, b1, cap, momentum_dtype
    self.mean = np.zeros(shape, momentum_dtype)
    a, b = np.argsort(shape)[-2:] if len(shape) > 1 else (0, 0)
    self.axes = (int(a), int(b)) if len(shape) > 1 and shape[a] >= 32 else None
    self.v = [0.0, 0.0] if self.axes else 0.0

  def __call__(self, grad):
    self.t += 1
    b2 = min(self.cap, 1 - self.t**-0.8)
    square = grad**2 + 1e-30
    if self.axes is None:
      self.v = b2 * self.v + (1 - b2) * square
      scaled = grad / np.sqrt(self.v)
    else:
      small, large = self.axes
      for i, axis in enumerate((large, small)):
        mean = square.mean(axis=axis, keepdims=True)
        self.v[i] = b2 * self.v[i] + (1 - b2) * mean
      # The rank-one estimate: rows * columns over the mean of either.
      estimate = self.v[0] * self.v[1] / self.v[0].mean(axis=small, keepdims=True)
      scaled = grad / np.sqrt(estimate)
    mean = self.b1 * self.mean.astype(np.float64) + (1 - self.b1) * scaled
    self.mean = mean.astype(self.dtype)
    return mean


def by_hand(config: Optim, factors, multiplier, decayed, momentum_dtype):
  """The whole chain on every leaf; `factors` are the schedule's values."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), make_params())
  leaves, treedef = jax.tree.flatten(params)
  rules = [Adafactor(x.shape, config.b1, config.b2, momentum_dtype) for x in leaves]
  for t, factor in enumerate(factors):
    grads = [np.asarray(g, np.float64) for g in jax.tree.leaves(make_grads(t))]
    trained = [g for g, m in zip(grads, multiplier, strict=True) if m]
    norm = np.sqrt(sum((g**2).sum() for g in trained))
    clip = min(1.0, config.clip_norm / norm) if config.clip_norm else 1.0
    for i, grad in enumerate(grads):
      if multiplier[i]:
        update = config.lr * multiplier[i] * rules[i](clip * grad)
        update = update + config.weight_decay * decayed[i] * leaves[i]
        leaves[i] = leaves[i] - factor * update
  return jax.tree.unflatten(treedef, leaves)


def assert_close(ours, expected, atol):
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(np.asarray(a), b, rtol=0, atol=atol)


# Order of the leaves: decoder/heads/kernel, decoder/narrow/kernel, encoder/bias, encoder/kernel.
KERNELS = (1, 1, 0, 1)
# b2 = 0.5 caps 1 - t^-0.8 from its third step on; a cap of 0.9 would not be reached before the
# 18th, so a test of few steps could not see it.
CAPPED = Optim(lr=0.01, schedule="constant", clip_norm=0.0, b2=0.5, momentum_dtype="float32")


def test_adafactor_is_its_formula():
  params, _ = run(CAPPED)
  expected = by_hand(CAPPED, np.ones(STEPS), (1, 1, 1, 1), KERNELS, np.float64)
  assert_close(params, expected, 1e-6)
  for cap in (0.4, 0.6):
    other = dataclasses.replace(CAPPED, b2=cap)
    wrong = by_hand(other, np.ones(STEPS), (1, 1, 1, 1), KERNELS, np.float64)
    with pytest.raises(AssertionError):
      assert_close(params, wrong, 1e-4)


def test_momentum_is_kept_in_bfloat16():
  config = dataclasses.replace(CAPPED, momentum_dtype="bfloat16")
  params, state = run(config)
  kept = {x.dtype.name for x in jax.tree.leaves(state) if x.shape == (1, 64, 31)}
  assert kept == {"float32", "bfloat16"}  # second and first moment
  expected = by_hand(config, np.ones(STEPS), (1, 1, 1, 1), KERNELS, ml_dtypes.bfloat16)
  # lr * steps * the rounding of bfloat16 (2^-8) and of 0.9 in it
  assert_close(params, expected, 0.01 * STEPS * 2**-7)


def test_the_chain_clips_multiplies_decays_and_freezes_in_that_order():
  config = dataclasses.replace(
    CAPPED,
    schedule="cosine",
    warmup_steps=3,
    weight_decay=0.02,
    clip_norm=1.0,
    lr_multipliers=(("decoder/heads/.*", 0.1), ("decoder/.*", 0.0)),
  )
  multiplier = (0.1, 0.0, 1.0, 1.0)
  factors = [
    min(1, t / 3) * 0.5 * (1 + np.cos(np.pi * max(t - 3, 0) / (STEPS - 3))) for t in range(STEPS)
  ]
  params, _ = run(config)
  assert_close(params, by_hand(config, factors, multiplier, KERNELS, np.float64), 1e-6)
  for change in ({"clip_norm": 2.0}, {"weight_decay": 0.01}):
    wrong = dataclasses.replace(config, **change)
    with pytest.raises(AssertionError):
      assert_close(params, by_hand(wrong, factors, multiplier, KERNELS, np.float64), 1e-5)


def test_weight_decay_follows_the_schedule_but_not_the_rate():
  config = Optim(name="sgd", lr=0.0, schedule="linear", weight_decay=0.1, b1=0.0)
  params, _ = run(config, steps=3)
  start = make_params()
  kept = (1 - 0.1 * 1.0) * (1 - 0.1 * 0.9) * (1 - 0.1 * 0.8)
  np.testing.assert_allclose(
    params["encoder"]["kernel"], kept * start["encoder"]["kernel"], rtol=1e-6
  )
  np.testing.assert_array_equal(params["encoder"]["bias"], start["encoder"]["bias"])


def test_frozen_parameters_stay_bitwise_and_keep_no_state():
  config = dataclasses.replace(
    CAPPED, weight_decay=0.1, clip_norm=1.0, lr_multipliers=(("decoder/.*", 0.0),)
  )
  params, state = run(config)
  start = make_params()
  for a, b in zip(
    jax.tree.leaves(params["decoder"]), jax.tree.leaves(start["decoder"]), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  assert not np.array_equal(params["encoder"]["kernel"], start["encoder"]["kernel"])
  shapes = {x.shape[1:] for x in jax.tree.leaves(state)}  # of stacks of one
  assert (40, 32) in shapes  # momentum of encoder/kernel
  assert not shapes & {(34, 3, 48), (64, 31), (34, 3), (3, 48)}
  assert trainable(config, start)["decoder"] == {
    "heads": {"kernel": False},
    "narrow": {"kernel": False},
  }


@pytest.mark.parametrize("name", ["adafactor", "adam", "sgd"])
def test_parameters_of_one_shape_are_updated_as_if_each_were_alone(name):
  """They are stacks; of which of them one is must change nothing."""
  rng = np.random.default_rng(0)
  shapes = {"a": (40, 32), "b": (40, 32), "slow": (40, 32), "frozen": (40, 32), "bias": (40,)}
  shapes |= {f"bias_{i}": (40,) for i in range(34)}  # more than what is factored has at least
  params, *grads = [
    {one: jnp.asarray(rng.normal(size=shape), jnp.float32) for one, shape in shapes.items()}
    for _ in range(4)
  ]
  config = Optim(
    name=name, lr=0.1, clip_norm=0.0, weight_decay=0.1, weight_decay_pattern="b|bias",
    lr_multipliers=(("slow", 0.1), ("frozen", 0.0)),
  )  # fmt: skip

  def trained(params, grads):
    config_of = config
    if len(params) == 1:  # its own settings only: a pattern that matches nothing is an error
      (own,) = params
      decay = 0.1 if own in ("b", "bias") else 0.0
      slower = tuple(pair for pair in config.lr_multipliers if pair[0] == own)
      config_of = dataclasses.replace(config, weight_decay=decay, lr_multipliers=slower)
    optimizer, _ = make_optimizer(config_of, STEPS, params)
    state = optimizer.init(params)
    for one in grads:
      updates, state = optimizer.update(one, state, params)
      params = optax.apply_updates(params, updates)
    return params

  together = trained(params, grads)
  np.testing.assert_array_equal(together["frozen"], params["frozen"])
  for own in set(shapes) - {"frozen"}:
    alone = trained({own: params[own]}, [{own: one[own]} for one in grads])
    np.testing.assert_allclose(together[own], alone[own], rtol=1e-5, atol=1e-6)
    assert not np.allclose(together[own], params[own], atol=1e-3)


def test_the_norm_is_that_of_all_that_are_trained():
  config = Optim(lr_multipliers=(("encoder/.*", 0.0),))
  optimizer, _ = make_optimizer(config, STEPS, make_params())
  want = optax.tree.norm(make_grads(1)["decoder"])
  np.testing.assert_allclose(optimizer.norm(make_grads(1)), want, rtol=1e-6)


def test_clipping_leaves_frozen_gradients_out_of_the_norm():
  config = Optim(
    name="sgd", lr=1.0, schedule="constant", b1=0.0, clip_norm=1.0,
    lr_multipliers=(("frozen", 0.0),),
  )  # fmt: skip
  params = {"free": jnp.zeros(2), "frozen": jnp.zeros(2)}
  optimizer, _ = make_optimizer(config, STEPS, params)
  grads = {"free": jnp.asarray([0.6, 0.0]), "frozen": jnp.asarray([1e6, 0.0])}
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  np.testing.assert_allclose(updates["free"], [-0.6, 0.0], rtol=1e-6)
  np.testing.assert_array_equal(updates["frozen"], [0.0, 0.0])


def test_adam_and_sgd_by_hand():
  params, grads = {"w": jnp.asarray([1.0])}, [2.0, -1.0, 0.5]
  settings = {"lr": 0.1, "schedule": "constant", "clip_norm": 0.0, "b1": 0.8, "b2": 0.9}
  m = v = trace = 0.0
  adam = sgd = 1.0
  for t, g in enumerate(grads, 1):
    m, v, trace = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g, 0.8 * trace + g
    adam -= 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
    sgd -= 0.1 * trace
  for name, expected in (("adam", adam), ("sgd", sgd)):
    config = Optim(name=name, momentum_dtype="float32", **settings)
    optimizer, _ = make_optimizer(config, STEPS, params)
    ours, state = params, optimizer.init(params)
    for g in grads:
      updates, state = optimizer.update({"w": jnp.asarray([g])}, state, ours)
      ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours["w"], [expected], rtol=1e-5)


def test_adam_keeps_its_first_moment_in_full():
  """In bfloat16 it was 1 % off its formula after 40 steps: that is Adafactor's setting."""
  grads = np.random.default_rng(0).normal(size=40)
  config = Optim(name="adam", lr=0.1, schedule="constant", clip_norm=0.0, b1=0.9, b2=0.99)
  params = {"w": jnp.asarray([1.0])}
  optimizer, _ = make_optimizer(config, STEPS, params)
  ours, state, m, v, expected = params, optimizer.init(params), 0.0, 0.0, 1.0
  for t, g in enumerate(grads, 1):
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
    expected -= 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    updates, state = optimizer.update({"w": jnp.asarray([g], jnp.float32)}, state, ours)
    ours = optax.apply_updates(ours, updates)
  np.testing.assert_allclose(ours["w"], [expected], rtol=1e-4)


@pytest.mark.parametrize(
  "config, expected",
  [
    (Optim(schedule="constant"), {0: 1.0, 7: 1.0, 99: 1.0}),
    (Optim(schedule="constant", warmup_steps=4), {0: 0.0, 1: 0.25, 4: 1.0, 9: 1.0}),
    (Optim(schedule="linear", end_factor=0.2), {0: 1.0, 5: 0.6, 10: 0.2, 50: 0.2}),
    (Optim(schedule="cosine", warmup_steps=2), {1: 0.5, 2: 1.0, 6: 0.5, 10: 0.0, 11: 0.0}),
    (Optim(schedule="cosine", end_factor=0.5), {0: 1.0, 5: 0.75, 10: 0.5}),
    (Optim(schedule="rsqrt", warmup_steps=2, timescale=3), {1: 0.5, 2: 1.0, 5: 0.5**0.5}),
    (
      Optim(schedule="constant", cooldown_steps=4, end_factor=0.5),
      {6: 1.0, 8: 0.75, 10: 0.5, 12: 0.5},
    ),
  ],
)
def test_schedules_at_known_steps(config, expected):
  for step, value in expected.items():
    on_host = schedule_factor(config, STEPS, step)
    on_device = jax.jit(lambda t: schedule_factor(config, STEPS, t))(jnp.asarray(step))
    assert isinstance(on_host, np.float32)
    np.testing.assert_allclose([on_host, on_device], value, atol=1e-6)


def test_the_logged_rate_is_lr_times_schedule_and_uses_no_device():
  config = Optim(lr=0.3, schedule="linear")
  _, rate = make_optimizer(config, STEPS, make_params())
  with jax.transfer_guard("disallow"):
    np.testing.assert_allclose(rate(5), 0.15, rtol=1e-6)


def test_state_is_arrays_of_one_structure():
  config = Optim(weight_decay=0.1, lr_multipliers=(("encoder/.*", 0.0),))
  params = make_params()
  optimizer, _ = make_optimizer(config, STEPS, params)
  state = jax.jit(optimizer.init)(params)
  assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
  _, later = jax.jit(optimizer.update)(make_grads(0), state, params)
  signature = jax.tree.map(lambda x: (x.shape, x.dtype.name), state)
  assert signature == jax.tree.map(lambda x: (x.shape, x.dtype.name), later)
  shapes = jax.eval_shape(make_params)
  from_shapes, _ = make_optimizer(config, STEPS, shapes)
  expected = jax.tree.structure(state)
  assert jax.tree.structure(jax.eval_shape(from_shapes.init, shapes)) == expected


@pytest.mark.parametrize(
  "field, value",
  [
    ("name", "adafacto"),
    ("lr", -1e-3),
    ("lr", float("nan")),
    ("schedule", "cosin"),
    ("warmup_steps", -1),
    ("warmup_steps", STEPS),
    ("cooldown_steps", 3),  # the default schedule is cosine
    ("timescale", 0),
    ("end_factor", 1.5),
    ("weight_decay", -0.1),
    ("weight_decay_pattern", "("),
    ("clip_norm", -1.0),
    ("b1", 1.0),
    ("b2", -0.1),
    ("momentum_dtype", "float16"),
    ("lr_multipliers", (("(", 1.0),)),
    ("lr_multipliers", ((".*", -1.0),)),
  ],
)
def test_values_out_of_range_are_named(field, value):
  config = dataclasses.replace(Optim(), **{field: value})
  with pytest.raises(UsageError, match=rf"^phases\.mle\.optim\.{field} must be .*it is "):
    check_optim(config, STEPS, key="phases.mle.optim")


def test_patterns_that_match_nothing_are_errors():
  params = make_params()
  with pytest.raises(UsageError, match=r"optim.lr_multipliers: 'encodr/.*decoder/heads/kernel"):
    make_optimizer(Optim(lr_multipliers=(("encodr/.*", 0.0),)), STEPS, params)
  with pytest.raises(UsageError, match=r"optim\.weight_decay_pattern"):
    make_optimizer(Optim(weight_decay=0.1, weight_decay_pattern="kernel"), STEPS, params)
  with pytest.raises(UsageError, match="freezes every parameter"):
    make_optimizer(Optim(lr_multipliers=((".*", 0.0),)), STEPS, params)


def test_one_step_of_a_long_schedule_may_run():
  check_optim(Optim(warmup_steps=1000), total_steps=1)
