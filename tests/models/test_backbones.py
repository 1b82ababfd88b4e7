"""Backbones say what torchvision's networks say, and encoders rest on them."""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from rtune.errors import UsageError
from rtune.models import sizes
from rtune.models.backbones import backbone
from rtune.models.encoder_decoder import build
from rtune.rewards.plain_nets import standardized
from rtune.store import conv_weights

pytestmark = pytest.mark.usefixtures("quick_compiles")

_GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
_SPEC = importlib.util.spec_from_file_location("golden_backbones", _GOLDEN / "backbones.py")
golden = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(golden)
MADE = json.loads((_GOLDEN / "backbones.json").read_text())
FLOAT = jnp.dtype("float32")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """(name of a network) -> its seeded weights, as torchvision's names in a file."""
  folder = tmp_path_factory.mktemp("torchvision")

  def of(name: str, prefix: str = "") -> pathlib.Path:
    path = folder / f"{prefix}{name}.safetensors"
    if not path.exists():
      shapes = {n: tuple(shape) for n, shape in MADE[name]["shapes"].items()}
      own = {n: v for n, v in golden.seeded(shapes).items() if not n.startswith("classifier")}
      arrays = {f"{prefix}{n}": v for n, v in own.items()}
      safetensors.numpy.save_file(arrays, path)
    return path

  return of


def shapes_of(name: str, stride: int):
  image = jax.ShapeDtypeStruct((1, golden.SIDE, golden.SIDE, 3), FLOAT)
  module = backbone(name, stride, FLOAT)
  return module, jax.eval_shape(module.init, jax.random.key(0), image)["params"]


@pytest.mark.parametrize("name", MADE)
def test_maps_are_those_of_torchvision(name, saved):
  module, shapes = shapes_of(name, max(map(int, MADE[name]["maps"])))
  params = conv_weights.load_backbone(saved(name), shapes)
  image = standardized(jnp.asarray(golden.picture())[None])
  maps = jax.jit(module.apply)({"params": params}, image)
  for stride, wanted in MADE[name]["maps"].items():
    rows = golden.SIDE // int(stride)
    found = [x for x in maps if rows - 1 <= x.shape[1] <= rows][-1]
    np.testing.assert_allclose(golden.kept(np.asarray(found[0])), wanted, rtol=1e-4, atol=1e-4)


def test_an_encoder_reads_a_layer_in_between(saved):
  """What lies above it in the file is left out, whatever stands before the names."""
  module, shapes = shapes_of("resnet18", 8)
  params = conv_weights.load_backbone(saved("resnet18", "module."), shapes)
  assert {name.partition("_")[0] for name in params} == {"conv1", "norm1", "layer1", "layer2"}
  image = standardized(jnp.asarray(golden.picture())[None])
  found = module.apply({"params": params}, image)[-1]
  wanted = MADE["resnet18"]["maps"]["8"]
  np.testing.assert_allclose(golden.kept(np.asarray(found[0])), wanted, rtol=1e-4, atol=1e-4)


def test_weights_of_another_network_are_refused(saved, tmp_path):
  _, shapes = shapes_of("resnet50", 16)
  with pytest.raises(UsageError, match=r"(?s)resnet18.safetensors.*layer1_0/conv3"):
    conv_weights.load_backbone(saved("resnet18"), shapes)
  path = tmp_path / "other.safetensors"
  safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, path)
  with pytest.raises(UsageError, match="not the names of an AlexNet, a VGG or a ResNet"):
    conv_weights.load_backbone(path, shapes)


def model(**encoder):
  small = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 16}
  of = sizes.Model(sizes.Encoder(**small, **encoder), sizes.Decoder(**small), dtype="float32")
  sizes.check_model(of, "config.model")
  return build(of, vocab_size=7, max_length=3)


def test_an_encoder_rests_on_a_backbone():
  network = model(backbone="resnet18", patch_size=16)
  images = jnp.asarray(np.random.default_rng(0).integers(0, 255, (2, 48, 48, 3), np.uint8))
  tokens = jnp.zeros((2, 1, 3), jnp.int32)
  params = network.init(jax.random.key(0), images, tokens)["params"]
  assert set(params["encoder"]) == {"backbone", "neck"}
  memory = network.apply({"params": params}, images, method="encode")
  assert memory.shape == (2, 9, 16)
  # Of another place in the picture another token: positions are rows of the grid.
  changed = images.at[0, :16, 32:].set(0)
  moved = network.apply({"params": params}, changed, method="encode")
  assert not np.allclose(memory[0], moved[0]) and np.allclose(memory[1], moved[1])


@pytest.mark.parametrize(
  ("encoder", "message"),
  [
    ({"backbone": "vgg19"}, "config.model.encoder.backbone is 'vgg19'"),
    ({"backbone": "vgg16", "patch_size": 32}, "config.model.encoder.patch_size is 32"),
    ({"backbone": "vgg16", "conv_stem": True}, "conv_stem is of ViTs"),
  ],
)
def test_settings_that_cannot_be(encoder, message):
  with pytest.raises(UsageError, match=message):
    model(**encoder)
