"""RDUNet: as published by number and by value, sizes, and published weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.devices.compiling import jit_once
from rtune.errors import UsageError
from rtune.models.rdunet import rdunet
from rtune.store import rdunet_weights, weights

pytestmark = pytest.mark.usefixtures("quick_compiles")


def count(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def pictures(height, width, channels=1, number=2):
  shape = number, height, width, channels
  return jnp.asarray(np.random.default_rng(height).random(shape), jnp.float32)


def shapes_of(network, channels):
  given = jax.ShapeDtypeStruct((1, 16, 16, channels), jnp.float32)
  sigma = jax.ShapeDtypeStruct((1,), jnp.float32)
  return jax.eval_shape(network.init, jax.random.key(0), given, sigma)


def published_shapes(channels: int, filters: int) -> dict[str, tuple[int, ...]]:
  """Names and shapes of the authors' state dict, written from their model's layers."""
  found = {}

  def conv(name, inputs, outputs, size=3, transposed=False):
    sides = (inputs, outputs) if transposed else (outputs, inputs)
    found[f"{name}.weight"] = (*sides, size, size)
    found[f"{name}.bias"] = (outputs,)

  def act(name, channels):
    found[f"{name}.weight"] = (channels,)

  widths = [filters * 2**level for level in range(4)]
  ends = (("input_block", channels, filters, filters), ("output_block", filters, filters, channels))
  for name, inputs, inner, outputs in ends:
    conv(f"{name}.conv_1", inputs, inner)
    conv(f"{name}.conv_2", inner, outputs)
    act(f"{name}.actv_1", inner)
    act(f"{name}.actv_2", outputs)
  for stage, level in enumerate((0, 1, 2, 3, 2, 1, 0)):
    width = widths[level]
    for block in (f"dn_block_{stage}_0", f"dn_block_{stage}_1"):
      for number in range(4):
        outputs = width if number == 3 else width // 2
        conv(f"{block}.conv_{number}", width + number * width // 2, outputs)
        act(f"{block}.actv_{number}", outputs)
  for level in range(3):
    width, below = widths[level], widths[level + 1]
    conv(f"downsample_{level}.conv", width, below, size=2)
    act(f"downsample_{level}.actv", below)
    conv(f"upsample_{level}.conv", below + width, width)
    conv(f"upsample_{level}.conv_t", below, below, size=2, transposed=True)
    act(f"upsample_{level}.actv", width)
    act(f"upsample_{level}.actv_t", below)
  return found


def published_forward(state, image):
  """What the authors' network computes, in PyTorch's layout [B, C, H, W]."""
  layout = ("NCHW", "OIHW", "NCHW")

  def conv(name, x, stride=1):
    weight, pad = state[f"{name}.weight"], 0 if stride == 2 else 1
    pads = ((pad, pad), (pad, pad))
    x = jax.lax.conv_general_dilated(x, weight, (stride, stride), pads, dimension_numbers=layout)
    return x + state[f"{name}.bias"][None, :, None, None]

  def act(name, x):
    slope = state[f"{name}.weight"][None, :, None, None]
    return jnp.maximum(x, 0) + slope * jnp.minimum(x, 0)

  def transposed(name, x):
    weight = state[f"{name}.weight"]  # [in, out, y, x]
    batch, _, height, width = x.shape
    rows = [
      [jnp.tensordot(weight[:, :, i, j], x, ((0,), (1,))).swapaxes(0, 1) for j in range(2)]
      for i in range(2)
    ]
    pixels = jnp.stack([jnp.stack(row, -1) for row in rows], -2)  # [B, out, H, W, 2, 2]
    pixels = pixels.transpose(0, 1, 2, 4, 3, 5).reshape(batch, -1, 2 * height, 2 * width)
    return pixels + state[f"{name}.bias"][None, :, None, None]

  def dense(stage, x):
    for block in (f"dn_block_{stage}_0", f"dn_block_{stage}_1"):
      seen = x
      for number in range(3):
        made = act(f"{block}.actv_{number}", conv(f"{block}.conv_{number}", seen))
        seen = jnp.concatenate([seen, made], 1)
      x = act(f"{block}.actv_3", conv(f"{block}.conv_3", seen)) + x
    return x

  def ends(name, x):
    x = act(f"{name}.actv_1", conv(f"{name}.conv_1", x))
    return act(f"{name}.actv_2", conv(f"{name}.conv_2", x))

  x, skips = ends("input_block", image), []
  for level in range(3):
    x = dense(level, x)
    skips.append(x)
    x = act(f"downsample_{level}.actv", conv(f"downsample_{level}.conv", x, stride=2))
  x = dense(3, x)
  for stage, level in ((4, 2), (5, 1), (6, 0)):
    name = f"upsample_{level}"
    x = act(f"{name}.actv_t", transposed(f"{name}.conv_t", x))
    x = act(f"{name}.actv", conv(f"{name}.conv", jnp.concatenate([skips[level], x], 1)))
    x = dense(stage, x)
  return ends("output_block", x) + image


@pytest.mark.parametrize(("channels", "number"), [(1, 166_370_562), (3, 166_375_174)])
def test_published_size(channels, number):
  """The paper says 166.4 M."""
  network = rdunet(channels, filters=128)
  assert count(shapes_of(network, channels)) == number
  assert sum(np.prod(shape) for shape in published_shapes(channels, 128).values()) == number
  assert count(shapes_of(rdunet(channels), channels)) < 2_700_000


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_published_weights_give_the_published_network(suffix, tmp_path):
  channels, filters = 3, 2
  rng = np.random.default_rng(0)
  state = {
    f"module.{name}": (0.2 * rng.normal(size=shape)).astype(np.float32)
    for name, shape in published_shapes(channels, filters).items()
  }
  path = tmp_path / f"model.{suffix}"
  if suffix == "npz":
    np.savez(path, **state)
  else:
    weights.save_weights(path, state, {})
  params = rdunet_weights.load_rdunet(path)
  network = rdunet(channels, filters=filters)
  weights.merge(shapes_of(network, channels), params)
  image = pictures(8, 16, channels)
  found = jit_once(network.apply)(params, image, jnp.zeros(2)).image
  state = {name.removeprefix("module."): value for name, value in state.items()}
  want = jit_once(published_forward)(state, image.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
  assert 0.1 < np.abs(want - image).max() < 1e3
  np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-3)


def test_files_of_other_networks_are_named():
  with pytest.raises(UsageError, match=r"^encoder\.weight is not a name of RDUNet's"):
    rdunet_weights.rdunet_from_published({"encoder.weight": np.zeros(3)})


def test_any_size_and_the_level_of_the_noise():
  network = rdunet(1, filters=2, blocks=1, sees_sigma=True)
  image = pictures(13, 10)
  params = jit_once(network.init)(jax.random.key(0), image, jnp.zeros(2))
  apply = jax.jit(network.apply)
  first = apply(params, image, jnp.zeros(2))
  assert first.image.shape == (2, 13, 10, 1) and first.features.shape == (2, 13, 10, 2)
  np.testing.assert_array_equal(first.image, image)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: np.asarray(x + 0.1 * rng.normal(size=x.shape), x.dtype), params)
  low, high = (apply(params, image, jnp.full(2, sigma)).image for sigma in (0.0, 0.2))
  assert np.abs(low - high).max() > 1e-3
  alone = apply(params, image[1:], jnp.zeros(1)).image
  np.testing.assert_allclose(alone, low[1:], atol=1e-4)


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ({"filters": 3}, "filters is 3; it must be one of"),
    ({"blocks": 0}, "blocks is 0; it must be at least 1"),
    ({"dtype": "half"}, "dtype is 'half'"),
  ],
)
def test_settings_that_cannot_be(args, message):
  with pytest.raises(UsageError) as error:
    rdunet(1, **args)
  assert message in str(error.value)
