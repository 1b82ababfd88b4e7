"""Weights that an encoder cannot take are named for what they are, with what would mend it."""

import gzip
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from rtune.errors import DataError, UsageError
from rtune.models.vit import ViT
from rtune.store import vit_weights, weights

AT = "--config.model.encoder."


class Row(NamedTuple):
  """A file: what the page calls it, how it is made, what the one error about it says."""

  what: str
  make: object
  says: tuple[str, ...]
  fields: Mapping = MappingProxyType({})


def from_bytes(name, content):
  def make(folder, arrays):
    del arrays
    (folder / name).write_bytes(content)
    return folder / name

  return make


def changed(model="vit", **arrays):
  """A golden model with arrays more, or less (None); "__" stands for a dot."""

  def make(folder, golden):
    named = {name.replace("__", "."): shape for name, shape in arrays.items()}
    leaves = {name: x for name, x in golden(model).items() if name not in named}
    added = {name: np.ones(shape, np.float32) for name, shape in named.items() if shape}
    save_file(leaves | added, folder / "model.safetensors")
    return folder / "model.safetensors"

  return make


def named(*names):
  """A file of another network, by some of its names."""

  def make(folder, golden):
    del golden
    save_file(dict.fromkeys(names, np.ones((3, 8), np.float32)), folder / "model.safetensors")
    return folder / "model.safetensors"

  return make


def with_config(model="vit", **config):
  def make(folder, golden):
    (folder / "config.json").write_text(json.dumps(config))
    return changed(model)(folder, golden)

  return make


def with_pixels(mean, std):
  def make(folder, golden):
    table = {"image_mean": mean, "image_std": std}
    (folder / "preprocessor_config.json").write_text(json.dumps(table))
    return changed()(folder, golden)

  return make


def of_values(change):
  def make(folder, golden):
    leaves = {name: change(value) for name, value in golden("vit").items()}
    save_file(leaves, folder / "model.safetensors")
    return folder / "model.safetensors"

  return make


def eight_bits(folder, golden):
  """float8, which numpy has not: the header says so."""
  header = {}
  for name, value in golden("vit").items():
    begin = sum(end - start for start, end in (x["data_offsets"] for x in header.values()))
    offsets = [begin, begin + value.size]
    header[name] = {"dtype": "F8_E4M3", "shape": value.shape, "data_offsets": offsets}
  text = json.dumps(header).encode()
  path = folder / "model.safetensors"
  path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offsets[1]))
  return path


def archive(name, *members):
  def make(folder, golden):
    del golden
    with zipfile.ZipFile(folder / name, "w") as file:
      for member in members:
        file.writestr(member, b"x")
    return folder / name

  return make


def arrays_called(name):
  def make(folder, golden):
    np.savez(folder / "model.npz", **golden("timm_vit"))
    (folder / "model.npz").rename(folder / name)
    return folder / name

  return make


def shards(places, there=(), given="model.safetensors.index.json"):
  def make(folder, golden):
    for file in there:
      save_file({"a": np.ones(3, np.float32)}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder / given

  return make


def two_encoders(folder, golden):
  leaves = {
    f"{who}.backbone.{n}": x
    for n, x in golden("timm_vit").items()
    for who in ("student", "teacher")
  }
  save_file(leaves, folder / "model.safetensors")
  return folder / "model.safetensors"


def big_vision(**tree):
  def make(folder, golden):
    del golden
    np.savez(folder / "vit.npz", **{name.replace("__", "/"): x for name, x in tree.items()})
    return folder / "vit.npz"

  return make


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:cdcd\nsize 346293852\n"
BLOCK, HF = "blocks__0__", "encoder__layer__0__"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
PLAIN = "Give a plain ViT"
ROWS = (
  # Sizes: the table ends with the settings that would fit.
  Row("a ViT with layer scale", changed("dinov2"), ("layer scale", "layer_scale=True")),
  Row(
    "one without, for an encoder with it",
    changed(),
    (f"{AT}layer_scale=False",),
    {"layer_scale": True},
  ),
  Row("other heads, by its config.json", with_config(num_attention_heads=4), (f"{AT}num_heads=4",)),
  Row(
    "other heads, in timm's config.json",
    with_config("timm_vit", model_args={"num_heads": 4}),
    (f"{AT}num_heads=4",),
  ),
  Row("other patches", changed(), (f"{AT}patch_size=4",), {"patch_size": 2}),
  Row(
    "a patch projection, for an encoder with a stem",
    changed(),
    (f"{AT}conv_stem=False",),
    {"conv_stem": True},
  ),
  Row("fewer layers", changed(), (f"{AT}depth=2",), {"depth": 3}),
  Row("another width", changed(), (f"{AT}width=8", f"{AT}num_heads=1"), {"width": 16}),
  Row("wider MLPs", changed(), (f"{AT}mlp_dim=16",), {"mlp_dim": 12}),
  Row(
    "five registers, for an encoder with one",
    changed("timm_registers"),
    (f"{AT}registers=5",),
    {"registers": 1, "layer_scale": True},
  ),
  Row(
    "no registers, for an encoder with one",
    changed("ijepa"),
    (f"{AT}registers=0",),
    {"registers": 1},
  ),
  Row(
    "a layer that lacks a bias",
    changed(**{f"{HF}output__dense__bias": None}),
    ("encoderblock_0/MlpBlock_0/Dense_1/bias", "[8]"),
  ),
  Row(
    "positions of no square grid",
    changed(embeddings__position_embeddings=(1, 13, 8)),
    ("pos_embedding", "[1, 12, 8]"),
  ),
  # ViTs with parts that the encoder lacks.
  Row(
    "CLIP",
    changed("siglip", pre_layrnorm__weight=(8,)),
    ("a CLIP", "norm before its blocks", PLAIN),
  ),
  Row(
    "CLIP of OpenAI",
    named("visual.conv1.weight", "visual.transformer.resblocks.0.ln_1.weight"),
    ("a CLIP of OpenAI",),
  ),
  Row("BEiT", changed(**{f"{HF}lambda_1": (8,)}), ("layout of BEiT", PLAIN)),
  Row(
    "relative positions",
    changed("timm_vit", **{f"{BLOCK}attn__relative_position_bias_table": (9, 2)}),
    ("relative positions", PLAIN),
  ),
  Row("SAM", changed("timm_vit", **{f"{BLOCK}attn__rel_pos_h": (5, 4)}), ("SAM", PLAIN)),
  Row("Swin", changed("timm_vit", layers__0__blocks__0__norm1__weight=(8,)), ("Swin", PLAIN)),
  Row(
    "SwiGLU, as DINOv2 giant",
    changed("dinov2", **{f"{HF}mlp__weights_in__weight": (32, 8)}),
    ("SwiGLU", PLAIN),
  ),
  Row(
    "EVA's MLP", changed("timm_vit", **{f"{BLOCK}mlp__fc1_g__weight": (16, 8)}), ("SwiGLU", PLAIN)
  ),
  Row("rotary positions", changed("timm_vit", rope__periods=(4,)), ("rotary positions", PLAIN)),
  Row("DINOv3", named("embeddings.patch_embeddings.weight", "layer.0.norm1.weight"), ("DINOv3",)),
  Row(
    "norms of queries and keys",
    changed("timm_vit", **{f"{BLOCK}attn__q_norm__weight": (4,)}),
    ("norms of queries and keys", PLAIN),
  ),
  Row(
    "a norm within the MLP",
    changed("timm_vit", **{f"{BLOCK}mlp__norm__weight": (16,)}),
    ("parts that this encoder lacks", "blocks.0.mlp.norm.weight"),
  ),
  Row(
    "a norm only after the mean (timm, avg)",
    changed("timm_vit", norm__weight=None, norm__bias=None, fc_norm__weight=(8,)),
    ("fc_norm",),
  ),
  Row("no position embeddings", changed("timm_vit", pos_embed=None), ("no position embeddings",)),
  Row(
    "convolutions before the patches",
    changed("timm_vit", patch_embed__backbone__stem__conv__weight=(8, 3, 7, 7)),
    ("convolutions before its patches",),
  ),
  Row(
    "LoRA adapters",
    changed("timm_vit", **{f"{BLOCK}attn__qkv__lora_A__weight": (2, 8)}),
    ("LoRA adapters, which are not merged",),
  ),
  Row(
    "another activation",
    with_config(num_attention_heads=2, hidden_act="quick_gelu"),
    ("'quick_gelu'", "this encoder has GELU"),
  ),
  Row(
    "a mean of pixels that is no number",
    with_pixels(["a"] * 3, [1, 1, 1]),
    ("the mean of its preprocessing is not three numbers",),
  ),
  Row("a deviation of zero", with_pixels([0, 0, 0], 0), ("not of its patches' colors",)),
  Row(
    "student and teacher", two_encoders, ("2 image encoders: student.backbone., teacher.backbone.",)
  ),
  # Other networks.
  Row("a ResNet", named("layer1.0.conv1.weight", "fc.weight"), ("It looks like a ResNet",)),
  Row("a ConvNeXt", named("stages.0.downsample.0.weight"), ("ConvNeXt",)),
  Row("a language model", named("model.layers.0.mlp.gate_proj.weight"), ("a language model",)),
  Row(
    "a ResNet of JAX",
    big_vision(root_block__conv=np.ones(3)),
    ("not a ViT's: it holds root_block",),
  ),
  Row(
    "a policy of UViM",
    big_vision(EmbedPatches__kernel=np.ones(3)),
    ("a policy of UViM", "config.init_from"),
  ),
  # Numbers.
  Row("8-bit floats", eight_bits, ("F8_E4M3", "Convert it to F32")),
  Row("8-bit integers", of_values(lambda x: x.astype(np.int8)), ("holds int8", "quantized")),
  Row(
    "values that are not finite", of_values(lambda x: np.full_like(x, np.nan)), ("are not finite",)
  ),
  # Parts of a model.
  Row(
    "one shard of two",
    from_bytes(ONE, b"x" * 64),
    ("one of 2 shards", "model.safetensors.index.json"),
  ),
  Row("an index whose shard is not there", shards({"a": ONE}), (f"its shard {ONE} is not there",)),
  Row("an index that finds what its shard lacks", shards({"b": ONE}, (ONE,)), (f"{ONE} lacks b",)),
  Row(
    "an index of PyTorch shards",
    shards({"a": "pytorch_model-00001-of-00002.bin"}),
    ("shards are .safetensors files", "weights_only=True"),
  ),
  Row(
    "a folder of PyTorch's own file",
    lambda folder, golden: from_bytes("pytorch_model.bin", b"x")(folder, golden).parent,
    ("pytorch_model.bin: it is of a kind (.bin) that can run code", "weights_only=True"),
  ),
  Row(
    "an index of files elsewhere",
    shards({"a": "../../secret.safetensors"}),
    ("shards are .safetensors files beside it",),
  ),
  Row(
    "an index without a table",
    from_bytes("model.safetensors.index.json", b'{"a": 1}'),
    ("no weight_map",),
  ),
  # What a file really is.
  Row(
    "a Git LFS pointer (.safetensors)",
    from_bytes("vit.safetensors", LFS),
    ("a Git LFS pointer", "git lfs pull"),
  ),
  Row(
    "a Git LFS pointer (.npz)", from_bytes("vit.npz", LFS), ("a Git LFS pointer", "git lfs pull")
  ),
  Row(
    "a Git LFS pointer (.bin)",
    from_bytes("pytorch_model.bin", LFS),
    ("a Git LFS pointer", "git lfs pull"),
  ),
  Row(
    "a page to sign in",
    from_bytes("vit.npz", b"<!doctype html><title>Sign in</title>"),
    ("an HTML page", "Download the file itself"),
  ),
  Row(
    "a page, after blanks",
    from_bytes("vit.safetensors", b"\n\n  <HTML>no</HTML>"),
    ("an HTML page",),
  ),
  Row(
    "a store's refusal",
    from_bytes("vit.npz", b'<?xml version="1.0"?><Error>AccessDenied</Error>'),
    ("XML",),
  ),
  Row(
    "JSON",
    from_bytes("vit.safetensors", b'{"model_type": "vit", "hidden_size": 768}'),
    ("JSON text",),
  ),
  Row(
    "a pickle called .safetensors",
    from_bytes("vit.safetensors", pickle.dumps({"a": 1})),
    ("a pickle", "safetensors.torch.save_file"),
  ),
  Row(
    "PyTorch's zip called .npz",
    archive("vit.npz", "archive/data.pkl", "archive/data/0"),
    ("a pickle", "safetensors.torch.save_file"),
  ),
  Row("PyTorch's zip called .safetensors", archive("vit.safetensors", "x/data.pkl"), ("a pickle",)),
  Row(
    "a zip of other things",
    archive("vit.npz", "word/document.xml"),
    ("without arrays (word/document.xml)", "Unpack it"),
  ),
  Row(
    "an .npz called .safetensors",
    arrays_called("vit.safetensors"),
    ("an archive of arrays", "Name it .npz"),
  ),
  Row("a .pt file", from_bytes("vit.pt", b"x"), ("can run code", "weights_only=True")),
  Row(
    "a gzip archive",
    from_bytes("vit.safetensors", gzip.compress(b"x")),
    ("a gzip archive", "Unpack it"),
  ),
  Row("HDF5 of Keras", from_bytes("vit.npz", b"\x89HDF\r\n\x1a\n" + bytes(64)), ("an HDF5 file",)),
  Row("a picture", from_bytes("vit.npz", b"\x89PNG\r\n\x1a\n" + bytes(64)), ("a picture (PNG)",)),
  Row(
    "a single array", from_bytes("vit.npz", b"\x93NUMPY\x01\x00" + bytes(64)), ("a single array",)
  ),
  Row(
    "zeros, a download that was broken off",
    from_bytes("vit.safetensors", bytes(4096)),
    ("zeros from its start",),
  ),
  Row("text", from_bytes("vit.npz", b"not weights at all, but a note"), ("not a zip file",)),
  Row(
    "Flax's msgpack",
    from_bytes("flax_model.msgpack", b"\x81\xa1a\x01"),
    (".safetensors or .npz file is needed",),
  ),
)


def template(fields):
  sizes = {"patch_size": 4, "width": 8, "depth": 2, "num_heads": 2, "mlp_dim": 16}
  model = ViT(dtype=jnp.dtype("float32"), **(sizes | dict(fields)))
  images = jax.ShapeDtypeStruct((1, 12, 12, 3), jnp.float32)
  return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_what_cannot_be_taken_is_named(row, tmp_path, vit_arrays):
  path = row.make(tmp_path, vit_arrays)
  with pytest.raises((DataError, UsageError)) as caught:
    vit_weights.load_encoder(path, template(row.fields), [].append)
  message = str(caught.value)
  assert str(tmp_path) in message
  for words in row.says:
    assert words in message
  if "in the model" not in message:
    assert "\n" not in message


def test_the_settings_of_a_variant_are_its_name(tmp_path):
  """A ViT-Ti for a model of other sizes, and a small one for a ViT-Ti."""

  def shapes(fields):
    return weights.flatten(template(fields))

  sizes = ("width", "depth", "mlp_dim", "num_heads")
  tiny = dict(zip(sizes, (192, 12, 768, 3), strict=True))
  np.savez(
    tmp_path / "ti.npz", **{n: np.zeros(x.shape, np.float16) for n, x in shapes(tiny).items()}
  )
  np.savez(
    tmp_path / "small.npz", **{n: np.zeros(x.shape, np.float16) for n, x in shapes({}).items()}
  )
  with pytest.raises(UsageError, match=f"These would fit: {AT}variant=Ti$"):
    vit_weights.load_encoder(tmp_path / "ti.npz", template({}))
  with pytest.raises(UsageError) as caught:
    vit_weights.load_encoder(tmp_path / "small.npz", template(tiny))
  flags = " ".join(
    f"{AT}{k}={v}" for k, v in zip(("variant", *sizes), ("''", 8, 2, 16, 2), strict=True)
  )
  assert str(caught.value).endswith(f"These would fit: {flags}")
  with pytest.raises(UsageError) as caught:
    at = "config.policy.args.network.args"
    vit_weights.load_encoder(tmp_path / "ti.npz", template({}), sizes_at=at)
  table = "{'variant': 'Ti', 'patch_size': 4}"
  assert str(caught.value).endswith(f'These would fit: --{at}.encoder="{table}"')


def test_the_page_shows_them(on_page):
  rows = [(row.what, "; ".join(f"`{words}`" for words in row.says)) for row in ROWS]
  on_page("Weights that are refused", ("what it is", "what the error says"), rows)
