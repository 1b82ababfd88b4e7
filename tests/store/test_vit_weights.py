"""ViT weights of others give the features that they gave there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from rtune.errors import UsageError
from rtune.models.vit import ViT
from rtune.store import torch_vit, vit_weights, weights

WIDTH, DEPTH, HEADS, MLP, PATCH, SIDE = 12, 2, 3, 20, 4, 12
TOKENS = (
  "token(s) beside the patches (class token, registers); "
  "config.model.encoder.registers=1 keeps them"
)
MODEL = ViT(PATCH, WIDTH, DEPTH, HEADS, MLP, jnp.dtype("float32"))
IMAGE = jax.random.normal(jax.random.key(1), (1, SIDE, SIDE, 3))


def encoder_params(seed=0):
  """The encoder's parameters, none of them 0 or 1."""
  params = jax.eval_shape(MODEL.init, jax.random.key(0), IMAGE)["params"]
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: (0.5 * rng.normal(size=x.shape)).astype(np.float32), params)


def huggingface_weights(seed=2):
  """Arrays of a ViTForImageClassification of this size, by their names there."""
  rng = np.random.default_rng(seed)
  tokens = (SIDE // PATCH) ** 2 + 1
  shapes = {
    "vit.embeddings.cls_token": (1, 1, WIDTH),
    "vit.embeddings.position_embeddings": (1, tokens, WIDTH),
    "vit.embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
    "vit.embeddings.patch_embeddings.projection.bias": (WIDTH,),
    "vit.layernorm.weight": (WIDTH,),
    "vit.layernorm.bias": (WIDTH,),
    "classifier.weight": (10, WIDTH),
    "classifier.bias": (10,),
  }
  for layer in range(DEPTH):
    block = f"vit.encoder.layer.{layer}"
    dense = {f"attention.attention.{name}": (WIDTH, WIDTH) for name in ("query", "key", "value")}
    dense |= {"attention.output.dense": (WIDTH, WIDTH)}
    dense |= {"intermediate.dense": (MLP, WIDTH), "output.dense": (WIDTH, MLP)}
    for name, shape in dense.items():
      shapes[f"{block}.{name}.weight"], shapes[f"{block}.{name}.bias"] = shape, shape[:1]
    for name in ("layernorm_before", "layernorm_after"):
      shapes[f"{block}.{name}.weight"] = shapes[f"{block}.{name}.bias"] = (WIDTH,)
  return {n: (0.5 * rng.normal(size=s)).astype(np.float32) for n, s in shapes.items()}


def huggingface_features(flat, image):
  """transformers' ViTModel in numpy, without its class token and with our GELU."""

  def linear(name, x):
    return x @ flat[f"vit.{name}.weight"].T + flat[f"vit.{name}.bias"]

  def norm(name, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * flat[f"vit.{name}.weight"] + flat[f"vit.{name}.bias"]

  grid = SIDE // PATCH
  pixels = image.reshape(grid, PATCH, grid, PATCH, 3).transpose(0, 2, 4, 1, 3)
  kernel = flat["vit.embeddings.patch_embeddings.projection.weight"].reshape(WIDTH, -1)
  x = pixels.reshape(grid * grid, -1) @ kernel.T
  x = x + flat["vit.embeddings.patch_embeddings.projection.bias"]
  x = x + flat["vit.embeddings.position_embeddings"][0, 1:]
  for layer in range(DEPTH):
    block = f"encoder.layer.{layer}"
    y = norm(f"{block}.layernorm_before", x)
    # torch: view(tokens, heads, head_dim)
    query, key, value = (
      linear(f"{block}.attention.attention.{name}", y).reshape(-1, HEADS, WIDTH // HEADS)
      for name in ("query", "key", "value")
    )
    scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(WIDTH // HEADS)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    context = np.einsum("hqk,khd->qhd", scores, value).reshape(-1, WIDTH)
    x = x + linear(f"{block}.attention.output.dense", context)
    y = linear(f"{block}.intermediate.dense", norm(f"{block}.layernorm_after", x))
    x = x + linear(f"{block}.output.dense", np.asarray(jax.nn.gelu(y)))
  return norm("layernorm", x)


def test_huggingface_weights_give_the_same_features(tmp_path):
  flat = huggingface_weights()
  save_file(flat, tmp_path / "model.safetensors")
  lines = []
  path = tmp_path / "model.safetensors"
  loaded = vit_weights.load_encoder(path, encoder_params(), lines.append)
  features = jax.jit(MODEL.apply)({"params": loaded}, IMAGE)
  np.testing.assert_allclose(
    features[0], huggingface_features(flat, np.asarray(IMAGE[0])), atol=2e-5
  )
  left_out, heads, pixels, token = lines
  assert pixels.endswith("tells how pixels are scaled; [-1, 1] is taken")
  assert left_out == "weights left out: classifier.bias, classifier.weight (2 in all)"
  assert heads == "weights: no config.json beside them tells their heads; 3 are taken"
  assert token == "weights left out: 1 " + TOKENS


def test_huggingface_weights_of_another_size_are_refused(tmp_path):
  flat = huggingface_weights()
  del flat["vit.encoder.layer.1.output.dense.bias"]
  save_file(flat, tmp_path / "model.safetensors")
  with pytest.raises(UsageError, match=r"Transformer/encoderblock_1/MlpBlock_0/Dense_1/bias +- "):
    vit_weights.load_encoder(tmp_path / "model.safetensors", encoder_params())
  with pytest.raises(UsageError, match="not a multiple of 5 heads"):
    torch_vit.convert(flat, WIDTH, 5, {})
  with pytest.raises(UsageError, match=r"not the names of a Hugging Face ViT, .*: bert\.x"):
    torch_vit.convert({"bert.x": np.zeros(3)}, WIDTH, 3, {})


def today(params):
  return {**params, "head": {"kernel": np.zeros((WIDTH, 10)), "bias": np.zeros(10)}}


def scanned(params):
  blocks = [params["Transformer"][f"encoderblock_{layer}"] for layer in range(DEPTH)]
  transformer = {
    "encoderblock": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks),
    "encoder_norm": params["Transformer"]["encoder_norm"],
  }
  return {**params, "Transformer": transformer, "MAPHead_0": {"probe": np.zeros((1, 1, WIDTH))}}


def augreg(params):
  """Names of storage.googleapis.com/vit_models/augreg/*.npz, with the class token's position."""
  old = {new: name for name, new in vit_weights._OLD_BLOCK.items()}
  transformer = {
    name: {old.get(part, part): leaf for part, leaf in block.items()}
    for name, block in params["Transformer"].items()
  }
  positions = np.concatenate([np.ones((1, 1, WIDTH), np.float32), params["pos_embedding"]], 1)
  transformer["posembed_input"] = {"pos_embedding": positions}
  cls = np.zeros((1, 1, WIDTH), np.float32)
  return {"embedding": params["embedding"], "cls": cls, "Transformer": transformer}


def positions_in_transformer(params):
  transformer = {**params["Transformer"], "pos_embedding": params["pos_embedding"]}
  return {"embedding": params["embedding"], "Transformer": transformer}


@pytest.mark.parametrize("layout", [today, scanned, augreg, positions_in_transformer])
def test_big_vision_of_every_age(tmp_path, layout):
  params = encoder_params()
  np.savez(tmp_path / "vit.npz", **weights.flatten(layout(params)))
  lines = []
  loaded = vit_weights.load_encoder(tmp_path / "vit.npz", encoder_params(seed=5), lines.append)
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  heads = {"today": "head (1 in all)", "scanned": "MAPHead_0 (1 in all)", "augreg": f"1 {TOKENS}"}
  expected = heads.get(layout.__name__)
  assert lines == ([f"weights left out: {expected}"] if expected else [])


def test_the_class_token_of_augreg_is_a_register(tmp_path):
  """It comes with the position that it has there, which is 1 in each channel."""
  np.savez(tmp_path / "vit.npz", **weights.flatten(augreg(encoder_params())))
  template = encoder_params(seed=5)
  template["Transformer"]["registers"] = np.zeros((1, 1, WIDTH), np.float32)
  loaded = vit_weights.load_encoder(tmp_path / "vit.npz", template)
  np.testing.assert_array_equal(loaded["Transformer"]["registers"], np.ones((1, 1, WIDTH)))
  np.testing.assert_array_equal(loaded["pos_embedding"], encoder_params()["pos_embedding"])


def test_encoder_of_a_run_and_other_resolution(tmp_path):
  params = {"encoder": encoder_params(), "decoder": {"x": np.zeros(3)}}
  weights.save_weights(tmp_path / "mle.safetensors", params, {})
  template = encoder_params(seed=5)
  template["pos_embedding"] = np.zeros((1, 25, WIDTH), np.float32)
  lines = []
  loaded = vit_weights.load_encoder(tmp_path / "mle.safetensors", template, lines.append)
  assert loaded["pos_embedding"].shape == (1, 25, WIDTH)
  assert lines == ["weights: pos_embedding resized from a grid of 3 x 3 to 5 x 5"]
  np.testing.assert_array_equal(
    loaded["embedding"]["kernel"], params["encoder"]["embedding"]["kernel"]
  )


def test_weights_of_something_else(tmp_path):
  np.savez(tmp_path / "w.npz", **{"conv1/kernel": np.zeros(3), "fc/bias": np.zeros(3)})
  with pytest.raises(UsageError, match=r"are not a ViT's: it holds conv1, fc"):
    vit_weights.load_encoder(tmp_path / "w.npz", encoder_params())


def test_arrays_may_be_abstract():
  template = jax.eval_shape(MODEL.init, jax.random.key(0), IMAGE)["params"]
  loaded = weights.merge(template, encoder_params())
  jax.tree.map(np.testing.assert_array_equal, loaded, encoder_params())
