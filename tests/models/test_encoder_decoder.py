"""The model: parameters named so that published weights load; cached steps = whole sequences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune import config as configs
from rtune.devices.compiling import jit_once
from rtune.models import attention, encoder_decoder, vit
from rtune.models.decoder import Decoder

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIZE, VOCAB, LENGTH = 16, 9, 10
PARTS = ("encoder", "decoder")
CONFIG = configs.Model(
  encoder=configs.Encoder(patch_size=8, width=16, depth=1, num_heads=2, mlp_dim=32),
  decoder=configs.Decoder(width=24, depth=2, num_heads=3, mlp_dim=40),
  dtype="float32",
)
# What flax.traverse_util.flatten_dict of big_vision's vit._Model(width=16, depth=1, mlp_dim=32,
# num_heads=2, patch_size=(8, 8), posemb="learn", pool_type="none") lists for 16 px images.
VIT_SHAPES = {
  "embedding/kernel": (8, 8, 3, 16),
  "embedding/bias": (16,),
  "pos_embedding": (1, 4, 16),
  "Transformer/encoderblock_0/LayerNorm_0/scale": (16,),
  "Transformer/encoderblock_0/LayerNorm_0/bias": (16,),
  "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel": (16, 2, 8),
  "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/bias": (2, 8),
  "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/key/kernel": (16, 2, 8),
  "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/key/bias": (2, 8),
  "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/value/kernel": (16, 2, 8),
  "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/value/bias": (2, 8),
  "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/out/kernel": (2, 8, 16),
  "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/out/bias": (16,),
  "Transformer/encoderblock_0/LayerNorm_1/scale": (16,),
  "Transformer/encoderblock_0/LayerNorm_1/bias": (16,),
  "Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel": (16, 32),
  "Transformer/encoderblock_0/MlpBlock_0/Dense_0/bias": (32,),
  "Transformer/encoderblock_0/MlpBlock_0/Dense_1/kernel": (32, 16),
  "Transformer/encoderblock_0/MlpBlock_0/Dense_1/bias": (16,),
  "Transformer/encoder_norm/scale": (16,),
  "Transformer/encoder_norm/bias": (16,),
}


def shapes_of(config, size=SIZE):
  """Parameters by dotted name, nothing computed."""
  model = encoder_decoder.build(config, VOCAB, LENGTH)
  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
  tokens = jax.ShapeDtypeStruct((1, 1, LENGTH), jnp.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), images, tokens)["params"]
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


def test_encoder_has_the_names_and_shapes_of_big_vision():
  shapes = {name: leaf.shape for name, leaf in shapes_of(CONFIG).items()}
  ours = {n.removeprefix("encoder/"): s for n, s in shapes.items() if n.startswith("encoder/")}
  assert ours == VIT_SHAPES


def test_decoder_has_the_block_names_of_uvim():
  names = [n for n in shapes_of(CONFIG) if n.startswith("decoder/")]
  assert {n.split("/")[1] for n in names} == {
    "EmbedTargets",
    "pos_embedding",
    "EncDecBlock0",
    "EncDecBlock1",
    "LayerNorm",
    "LogitsDense",
  }
  block = {n.removeprefix("decoder/EncDecBlock0/") for n in names if "EncDecBlock0" in n}
  assert block == {
    *(f"LayerNorm{i}/{part}" for i in (1, 2, 3) for part in ("scale", "bias")),
    *(
      f"{a}/{b}/kernel" for a in ("SelfAttn", "CrossAttn") for b in ("query", "key", "value", "out")
    ),
    *(f"MLP/Dense_{i}/{part}" for i in (0, 1) for part in ("kernel", "bias")),
  }


@pytest.mark.parametrize("variant", list(vit.VARIANTS))
def test_sizes_by_name(variant):
  encoder = configs.Encoder(variant=variant, patch_size=16)
  shapes = shapes_of(dataclasses.replace(CONFIG, encoder=encoder), size=224)
  width, depth, mlp_dim, heads = {
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "H": (1280, 32, 5120, 16),
  }[variant]
  last = f"encoder/Transformer/encoderblock_{depth - 1}"
  assert f"encoder/Transformer/encoderblock_{depth}/LayerNorm_0/scale" not in shapes
  assert shapes["encoder/pos_embedding"].shape == (1, 196, width)
  query = shapes[f"{last}/MultiHeadDotProductAttention_0/query/kernel"]
  assert query.shape == (width, heads, width // heads)
  assert shapes[f"{last}/MlpBlock_0/Dense_0/kernel"].shape == (width, mlp_dim)


def test_parameters_are_float32_whatever_computes():
  shapes = shapes_of(dataclasses.replace(CONFIG, dtype="bfloat16"))
  assert {leaf.dtype for leaf in shapes.values()} == {jnp.dtype("float32")}


def test_a_stem_of_convolutions_gives_the_same_grid():
  encoder = dataclasses.replace(CONFIG.encoder, conv_stem=True)
  shapes = shapes_of(dataclasses.replace(CONFIG, encoder=encoder))
  assert shapes["encoder/pos_embedding"].shape == (1, 4, 16)
  assert "encoder/embedding/kernel" not in shapes
  assert shapes["encoder/stem/project/kernel"].shape == (1, 1, 16, 16)


def test_registers_and_layer_scale_are_parameters_of_the_encoder():
  encoder = dataclasses.replace(CONFIG.encoder, layer_scale=True, registers=3)
  shapes, before = shapes_of(dataclasses.replace(CONFIG, encoder=encoder)), shapes_of(CONFIG)
  new = {name: leaf.shape for name, leaf in shapes.items() if name not in before}
  assert new == {
    "encoder/Transformer/registers": (1, 3, 16),
    "encoder/Transformer/encoderblock_0/LayerScale_0/scale": (16,),
    "encoder/Transformer/encoderblock_0/LayerScale_1/scale": (16,),
  }


def test_pixels_become_minus_one_to_one():
  seen = []

  class Spy(vit.ViT):
    def __call__(self, image_BIIC, deterministic=True):
      seen.append(image_BIIC)
      return jnp.zeros((image_BIIC.shape[0], 4, 16))

  sizes = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32, "dtype": jnp.dtype("float32")}
  decoder = Decoder(VOCAB, LENGTH, **sizes)
  model = encoder_decoder.EncoderDecoder(Spy(patch_size=8, **sizes), decoder)
  pixels = np.zeros((1, 16, 16, 3), np.uint8)
  pixels[0, 0, 0], pixels[0, 0, 1] = (0, 51, 255), (102, 153, 204)
  model.apply({"params": {}}, jnp.asarray(pixels), method="encode")
  assert seen[0].dtype == jnp.float32
  np.testing.assert_allclose(seen[0][0, 0, 0], [-1, -0.6, 1], atol=1e-6)
  np.testing.assert_allclose(seen[0][0, 0, 1], [-0.2, 0.2, 0.6], atol=1e-6)


def test_predictions_are_uniform_at_first():
  model = encoder_decoder.build(CONFIG, VOCAB, LENGTH)
  images, tokens = jnp.zeros((1, SIZE, SIZE, 3), jnp.uint8), jnp.ones((1, 1, LENGTH), jnp.int32)
  logits, _ = jit_once(model.init_with_output)(jax.random.key(0), images, tokens)
  assert logits.shape == (1, 1, LENGTH, VOCAB)
  np.testing.assert_array_equal(logits, 0)


@pytest.fixture(scope="module")
def network():
  """A model with random parameters, and memory of two images."""
  model = encoder_decoder.build(CONFIG, VOCAB, LENGTH)
  images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8))
  tokens = jnp.zeros((2, 1, LENGTH), jnp.int32)

  @jit_once
  def make(key):
    params = model.init(key, images, tokens)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    noisy = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(tree, noisy)
    return params, model.apply({"params": params}, images, method="encode")

  params, memory = make(jax.random.key(1))
  return model, {"params": params}, memory


def test_cached_steps_give_the_logits_of_the_whole_sequence(network):
  model, variables, memory_BND = network
  tokens = jnp.asarray(np.random.default_rng(2).integers(0, VOCAB, (2, 3, LENGTH)), jnp.int32)
  whole = jax.jit(lambda: model.apply(variables, memory_BND, tokens, method="decode"))()

  @jax.jit
  def in_steps():
    memory = model.apply(variables, memory_BND, method="of_memory")

    def step(carry, position):
      token, caches = carry
      logits, caches = model.apply(variables, token, position, memory, caches, method="step")
      return (tokens[:, :, position], caches), logits

    start = jnp.zeros((2, 3), jnp.int32), model.decoder.empty_cache(2, 3, LENGTH)
    return jax.lax.scan(step, start, jnp.arange(LENGTH))[1]

  stepped = jnp.moveaxis(in_steps(), 0, 2)
  assert np.std(whole) > 0.3
  np.testing.assert_allclose(stepped, whole, atol=1e-5)


def test_a_token_sees_only_what_stands_before_it(network):
  model, variables, memory = network
  decode = jax.jit(lambda tokens: model.apply(variables, memory, tokens, method="decode"))
  tokens = jnp.asarray(np.random.default_rng(3).integers(0, VOCAB, (2, 2, LENGTH)), jnp.int32)
  before = decode(tokens)
  after = decode(tokens.at[0, 0, 4].set((tokens[0, 0, 4] + 1) % VOCAB))
  changed = np.abs(np.asarray(after - before)).max(axis=-1) > 1e-6
  want = np.zeros((2, 2, LENGTH), bool)
  want[0, 0, 5:] = True
  np.testing.assert_array_equal(changed, want)


def test_shorter_sequences_are_beginnings_of_longer_ones(network):
  model, variables, memory = network
  tokens = jnp.asarray(np.random.default_rng(4).integers(0, VOCAB, (2, 1, LENGTH)), jnp.int32)
  whole, part = (
    jax.jit(lambda t: model.apply(variables, memory, t, method="decode"))(t)
    for t in (tokens, tokens[:, :, :4])
  )
  np.testing.assert_allclose(part, whole[:, :, :4], atol=1e-5)


def loss_and_gradient(config, params, images, tokens):
  """A scalar that depends on every logit, and its gradient."""
  model = encoder_decoder.build(config, VOCAB, LENGTH)

  def loss(params):
    return jnp.mean(jnp.sin(model.apply({"params": params}, images, tokens)))

  return jax.jit(jax.value_and_grad(loss))(params)


OF_OTHERS = {"layer_scale": True, "registers": 3, "gelu": "exact"}


@pytest.fixture(scope="module", params=[{}, OF_OTHERS], ids=["plain", "of others"])
def deep(request):
  """A config with several layers in both parts, weights that make all of them matter, inputs."""
  deeper = {part: dataclasses.replace(getattr(CONFIG, part), depth=2) for part in PARTS}
  deeper["encoder"] = dataclasses.replace(deeper["encoder"], **request.param)
  config = dataclasses.replace(CONFIG, **deeper)
  model = encoder_decoder.build(config, VOCAB, LENGTH)
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (2, SIZE, SIZE, 3), np.uint8))
  tokens = jnp.asarray(rng.integers(0, VOCAB, (2, 3, LENGTH), np.int32))
  shapes = jax.eval_shape(model.init, jax.random.key(0), images, tokens)["params"]
  params = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), shapes)
  return config, params, images, tokens


@pytest.mark.parametrize("remat", [False, True])
def test_scanned_layers_are_the_unrolled_ones(deep, remat):
  config, *given = deep
  plain = loss_and_gradient(config, *given)
  scanned = loss_and_gradient(dataclasses.replace(config, scan_layers=True, remat=remat), *given)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, scanned)


def test_scanned_layers_have_the_parameters_of_the_unrolled_ones(deep):
  config, params, images, tokens = deep
  model = encoder_decoder.build(dataclasses.replace(config, scan_layers=True), VOCAB, LENGTH)
  made = jax.eval_shape(model.init, jax.random.key(0), images, tokens)["params"]
  assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)


def test_scanned_layers_draw_their_own_dropout(deep):
  config, params, images, tokens = deep
  dropped = {part: dataclasses.replace(getattr(config, part), dropout=0.5) for part in PARTS}
  config = dataclasses.replace(config, scan_layers=True, **dropped)
  model = encoder_decoder.build(config, VOCAB, LENGTH)

  @jax.jit
  def logits(key):
    return model.apply({"params": params}, images, tokens, False, rngs={"dropout": key})

  first, again, other = (logits(jax.random.key(seed)) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert jnp.max(jnp.abs(first - other)) > 0.1


def test_the_fused_kernel_is_called_as_the_plain_products_compute(deep, monkeypatch):
  config, *given = deep
  plain = loss_and_gradient(config, *given)
  calls, fused = [], attention.fused

  def anywhere(query, key, value, causal=False):
    calls.append(causal)
    return fused(query, key, value, causal, "xla")

  monkeypatch.setattr(attention, "has_kernel", lambda dtype, head_width: True)
  monkeypatch.setattr(attention, "fused", anywhere)
  fused_ones = loss_and_gradient(config, *given)
  # Encoder; then in each layer of the decoder self-attention, then attention to the image.
  assert calls == [False] * 2 + [True, False] * 2
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, fused_ones
  )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_cpus_have_no_fused_kernel(dtype):
  assert not attention.has_kernel(jnp.dtype(dtype), 64)
