"""Encoders of others, as people have them, give the features that they give there.

The arrays and features are those of transformers and timm (tests/golden/vit.py).
"""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from rtune.devices.compiling import jit_once
from rtune.models.vit import ViT
from rtune.store import vit_weights, weights

EXACT, TANH = {"gelu": "exact"}, {"gelu": "tanh"}
SCALED = {"layer_scale": True, **EXACT}
CLASS, SCALED_CLASS = {"registers": 1, **EXACT}, {"registers": 1, **SCALED}


class Row(NamedTuple):
  """A file: what the page calls it, whose weights it has, the encoder's fields, how it is made."""

  what: str
  model: str
  fields: dict
  make: object = None
  kind: str = "weights"


def plain(folder, arrays):
  save_file(arrays, folder / "model.safetensors")
  return folder / "model.safetensors"


def below(*prefixes, **more):
  """The same names behind a prefix, beside arrays of something else."""

  def make(folder, arrays):
    named = {f"{prefixes[0]}{name}": value for name, value in arrays.items()}
    others = dict.fromkeys(more.get("beside", ()), np.ones((3, 8), np.float32))
    return plain(folder, named | others)

  return make


def of_dtype(dtype):
  def make(folder, arrays):
    return plain(folder, {name: value.astype(dtype) for name, value in arrays.items()})

  return make


def sharded(given):
  def make(folder, arrays):
    names = sorted(arrays)
    files = {name: f"model-{1 + (i % 2):05}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
      save_file({name: arrays[name] for name in names if files[name] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder / given

  return make


def in_folder(folder, arrays):
  plain(folder, arrays)
  return folder


def npz(folder, arrays):
  np.savez(folder / "model.npz", **arrays)
  return folder / "model.npz"


def with_config(**config):
  def make(folder, arrays):
    (folder / "config.json").write_text(json.dumps(config))
    return plain(folder, arrays)

  return make


def chunked(folder, arrays):
  """As DINOv2 trains: blocks in chunks, whose inner numbers count on."""
  return plain(folder, {name.replace("blocks.", "blocks.0."): x for name, x in arrays.items()})


TORCHVISION = {
  "cls_token": "class_token",
  "pos_embed": "encoder.pos_embedding",
  "patch_embed.proj": "conv_proj",
  "blocks.": "encoder.layers.encoder_layer_",
  ".attn.qkv.": ".self_attention.in_proj_",
  ".attn.proj.": ".self_attention.out_proj.",
  ".norm1.": ".ln_1.",
  ".norm2.": ".ln_2.",
  ".mlp.fc1.": ".mlp.0.",
  ".mlp.fc2.": ".mlp.3.",
}


def torchvision(folder, arrays):
  renamed = {}
  for name, value in arrays.items():
    for old, new in TORCHVISION.items():
      name = name.replace(old, new)
    renamed[name.replace("norm.", "encoder.ln.") if name.startswith("norm.") else name] = value
  return plain(folder, renamed)


TEXT = ("text_model.encoder.layers.0.layer_norm1.weight", "logit_scale")
ROWS = (
  Row("ViT of transformers, as version 4 and 5 save it", "vit", CLASS),
  Row("the same, names of version 5's modules", "vit", CLASS, kind="now"),
  Row(
    "ViT without biases of queries, keys, values",
    "vit_without_qkv_bias",
    CLASS,
  ),
  Row("DeiT with a distillation token", "deit", {"registers": 2, **EXACT}),
  Row("I-JEPA, without a class token", "ijepa", EXACT),
  Row("DINOv2", "dinov2", SCALED_CLASS),
  Row("DINOv2, names of transformers 5's modules", "dinov2", SCALED_CLASS, kind="now"),
  Row("DINOv2 with registers", "dinov2_registers", {"registers": 5, **SCALED}),
  Row("SigLIP's image tower", "siglip", TANH),
  Row(
    "SigLIP with both towers",
    "siglip",
    TANH,
    below("vision_model.", beside=TEXT),
  ),
  Row("SigLIP 2, patches as a matrix", "siglip2", TANH),
  Row("timm's ViT", "timm_vit", CLASS),
  Row("timm's distilled DeiT", "timm_deit", {"registers": 2, **EXACT}),
  Row("timm's DeiT III", "timm_deit3", SCALED_CLASS),
  Row("timm's ViT with registers", "timm_registers", {"registers": 5, **SCALED}),
  Row("timm's ViT as .npz", "timm_vit", CLASS, npz),
  Row("DINOv2's own checkpoint, blocks in chunks", "timm_deit3", SCALED_CLASS, chunked),
  Row("torchvision's ViT", "timm_vit", CLASS, torchvision),
  Row("names behind `module.` (DataParallel)", "vit", CLASS, below("module.")),
  Row(
    "`vit.` with a classifier",
    "vit",
    CLASS,
    below("vit.", beside=("classifier.weight",)),
  ),
  Row("names behind `backbone.`", "dinov2", SCALED_CLASS, below("backbone.")),
  Row("names behind `model.`", "timm_vit", CLASS, below("model.")),
  Row("`_orig_mod.` (torch.compile)", "timm_vit", CLASS, below("_orig_mod.")),
  Row("`base_model.model.vit.` (PEFT)", "vit", CLASS, below("base_model.model.vit.")),
  Row("`visual.trunk.` (open_clip)", "timm_vit", CLASS, below("visual.trunk.")),
  Row(
    "MAE with its decoder",
    "timm_vit",
    CLASS,
    below("", beside=("decoder_blocks.0.norm1.weight", "mask_token", "decoder_pos_embed")),
  ),
  Row("the index of shards", "vit", CLASS, sharded("model.safetensors.index.json")),
  Row("a folder of shards with their index", "vit", CLASS, sharded("")),
  Row("a folder with model.safetensors", "vit", CLASS, in_folder),
  Row("16-bit numbers (float16)", "vit", CLASS, of_dtype(np.float16)),
  Row("64-bit numbers", "vit", CLASS, of_dtype(np.float64)),
  Row(
    "a config.json beside it that agrees",
    "vit",
    CLASS,
    with_config(num_attention_heads=2, hidden_act="gelu"),
  ),
  Row(
    "a config.json with a table for images",
    "siglip",
    TANH,
    with_config(num_attention_heads=7, vision_config={"num_attention_heads": 2}),
  ),
)


def encoder(image, fields):
  """A ViT of the golden models' sizes, and the shapes of its parameters."""
  model = ViT(4, 8, 2, 2, 16, jnp.dtype("float32"), **fields)
  return model, jax.eval_shape(model.init, jax.random.key(0), image)["params"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_features_are_those_of_the_reference(row, tmp_path, golden_vits, vit_arrays):
  path = (row.make or plain)(tmp_path, vit_arrays(row.model, row.kind))
  image, lines = golden_vits["image"], []
  model, shapes = encoder(image, row.fields)
  loaded = vit_weights.load_encoder(path, shapes, lines.append, gelu=row.fields["gelu"])
  tokens = jit_once(model.apply)({"params": loaded}, jnp.asarray(image))[0]
  np.testing.assert_allclose(tokens, golden_vits[f"{row.model}/tokens"], atol=1e-4)
  assert not [line for line in lines if "GELU" in line or "keeps them" in line]
  assert ("no config.json" in " ".join(lines)) != (tmp_path / "config.json").exists()


IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TOLD = {
  "preprocessor_config.json": {"image_mean": IMAGENET[0], "image_std": IMAGENET[1]},
  "config.json": {"pretrained_cfg": {"mean": IMAGENET[0], "std": IMAGENET[1]}},
}


@pytest.mark.parametrize("file", TOLD)
def test_pixels_of_another_scale(file, tmp_path, golden_vits, vit_arrays):
  """An image as the encoder sees it gives the features of the reference, which scales it itself."""
  (tmp_path / file).write_text(json.dumps(TOLD[file]))
  path, lines = plain(tmp_path, vit_arrays("timm_vit")), []
  model, shapes = encoder(golden_vits["image"], CLASS)
  loaded = vit_weights.load_encoder(path, shapes, lines.append)
  mean, std = (np.array(values, np.float32) for values in IMAGENET)
  image = 2 * (golden_vits["image"] * std + mean) - 1
  tokens = jit_once(model.apply)({"params": loaded}, jnp.asarray(image))[0]
  np.testing.assert_allclose(tokens, golden_vits["timm_vit/tokens"], atol=1e-4)
  assert any("their pixels have mean [0.485, 0.456, 0.406]" in line for line in lines)


def test_pixels_of_our_scale_change_nothing(tmp_path, golden_vits, vit_arrays):
  half = {"image_mean": [0.5] * 3, "image_std": 0.5}
  (tmp_path / "preprocessor_config.json").write_text(json.dumps(half))
  path, lines = plain(tmp_path, vit_arrays("ijepa")), []
  _, shapes = encoder(golden_vits["image"], {})
  loaded = vit_weights.load_encoder(path, shapes, lines.append)
  kernel = vit_arrays("ijepa")["embeddings.patch_embeddings.projection.weight"]
  np.testing.assert_array_equal(loaded["embedding"]["kernel"], kernel.transpose(2, 3, 1, 0))
  assert not [line for line in lines if "pixels" in line]


def test_what_an_encoder_leaves_out_is_said(tmp_path, golden_vits, vit_arrays):
  path = plain(tmp_path, vit_arrays("timm_registers"))
  lines = []
  _, shapes = encoder(golden_vits["image"], {"layer_scale": True})
  vit_weights.load_encoder(path, shapes, lines.append, gelu="tanh")
  said = "\n".join(lines)
  assert "weights left out: head.bias, head.weight (2 in all)" in said
  assert "5 token(s) beside the patches" in said
  assert "config.model.encoder.registers=5 keeps them" in said
  assert "config.model.encoder.gelu=exact gives their features" in said


@pytest.mark.parametrize("layout", ["img", "img, stacked"])
def test_siglip_of_big_vision(layout, tmp_path, golden_vits):
  """Both towers in one file, as big_vision writes it, blocks one by one or stacked."""
  _, shapes = encoder(golden_vits["image"], {})
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
  image_tower = params
  if "stacked" in layout:
    blocks = [params["Transformer"][f"encoderblock_{layer}"] for layer in range(2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)
    norm = params["Transformer"]["encoder_norm"]
    image_tower = {**params, "Transformer": {"encoderblock": stacked, "encoder_norm": norm}}
  tree = {"img": image_tower, "txt": {"Embed_0": {"embedding": np.ones((3, 8))}}, "t": np.ones(1)}
  np.savez(tmp_path / "siglip.npz", **weights.flatten({"params": tree}))
  lines = []
  loaded = vit_weights.load_encoder(tmp_path / "siglip.npz", shapes, lines.append)
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  assert lines == ["weights left out: txt, t (2 in all)"]


def test_home_is_expanded(tmp_path, monkeypatch, golden_vits, vit_arrays):
  plain(tmp_path, vit_arrays("ijepa"))
  monkeypatch.setenv("HOME", str(tmp_path))
  _, shapes = encoder(golden_vits["image"], {})
  vit_weights.load_encoder("~/model.safetensors", shapes)
  assert weights.load_weights("~/model.safetensors")


def test_the_page_shows_them(on_page):
  rows = [(row.what, " ".join(f"`{k}={v}`" for k, v in row.fields.items())) for row in ROWS]
  both = [(f"SigLIP of big_vision, `.npz`, blocks {how}", "") for how in ("one by one", "stacked")]
  on_page("Encoders that are loaded", ("what it is", "settings of its features"), [*rows, *both])
