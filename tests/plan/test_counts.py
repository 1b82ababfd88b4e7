"""Counted work is what the compiler counts in the model itself."""

import jax
import jax.numpy as jnp
import pytest

from rtune import config as configs
from rtune.models import encoder_decoder
from rtune.plan import counts
from rtune.policies.tokens import autoregressive


def sizes_and_shapes(length=24, samples=3, batch=2, image=64, **encoder):
  config = configs.Model(
    encoder=configs.Encoder(patch_size=8, width=64, depth=3, num_heads=2, mlp_dim=256, **encoder),
    decoder=configs.Decoder(width=96, depth=2, num_heads=4, mlp_dim=256),
    dtype="float32",
  )
  model = encoder_decoder.build(config, 500, length)
  policy = autoregressive(model, length, None)
  images = jax.ShapeDtypeStruct((batch, image, image, 3), jnp.uint8)
  actions = jax.ShapeDtypeStruct((batch, samples, length), jnp.int32)
  params = jax.eval_shape(policy.init, jax.random.key(0), images)
  sizes = counts.Sizes(model, image, length, batch, samples)
  return sizes, model, params, images, actions


def flops_of(function, *shapes):
  return jax.jit(function).lower(*shapes).cost_analysis()["flops"]


def test_forward_is_what_the_compiler_counts():
  sizes, model, params, images, actions = sizes_and_shapes()
  measured = flops_of(lambda p, i, a: model.apply({"params": p}, i, a), params, images, actions)
  # The compiler also counts norms and softmax, and all pairs of causal attention.
  assert counts.forward(sizes).flops < measured < 1.15 * counts.forward(sizes).flops


@pytest.mark.parametrize("encoder", [{}, {"registers": 16}, {"backbone": "alexnet"}])
def test_encoding_is_what_the_compiler_counts(encoder):
  sizes, model, params, images, _ = sizes_and_shapes(**encoder)

  def encode(params, images):
    memory = model.apply({"params": params}, images, method="encode")
    return model.apply({"params": params}, memory, method="of_memory")

  measured = flops_of(encode, params, images)
  assert counts.encoding(sizes).flops < measured < 1.15 * counts.encoding(sizes).flops


def test_training_is_three_forward_passes_and_so_says_the_compiler():
  sizes, model, params, images, actions = sizes_and_shapes()

  def loss(p, i, a):
    return jnp.mean(model.apply({"params": p}, i, a))

  measured = flops_of(jax.grad(loss), params, images, actions)
  assert counts.training(sizes).flops == 3 * counts.forward(sizes).flops
  assert measured == pytest.approx(counts.training(sizes).flops, rel=0.15)


def test_decoding_step_by_step():
  """The sum over steps, each counted by the compiler with a cache of the length it then has."""
  sizes, model, params, _, _ = sizes_and_shapes(length=6)
  rows = sizes.batch, sizes.samples
  memory_BND = jax.ShapeDtypeStruct((sizes.batch, sizes.memory_tokens, 64), jnp.float32)
  memory = jax.eval_shape(
    lambda p, m: model.apply({"params": p}, m, method="of_memory"), params, memory_BND
  )

  def step(params, token, memory, caches):
    position = jnp.asarray(caches[0].key.shape[3] - 1)
    return model.apply({"params": params}, token, position, memory, caches, method="step")

  token = jax.ShapeDtypeStruct(rows, jnp.int32)
  measured = 0
  for length in range(1, 7):
    caches = jax.eval_shape(lambda n=length: model.decoder.empty_cache(*rows, n))
    measured += flops_of(step, params, token, memory, caches)
  assert counts.decoding(sizes).flops < measured < 1.15 * counts.decoding(sizes).flops


def test_bytes_of_decoding():
  sizes, _, params, _, _ = sizes_and_shapes(length=4)
  kernels = [
    x.size
    for path, x in jax.tree_util.tree_leaves_with_path(params["decoder"])
    if path[-1].key == "kernel"
  ]
  assert sum(kernels) == counts.token_weights(sizes) + counts.memory_weights(sizes)
  memory = 2 * 2 * sizes.batch * 64 * 96  # keys and values of two layers
  caches = 2 * 2 * 6 * 96 * (1 + 2 + 3 + 4)
  logits = 2 * 6 * 500  # of one step, written and read
  numbers = 4 * (counts.token_weights(sizes) + memory + logits) + caches
  assert counts.decoding(sizes).bytes == 4 * numbers


def test_what_binds():
  machine = counts.Machine(flops=100.0, bandwidth=10.0)
  assert counts.floor(counts.Work(200.0, 10.0), machine) == counts.Floor(2.0, "compute")
  assert counts.floor(counts.Work(200.0, 50.0), machine) == counts.Floor(5.0, "memory")
