"""What is sampled is what is scored, and a GPU computes what a CPU computes."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.benchmark import decode, loop
from rtune.config.load import load_config
from rtune.devices import compiling, sharding
from rtune.training.setup import prepare

pytestmark = pytest.mark.gpu
TINY = f"{pathlib.Path(__file__).resolve().parents[2] / 'configs' / 'detection_recall.py'}:tiny"


def test_samples_in_bfloat16_are_scored_alike():
  ready = decode.make_ready(decode.STANDARD)
  assert ready.model.decoder.dtype == jnp.bfloat16
  sample = jax.jit(ready.policy.sample, static_argnums=3)
  sampled = sample(ready.params, ready.images, jax.random.key(0), decode.STANDARD.samples)
  scored = jax.jit(ready.policy.score)(ready.params, ready.images, sampled.actions)
  assert len(np.unique(sampled.actions)) > 100
  gap = np.abs(np.asarray(sampled.log_prob) - np.asarray(scored.log_prob))
  assert np.std(sampled.log_prob) > 0.1
  assert gap.mean() < 1e-2
  assert gap.max() < 1e-1


def placed(made, device):
  """The same parameters and data for one device."""
  mesh = sharding.make_mesh(devices=[device])
  params = jax.device_put(made.params, sharding.replicated(mesh))
  return made._replace(setup=made.setup._replace(mesh=mesh), params=params)


@pytest.fixture(scope="module")
def made():
  one = [("model.dtype", "float32"), ("mle.batch_size", "4")]
  return loop.make_loop(prepare(load_config(TINY, one)))


def changes_of(made, batches):
  """Metrics of each step of imitation, and how all of them have changed the parameters."""
  before = jax.tree.map(np.asarray, made.params)
  state, step = loop.imitation(made)
  told = []
  for batch in batches:
    state, metrics = step(state, loop.on_devices(made, batch))
    told.append({name: float(metrics[name]) for name in ("loss", "grad_norm", "nll")})
  return told, jax.tree.map(lambda new, old: np.asarray(new) - old, state.params, before)


def test_imitation_is_that_of_a_cpu(made, gpu, exact):
  with loop.train_batches(made.setup, 4) as source:
    batches = [next(source) for _ in range(3)]
  (ours, changed), (want, expected) = (
    changes_of(placed(made, device), batches) for device in (gpu, jax.devices("cpu")[0])
  )
  for one, other in zip(ours, want, strict=True):
    assert one == pytest.approx(other, rel=1e-3)
  # Adam takes a step of full size where a gradient is noise around zero: so not each by itself.
  pairs = list(zip(jax.tree.leaves(changed), jax.tree.leaves(expected), strict=True))
  apart = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs))
  assert apart < 0.02 * np.sqrt(sum(np.sum(b**2) for _, b in pairs))


def test_log_probabilities_are_those_of_a_cpu(made, gpu, exact):
  inputs = made.setup.task.inputs(
    {"image": np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), np.uint8)}
  )
  space = made.setup.task.space()
  actions = np.random.default_rng(1).integers(0, space.vocab_size, (2, 3, space.length), np.int32)
  found = []
  for device in (gpu, jax.devices("cpu")[0]):
    given = jax.device_put((placed(made, device).params, inputs, actions), device)
    scored = jax.jit(made.setup.policy.score)(*given)
    assert scored.outputs.devices() == {device}
    found.append(np.asarray(scored.outputs))
  np.testing.assert_allclose(*found, atol=1e-4)


def test_the_kernel_of_weights_draws_the_same_numbers():
  def draw(key):
    return jax.random.normal(key, (300, 7)), jax.random.truncated_normal(key, -2, 2, (5,))

  found, want = compiling.jit_once(draw)(jax.random.key(3)), jax.jit(draw)(jax.random.key(3))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, want)
