"""Networks for label maps: sizes, resolutions, parameters, and what they are known by."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.devices.compiling import jit_once
from rtune.errors import UsageError
from rtune.models import deeplab, dense, resnet, sizes, vit, vit_dense
from rtune.models.unet import unet

pytestmark = pytest.mark.usefixtures("quick_compiles")

CLASSES = 5
ENCODER = {"patch_size": 4, "width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32}
MODEL = sizes.Model(encoder=sizes.Encoder(**ENCODER), dtype="float32")
NETWORKS = {
  "unet": (unet, {"width": 4, "depth": 2}),
  "linear": (vit_dense.linear, {"encoder": ENCODER}),
  "segmenter": (vit_dense.segmenter, {"encoder": ENCODER, "layers": 1}),
  "deeplab": (deeplab.deeplab, {"backbone": "small", "width": 8, "rates": (2,)}),
}


def images(height: int, width: int, number: int = 2) -> jax.Array:
  rng = np.random.default_rng(height)
  return jnp.asarray(rng.integers(0, 256, (number, height, width, 3), np.uint8))


def noisy(params, scale: float = 0.1):
  """Parameters of no particular network: those of `init` give every pixel the same logits."""
  rng = np.random.default_rng(0)

  def moved(leaf):  # in numpy: jax would compile a sum for each shape
    return jnp.asarray(np.asarray(leaf) + scale * rng.normal(size=leaf.shape), leaf.dtype)

  return jax.tree.map(moved, params)


def count(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes_of(network: dense.Dense, size: int = 64):
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
  return jax.eval_shape(network.init, jax.random.key(0), image)


@functools.cache
def network_of(name: str):
  """A network, it compiled, first parameters for square images of 24 pixels, and random ones."""
  build, args = NETWORKS[name]
  network = build(CLASSES, **args)
  first = jit_once(network.init)(jax.random.key(0), images(24, 24))
  return network, jit_once(network.apply), first, noisy(first)


@pytest.fixture(params=NETWORKS)
def made(request):
  """Each of the networks with its name."""
  return request.param, *network_of(request.param)


def test_logits_of_every_pixel_of_images_of_any_size(made):
  name, _, apply, _, params = made
  for size in ((24, 24), (21, 34)):
    found = apply(params, images(*size))
    assert set(found) == ({"logits", "auxiliary"} if name == "deeplab" else {"logits"})
    for logits in found.values():
      assert logits.shape == (2, *size, CLASSES)
      assert logits.dtype == jnp.float32
      spread = np.std(logits, axis=(1, 2))
      assert np.all(spread > 1e-4), "the image must matter"


def test_parameters_are_nested_dicts_and_the_same_for_a_key(made):
  name, network, apply, first, _ = made
  again = jit_once(network.init)(jax.random.key(0), images(24, 24))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  other = jit_once(network.init)(jax.random.key(1), images(24, 24))
  assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (first, other)), strict=True))
  assert type(first) is dict
  assert {leaf.dtype for leaf in jax.tree.leaves(first)} == {jnp.dtype("float32")}
  if name != "segmenter":  # whose logits are products of two vectors
    assert not jnp.any(apply(first, images(24, 24))["logits"]), "even predictions at first"


def test_an_image_does_not_see_the_others(made):
  _, _, apply, _, params = made
  both = images(24, 24)
  other = both.at[1].set(255 - both[1])
  one, changed = (apply(params, x)["logits"] for x in (both, other))
  np.testing.assert_array_equal(one[0], changed[0])
  assert jnp.any(one[1] != changed[1])


def test_every_parameter_learns(made):
  _, network, _, _, params = made

  def total(params):
    return sum(jnp.sum(jnp.sin(x)) for x in network.apply(params, images(24, 24)).values())

  grads = jit_once(jax.grad(total))(params)
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    key = jax.tree_util.keystr(path)
    # A key's bias shifts all products of a query alike.
    assert jnp.any(leaf != 0) or "['key']['bias']" in key, key


@pytest.mark.parametrize("name", ["unet", "segmenter", "deeplab"])
def test_halves_compute_what_floats_do(name):
  build, args = NETWORKS[name]
  halves = build(CLASSES, **args, dtype="bfloat16")
  _, apply, _, params = network_of(name)
  shapes = shapes_of(halves, 24)
  assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
  want, found = (f(params, images(24, 24))["logits"] for f in (apply, jit_once(halves.apply)))
  assert found.dtype == jnp.float32
  assert 0 < np.abs(found - want).max() < 0.2 * np.ptp(want)


@pytest.mark.parametrize("name", ["unet", "linear", "deeplab"])
def test_dropout_only_with_a_key(name):
  build, args = NETWORKS[name]
  more = {"encoder": {**ENCODER, "dropout": 0.5}} if name == "linear" else {"dropout": 0.5}
  network = build(CLASSES, **{**args, **more})
  _, plain, _, params = network_of(name)
  apply = jit_once(lambda key: network.apply(params, images(24, 24), key)["logits"])
  want = plain(params, images(24, 24))["logits"]
  np.testing.assert_allclose(apply(None), want, atol=1e-5)
  first, again, other = (apply(jax.random.key(seed)) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  for different in (other, want):
    assert np.abs(first - different).max() > 1e-3


def test_padding_repeats_the_edge_and_is_cut_off():
  _, apply, _, params = network_of("unet")
  image = images(21, 34)
  whole = np.pad(image, ((0, 0), (0, 3), (0, 2), (0, 0)), mode="edge")
  found, want = (apply(params, x)["logits"] for x in (image, whole))
  np.testing.assert_allclose(found, want[:, :21, :34], atol=1e-5)


def test_the_small_default_is_small():
  assert 180_000 < count(shapes_of(unet(13), 48)) < 220_000


# ---- ViT


@pytest.mark.parametrize(
  "fields", [{}, {"conv_stem": True}, {"layer_scale": True, "registers": 2, "gelu": "exact"}]
)
def test_the_encoder_is_that_of_the_other_policies(fields):
  """Its names and its features: published weights load by name."""
  size = dataclasses.replace(MODEL.encoder, **fields)
  ours = vit_dense.GridEncoder(dataclasses.replace(MODEL, encoder=size))
  theirs = vit.ViT(4, 16, 1, 2, 32, jnp.dtype("float32"), **fields)
  image = dense.pixels(images(24, 24))
  variables = jit_once(theirs.init)(jax.random.key(0), image)
  made = jax.eval_shape(lambda: ours.init(jax.random.key(0), image, True))
  assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, variables)
  found = jit_once(lambda x: ours.apply(variables, x, True))(image)
  want = jit_once(theirs.apply)(variables, image)
  np.testing.assert_allclose(found.reshape(want.shape), want, atol=1e-5)


def test_positions_are_those_of_a_square_and_interpolated():
  encoder = vit_dense.GridEncoder(MODEL)
  made = jax.eval_shape(
    lambda x: encoder.init(jax.random.key(0), x, True), jnp.zeros((1, 8, 32, 3))
  )
  assert made["params"]["pos_embedding"].shape == (1, 16, 16)
  table = jnp.broadcast_to(jnp.arange(6.0).repeat(6)[None, :, None], (1, 36, 16))
  bound = encoder.bind({"params": {"pos_embedding": table}})
  rows = bound._positions(12, 6, 16)[0, :, :, 0]
  np.testing.assert_allclose(rows, rows[:, :1].repeat(6, axis=1), atol=1e-6)
  np.testing.assert_allclose(rows[:, 0], np.clip(np.arange(12) / 2 - 0.25, 0, 5), atol=1e-5)


def test_class_tokens_are_compared_with_patches():
  """Order and lengths: classes that change places change their logits' places."""
  _, compiled, _, params = network_of("segmenter")
  logits = compiled(params, images(24, 24))["logits"]
  order = np.array([3, 1, 4, 0, 2])
  decoder = params["decoder"]
  norm = {name: leaf[order] for name, leaf in decoder["mask_norm"].items()}
  moved = {**decoder, "cls_emb": decoder["cls_emb"][:, order], "mask_norm": norm}
  longer = {**decoder, **{name: 3 * decoder[name] for name in ("proj_patch", "proj_classes")}}
  for other, want in ((moved, logits[..., order]), (longer, logits)):
    found = compiled({**params, "decoder": other}, images(24, 24))["logits"]
    np.testing.assert_allclose(found, want, atol=1e-4)


def test_mask_logits_by_hand():
  decoder = vit_dense.MaskTransformer(3, MODEL, layers=1)
  grid = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 3, 16)), jnp.float32)
  first = jit_once(lambda key: decoder.init(key, grid, True))(jax.random.key(0))
  variables = {"params": noisy(first["params"])}

  @jit_once
  def apply(variables):
    keep = {"capture_intermediates": lambda module, _: module.name == "Transformer"}
    return decoder.apply(variables, grid, True, **keep)

  logits, state = apply(variables)
  params = jax.tree.map(np.asarray, variables["params"])
  x = np.asarray(state["intermediates"]["Transformer"]["__call__"][0][0], np.float64)
  unit = [
    y / np.linalg.norm(y, axis=-1, keepdims=True)
    for y in (x[:6] @ params["proj_patch"], x[6:] @ params["proj_classes"])
  ]
  masks = unit[0] @ unit[1].T
  masks = (masks - masks.mean(-1, keepdims=True)) / np.sqrt(masks.var(-1, keepdims=True) + 1e-6)
  want = masks * params["mask_norm"]["scale"] + params["mask_norm"]["bias"]
  np.testing.assert_allclose(logits.reshape(6, 3), want, rtol=1e-3, atol=1e-3)


# ---- DeepLab


@pytest.mark.parametrize(
  ("name", "parameters"),
  # torchvision's counts of `resnet*` less those of their classifier, 512 or 2048 features wide.
  [
    ("resnet18", 11_689_512 - 513_000),
    ("resnet34", 21_797_672 - 513_000),
    ("resnet50", 25_557_032 - 2_049_000),
    ("resnet101", 44_549_160 - 2_049_000),
  ],
)
def test_backbones_have_the_published_number_of_parameters(name, parameters):
  shapes = shapes_of(deeplab.deeplab(21, backbone=name))
  assert count(shapes["backbone"]) == parameters


@pytest.mark.parametrize(
  # torchvision's `num_params` of the weights COCO_WITH_VOC_LABELS_V1.
  ("name", "parameters"),
  [("resnet50", 42_004_074), ("resnet101", 60_996_202)],
)
def test_the_whole_network_has_the_published_number_of_parameters(name, parameters):
  assert count(shapes_of(deeplab.deeplab(21, backbone=name))) == parameters


def backbone(output_stride: int, norm: str = "affine") -> resnet.Backbone:
  layers = resnet.Layers(norm, jnp.dtype("float32"))
  return resnet.Backbone(resnet.VARIANTS["small"], output_stride, layers)


@pytest.mark.parametrize(
  ("output_stride", "strides"),
  [(8, (4, 8, 8, 8)), (16, (4, 8, 16, 16)), (32, (4, 8, 16, 32))],
)
@pytest.mark.parametrize("size", [(64, 96), (49, 70)])
def test_output_stride_gives_the_size_of_features(output_stride, strides, size):
  stages = jax.eval_shape(
    lambda x: backbone(output_stride).init_with_output(jax.random.key(0), x)[0],
    jnp.zeros((1, *size, 3)),
  )
  want = [tuple(-(-side // stride) for side in size) for stride in strides]
  assert [stage.shape[1:3] for stage in stages] == want


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_features_are_the_strided_ones_in_more_places(output_stride):
  """Without norms over places, which count more of them."""
  image = dense.pixels(images(64, 96))
  sparse, fine = backbone(32), backbone(output_stride)
  params = noisy(jit_once(sparse.init)(jax.random.key(0), image)["params"], 0.3)
  want, found = (jit_once(net.apply)({"params": params}, image)[-1] for net in (sparse, fine))
  assert np.std(want) > 0.1
  step = 32 // output_stride
  np.testing.assert_allclose(found[:, ::step, ::step], want, rtol=1e-3, atol=1e-3 * want.max())


def test_the_auxiliary_head_reads_the_third_stage():
  _, apply, _, params = network_of("deeplab")

  def auxiliary(layer):
    backbone = {**params["backbone"], layer: noisy(params["backbone"][layer])}
    return apply({**params, "backbone": backbone}, images(24, 24))["auxiliary"]

  before = apply(params, images(24, 24))["auxiliary"]
  assert np.abs(auxiliary("layer3_0") - before).max() > 1e-3
  np.testing.assert_array_equal(auxiliary("layer4_0"), before)
  without = deeplab.deeplab(CLASSES, backbone="small", width=8, auxiliary=False)
  names = {name for name in params if not name.startswith("auxiliary")}
  assert set(shapes_of(without)) == names < set(params)


@pytest.mark.parametrize(
  ("args", "rates"),
  [
    ({"output_stride": 8}, {12, 24, 36}),
    ({"output_stride": 16}, {6, 12, 18}),
    ({"output_stride": 32}, {3, 6, 9}),
    ({"output_stride": 32, "rates": (5, 7)}, {5, 7}),
  ],
)
def test_rates_reach_as_far_whatever_the_output_stride(args, rates):
  network = deeplab.deeplab(CLASSES, backbone="small", width=8, **args)
  program = str(jax.make_jaxpr(network.apply)(shapes_of(network), images(64, 64)))
  dilations = {int(rate) for rate in re.findall(r"rhs_dilation=\((\d+)", program)}
  assert dilations - {1, 2, 4} == rates


# ---- Settings


@pytest.mark.parametrize(
  ("build", "args", "message"),
  [
    (unet, {"width": 0}, "network.args.width is 0; it must be at least 1"),
    (unet, {"depth": -1}, "network.args.depth is -1"),
    (unet, {"norm": "batch"}, "network.args.norm is 'batch'; it must be one of"),
    (unet, {"dropout": 1.0}, "network.args.dropout is 1.0"),
    (unet, {"dtype": "half"}, "network.args.dtype is 'half'"),
    (vit_dense.linear, {"encoder": {"patch": 4}}, "network.args.encoder.patch. Did you mean"),
    (vit_dense.linear, {"encoder": {"width": 10}}, "network.args.encoder.width=10"),
    (vit_dense.segmenter, {"layers": 0}, "network.args.layers is 0"),
    (deeplab.deeplab, {"backbone": "resnet"}, "network.args.backbone is 'resnet'"),
    (deeplab.deeplab, {"output_stride": 4}, "network.args.output_stride is 4"),
    (deeplab.deeplab, {"rates": (6, 0)}, "network.args.rates[1] is 0"),
  ],
)
def test_wrong_settings_are_one_line(build, args, message):
  with pytest.raises(UsageError) as caught:
    build(CLASSES, **args)
  assert f"config.policy.args.{message}" in str(caught.value)
  assert "\n" not in str(caught.value)
