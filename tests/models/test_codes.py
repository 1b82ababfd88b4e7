"""The code model: shapes, its ways past the dictionary, and that samples do not meddle.

That it says what UViM's says is tested in tests/store/test_uvim_weights.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune import config as configs
from rtune.devices.compiling import jit_once
from rtune.errors import UsageError
from rtune.models import dictionary
from rtune.models.codes import Network, code_model, kept
from rtune.predictions.patches import patches, unpatch

SIZE, PATCH, CODES, BATCH = 16, 4, 4, 3
CHANNELS = (("kinds", 3), ("color", 2))
SETTINGS = {
  "patch_size": PATCH,
  "code_length": CODES,
  "width": 16,
  "encoder_depth": 1,
  "decoder_depth": 1,
  "num_heads": 2,
  "mlp_dim": 32,
  "dict_size": 8,
  "codeword_dim": 8,
  "code_dropout": "none",
}


@pytest.fixture(autouse=True)
def quick(quick_compiles):
  """Many small programs, none of which runs for long."""


@functools.cache
def made(**changes):
  """The code model with variables none of which is 0."""
  model = code_model(configs.CodeSizes(**{**SETTINGS, **changes}), SIZE, CHANNELS)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  rng = np.random.default_rng(0)
  values = jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), x.dtype), shapes)
  values["state"]["counts"] = jnp.ones_like(values["state"]["counts"])
  return model, values


def some_labels(seed=0):
  rng = np.random.default_rng(seed)
  shape = (BATCH, (SIZE // PATCH) ** 2)
  return {n: jnp.asarray(rng.normal(size=(*shape, c, PATCH**2)), jnp.float32) for n, c in CHANNELS}


def some_images(seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.integers(0, 256, (BATCH, SIZE, SIZE, 3)), jnp.uint8)


@pytest.mark.parametrize("changes", [{}, {"resize": False}, {"conv_context": True, "remat": True}])
def test_labels_become_codes_and_codes_labels(changes):
  model, variables = made(**changes)
  labels, images = some_labels(), some_images()
  codes = jax.jit(model.encode)(variables, labels, images)
  assert codes.shape == (BATCH, CODES) and codes.dtype == jnp.int32
  assert np.isin(codes, np.arange(8)).all()
  decoded = jax.jit(model.decode)(variables, codes, images)
  assert {n: v.shape for n, v in decoded.items()} == {n: v.shape for n, v in labels.items()}
  assert all(v.dtype == jnp.float32 and np.std(v) > 0 for v in decoded.values())


def test_first_predictions_are_even():
  model, _ = made()
  variables = jit_once(model.init)(jax.random.key(0))
  decoded = jax.jit(model.decode)(variables, jnp.zeros((BATCH, CODES), jnp.int32), some_images())
  assert all(np.all(np.asarray(v) == 0) for v in decoded.values())
  np.testing.assert_array_equal(variables["state"]["counts"], 1)


def test_samples_at_once_are_samples_one_by_one():
  model, variables = made()
  decode, images = jax.jit(model.decode), some_images()
  codes = jax.random.randint(jax.random.key(0), (BATCH, 5, CODES), 0, 8)
  together = decode(variables, codes, images)
  for sample in range(5):
    alone = decode(variables, codes[:, sample], images)
    for name, _ in CHANNELS:
      np.testing.assert_allclose(together[name][:, sample], alone[name], atol=1e-5)


def test_the_image_is_seen_on_both_sides():
  model, variables = made()
  one, other = some_images(0), some_images(1)
  codes = jnp.zeros((BATCH, CODES), jnp.int32)
  decoded = [jax.jit(model.decode)(variables, codes, images) for images in (one, other)]
  assert np.abs(decoded[0]["kinds"] - decoded[1]["kinds"]).max() > 1e-2
  train = jax.jit(model.train)
  found = [train(variables, some_labels(), x, jax.random.key(0))[1] for x in (one, other)]
  assert np.abs(found[0].vectors - found[1].vectors).max() > 1e-2


def test_training_decodes_the_codes_that_it_finds():
  model, variables = made()
  labels, images = some_labels(), some_images()
  logits, found = jax.jit(model.train)(variables, labels, images, jax.random.key(0))
  np.testing.assert_array_equal(found.codes, jax.jit(model.encode)(variables, labels, images))
  np.testing.assert_allclose(np.mean(found.vectors, -1), 0, atol=1e-5)
  np.testing.assert_allclose(np.std(found.vectors, -1), 1, atol=1e-3)
  decoded = jax.jit(model.decode)(variables, found.codes, images)
  np.testing.assert_allclose(logits["kinds"], decoded["kinds"], atol=1e-5)


def test_gradients_go_straight_through_the_dictionary():
  """The encoder gets the gradient of the words, as if each were its vector."""
  model, variables = made()
  labels, images, params = some_labels(), some_images(), variables["params"]
  network = Network(configs.CodeSizes(**SETTINGS), SIZE // PATCH, CHANNELS)
  apply = functools.partial(network.apply, method="encode")
  codes = jax.jit(model.encode)(variables, labels, images)
  words = dictionary.codewords(variables["state"])[codes]

  def measure(logits):
    return sum(jnp.sum(jnp.sin(x)) for x in logits.values())

  def decoded(params, words):
    context = network.apply({"params": params}, images, method="context")
    return measure(network.apply({"params": params}, words[:, None], context, method="decode"))

  @jax.jit
  def expected(params):
    _, pull = jax.vjp(lambda params: apply({"params": params}, labels, images), params)
    of_params, of_words = jax.grad(decoded, (0, 1))(params, words)
    return jax.tree.map(jnp.add, pull(of_words)[0], of_params)

  @jax.jit
  @jax.grad
  def through(params):
    given = {"params": params, "state": variables["state"]}
    return measure(model.train(given, labels, images, jax.random.key(0))[0])

  grads = through(params)
  assert float(jnp.abs(grads["encoder_head"]["kernel"]).max()) > 1e-2
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3),
    grads,
    expected(params),
  )


def test_code_dropout_leaves_out_evenly_many():
  masks = np.asarray(jax.jit(kept, static_argnums=(1, 2))(jax.random.key(0), 4000, CODES))
  assert set(np.unique(masks)) == {0.0, 1.0}
  shares = np.bincount(masks.sum(axis=1).astype(int), minlength=CODES + 1) / len(masks)
  np.testing.assert_allclose(shares, 1 / (CODES + 1), atol=0.03)
  np.testing.assert_allclose(masks.mean(axis=0), 0.5, atol=0.03)


def test_dropped_codes_are_zeros_in_training_only():
  model, variables = made(code_dropout="random")
  plain, _ = made()
  labels, images = some_labels(), some_images()
  key = jax.random.key(3)
  logits, found = jax.jit(model.train)(variables, labels, images, key)
  whole, same = jax.jit(plain.train)(variables, labels, images, key)
  np.testing.assert_array_equal(found.codes, same.codes)
  mask = np.asarray(kept(key, BATCH, CODES))
  changed = np.abs(logits["kinds"] - whole["kinds"]).max(axis=(1, 2, 3)) > 1e-4
  np.testing.assert_array_equal(changed, mask.sum(axis=1) < CODES)
  codes = jax.jit(model.encode)(variables, labels, images)
  decoded = jax.jit(model.decode)(variables, codes, images)
  np.testing.assert_allclose(decoded["kinds"], whole["kinds"], atol=1e-5)


def test_patches_are_cut_row_by_row():
  pixels = jnp.arange(2 * 4 * 4 * 1, dtype=jnp.float32).reshape(2, 4, 4, 1)
  cut = patches(pixels, 2)
  assert cut.shape == (2, 4, 1, 4)
  np.testing.assert_array_equal(cut[0, :, 0], [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13],
                                               [10, 11, 14, 15]])  # fmt: skip
  np.testing.assert_array_equal(unpatch(cut), pixels)
  several = jax.random.normal(jax.random.key(0), (2, 3, 12, 12, 5))
  np.testing.assert_array_equal(unpatch(patches(several, 4)), several)


def test_patches_must_fill_the_image():
  with pytest.raises(UsageError, match=r"image_size=18 is not a multiple of .*codes\.patch_size=4"):
    code_model(configs.CodeSizes(**SETTINGS), 18, CHANNELS)
